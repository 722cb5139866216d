import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.normalizer import LimitsNormalizer

FINITE = st.floats(-1e4, 1e4, width=32)


@given(arrays("float32", (7, 3), elements=FINITE))
def test_denormalize_inverts_normalize_and_limits_map_to_one(values):
    data = torch.from_numpy(values)
    normalizer = LimitsNormalizer.fit(data)
    normalized = normalizer.normalize(data)
    scale = data.abs().max().clamp_min(1)
    torch.testing.assert_close(normalizer.denormalize(normalized), data, atol=1e-6 * scale.item(), rtol=1e-5)
    assert normalized.abs().max() <= 1


def test_a_constant_dimension_maps_to_zero_and_back():
    data = torch.tensor([[3.0, 1.0], [3.0, 2.0]])
    normalizer = LimitsNormalizer.fit(data)
    assert (normalizer.normalize(data)[:, 0] == 0).all()
    assert (normalizer.denormalize(normalizer.normalize(data)) == data).all()


def test_json_round_trip():
    normalizer = LimitsNormalizer.fit(torch.randn(5, 4))
    again = LimitsNormalizer.from_dict(normalizer.to_dict())
    assert torch.equal(normalizer.low, again.low)
    assert torch.equal(normalizer.high, again.high)
