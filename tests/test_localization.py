"""The localization problem: its floor, its networks trained side by side, and each claim about it at a tiny size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from norm_study.localization.batchnorm import run_batchnorm, with_running_statistics
from norm_study.localization.equivariance import interior_shift_error
from norm_study.localization.groups import best_rates, rank_correlations, run_groups
from norm_study.localization.localize import (
    Noise,
    interior,
    norm_free_floor,
    predict_as_trained,
    run_localization,
    train_networks,
)
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import BatchNormConfig, GroupsConfig, LocalizationConfig, UNetConfig
from norm_study.localization.unet_case import UNetOnNoise, run_unet
from planner.norms import WHOLE_KINDS, mixes_time

CPU = torch.device("cpu")
SMALL = LocalizationConfig(length=24, depth=4, kernel=3, width=8, batch=8, steps=8, predictions=64)
LEARNING = LocalizationConfig(
    length=32, depth=5, kernel=5, width=24, batch=32, steps=600, learning_rate=4e-3, predictions=4000
)


@pytest.mark.parametrize(("length", "reach"), [(10, 2), (64, 16), (33, 0), (8, 4), (7, 3)])
def test_floor_equals_the_error_of_predicting_zero_wherever_no_end_is_seen(length, reach):
    position = np.linspace(-1, 1, length)
    blind = [i for i in range(length) if i - reach >= 0 and i + reach <= length - 1]
    assert norm_free_floor(length, reach) == pytest.approx(sum(position[i] ** 2 for i in blind) / length, abs=1e-7)
    assert interior(length, reach) == blind


def test_receptive_field_of_the_network_is_r():
    network = ConvNetwork(0, "none", depth=4, kernel=3, width=8)
    x = torch.randn(64, 1, 31, requires_grad=True)  # of one input alone, ReLU may silence the outermost
    network(x)[:, 0, 15].sum().backward()
    seen = x.grad.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert (min(seen), max(seen)) == (15 - 4, 15 + 4)


@pytest.mark.parametrize("norm", WHOLE_KINDS)
def test_networks_trained_side_by_side_equal_those_trained_one_at_a_time(norm):
    config = replace(SMALL, norm=norm, groups=2)
    seeds = [3, 4, 5]
    together = [
        predict_as_trained(network, seed, config)
        for network, seed in zip(train_networks(config, seeds, CPU), seeds, strict=True)
    ]
    for predictions, seed in zip(together, seeds, strict=True):
        (network,) = train_networks(config, [seed], CPU)
        np.testing.assert_allclose(predictions, predict_as_trained(network, seed, config), atol=2e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_the_same_seed_gives_the_same_rows():
    assert run_localization(SMALL, [7], CPU) == run_localization(SMALL, [7], CPU)


def _plain_batchnorm_network(network: ConvNetwork, momentum: float | None = 0.1) -> nn.Sequential:
    """The same weights in torch's own layers."""
    layers: list[nn.Module] = []
    for at, convolution in enumerate(network.convolutions):
        outputs, inputs, kernel = convolution.weight.shape
        plain = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        plain.load_state_dict(convolution.state_dict())
        layers.append(plain)
        if at < len(network.norms):
            layers += [nn.BatchNorm1d(outputs, momentum=momentum), nn.ReLU()]
    return nn.Sequential(*layers)


def test_batchnorms_gradient_is_that_of_accumulated_minibatches():
    pooled = ConvNetwork(0, "batch", depth=3, kernel=3, width=6, minibatch=2)
    plain = _plain_batchnorm_network(pooled)
    x, wanted = torch.randn(8, 1, 12), torch.linspace(-1, 1, 12)
    (pooled(x) - wanted).square().mean().backward()
    for minibatch in x.split(2):
        ((plain(minibatch) - wanted).square().mean() / 4).backward()
    for ours, theirs in zip(pooled.convolutions, plain[::3], strict=True):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-6, rtol=1e-4)


def test_running_statistics_are_the_average_over_minibatches():
    config = BatchNormConfig(length=12, depth=3, kernel=3, width=6, batch=4, predictions=4, calibration=20)
    pooled = ConvNetwork(0, "batch", depth=3, kernel=3, width=6, minibatch=2)
    plain = _plain_batchnorm_network(pooled, momentum=None)
    noise = Noise([0], CPU, stream=5)
    for minibatch in noise.draw(40, 12)[0].split(2):
        plain(minibatch)
    frozen, x = with_running_statistics(pooled, 0, config), torch.randn(5, 1, 12)
    torch.testing.assert_close(frozen(x), plain.eval()(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", WHOLE_KINDS)
def test_interior_is_equivariant_exactly_when_the_norm_does_not_mix_time(norm):
    network = ConvNetwork(0, norm, depth=4, kernel=3, width=8, groups=4, minibatch=2)
    error = interior_shift_error(network, torch.randn(4, 1, 43), 3, 4, 4)
    assert error > 1e-2 if mixes_time(norm, training=True) else error < 1e-5


@pytest.mark.parametrize("kind", ["none", "channel", "rms", "group"])
def test_unet_is_equivariant_to_its_total_stride_alone(kind):
    network = UNetOnNoise(UNetConfig(norm=kind, dim=8, groups=4, dim_mults=(1, 2), kernel=3, length=96), seed=0)
    left, right = network.unet.receptive_field()
    x = torch.randn(2, 1, 96 + 2)
    aligned = interior_shift_error(network, x, 2, left, right)
    assert aligned > 1e-3 if kind == "group" else aligned < 1e-4
    assert interior_shift_error(network, x[..., :97], 1, left, right) > 1e-3


def test_constant_inputs_give_one_number_in_the_interior_whatever_the_norm():
    for row in run_localization(replace(SMALL, norm="instance", length=40), [0, 1], CPU):
        assert row["constant_input_spread"] < 1e-5


@pytest.mark.parametrize("norm", ["none", "channel", "rms"])
def test_claim_without_pooling_over_time_no_interior_index_is_localized(norm):
    (row,) = run_localization(replace(LEARNING, norm=norm, steps=300), [0], CPU)
    assert row["mse"] > norm_free_floor(32, 10)
    assert row["interior_localized"] == 0
    assert {0, 1, 30, 31} <= set(row["localized"])  # it did learn what it can


def test_claim_instance_norm_localizes_interior_indices():
    (row,) = run_localization(LEARNING, [0], CPU)
    assert row["interior_localized"] >= 2


def test_claim_batchnorm_carries_position_in_minibatch_statistics_only():
    config = BatchNormConfig(
        length=26,
        depth=5,
        kernel=5,
        width=32,
        batch=32,
        steps=2000,
        learning_rate=4e-3,
        predictions=4000,
        calibration=200,
    )
    (row,) = run_batchnorm(config, [0], CPU)
    assert row["interior_localized_minibatch"] >= 2
    assert row["interior_localized_running"] == 0
    assert row["mse_running"] >= row["mse_minibatch"] - 1e-3


def test_claim_unet_with_group_norm_knows_what_it_cannot_see():
    config = UNetConfig(
        dim=16,
        groups=16,
        dim_mults=(1,),
        kernel=3,
        length=24,
        batch=32,
        steps=400,
        predictions=4000,
        learning_rate=4e-3,
    )
    (with_norm,) = run_unet(config, [0], CPU)
    (without,) = run_unet(replace(config, norm="none", steps=100), [0], CPU)
    assert with_norm["interior_localized"] >= 1
    assert with_norm["shift_error"] > 1e-2
    assert without["interior_localized"] == 0
    assert without["shift_error"] < 1e-4


def test_group_sweep_has_a_row_per_setting_and_picks_the_best_rate():
    config = GroupsConfig(
        length=24,
        depth=3,
        kernel=3,
        width=8,
        batch=8,
        steps=5,
        predictions=64,
        group_counts=(1, 2, 8),
        probe_steps=3,
        probe_width=8,
    )
    rows = run_groups(config, [0, 1], CPU)
    assert sorted({(r["groups"], r["learning_rate"], r["seed"]) for r in rows}) == sorted(
        (g, rate, s) for g in (1, 2, 8) for rate in config.learning_rates for s in (0, 1)
    )
    assert len(best_rates(rows)) == 6
    for best in best_rates(rows):
        rivals = [r["mse"] for r in rows if (r["groups"], r["seed"]) == (best["groups"], best["seed"])]
        assert best["mse"] == min(rivals)


def test_rank_correlation_of_a_falling_measure_is_minus_one():
    rows = [{"groups": g, "seed": 0, "mse": 1 / g, "flat": 3} for g in (1, 2, 4)]
    assert rank_correlations(rows, "mse") == pytest.approx([-1])
    assert rank_correlations(rows, "flat") == [0]
