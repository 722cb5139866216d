import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from groundwork.errors import UserError
from planner.normalizer import LimitsNormalizer

FINITE = st.floats(-1e4, 1e4, width=32)


@given(arrays("float32", (7, 3), elements=FINITE))
def test_denormalize_inverts_normalize_and_limits_map_to_one(values):
    data = torch.from_numpy(values)
    normalizer = LimitsNormalizer.fit(data)
    normalized = normalizer.normalize(data)
    varies = normalizer.high - normalizer.low > 1e-4 * data.abs().amax(0)
    rounding = 1e-6 * data.abs().max().clamp_min(1) + 1e-5 * data.abs()
    error = (normalizer.denormalize(normalized) - data).abs()
    assert (error <= rounding)[:, varies].all()
    assert (error <= rounding + normalizer.high - normalizer.low)[:, ~varies].all()
    assert normalized.abs().max() <= 1


def test_a_constant_dimension_maps_to_zero_and_back():
    data = torch.tensor([[3.0, 1.0], [3.0, 2.0]])
    normalizer = LimitsNormalizer.fit(data)
    assert (normalizer.normalize(data)[:, 0] == 0).all()
    assert (normalizer.denormalize(normalizer.normalize(data)) == data).all()


def test_a_constant_with_noise_on_it_maps_to_zero_and_back_to_within_the_noise():
    data = torch.stack([torch.linspace(-1, 1, 500), 5 + 1e-5 * torch.randn(500)], 1)
    normalizer = LimitsNormalizer.fit(data)
    assert normalizer.normalize(torch.tensor([0.5, 5.01])).tolist() == [0.5, 0.0]
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(data)), data, atol=1e-4, rtol=0)


def test_numbers_far_from_all_data_are_refused_by_name():
    # noise around zero looks like any other small number, so that the distance alone tells
    normalizer = LimitsNormalizer.fit(torch.stack([torch.linspace(-1, 1, 500), 1e-5 * torch.randn(500)], 1))
    normalizer.require_near(np.array([[1.5, 0.0], [-1.5, 1e-5]]), "start")
    normalizer.require_near(np.array([[1.5]]), "goal")
    with pytest.raises(UserError, match=r"start: its number 2, 0\.01"):
        normalizer.require_near(np.array([[0.0, 0.0], [0.0, 0.01]]), "start")


def test_json_round_trip():
    normalizer = LimitsNormalizer.fit(torch.randn(5, 4))
    again = LimitsNormalizer.from_dict(normalizer.to_dict())
    assert torch.equal(normalizer.low, again.low)
    assert torch.equal(normalizer.high, again.high)
