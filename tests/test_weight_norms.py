"""Norms of the weights: each output channel's, whatever is stored, and what a network keeps of them while it learns."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from groundwork.errors import UserError
from norm_study.audit import audit
from planner.config import from_dict
from planner.data import load_data
from planner.mish import mish
from planner.training.trainer import Trainer
from planner.unet import TemporalUNet
from planner.weight_norms import NormalizedWeight, balanced_mish, balanced_sum

NORMALIZED = ["standardized", "magnitude_preserving"]


def small(weights, **over):
    torch.manual_seed(0)
    settings = {"dim": 8, "dim_mults": (1, 2), "kernel_size": 3, "norm": "none"} | over
    return TemporalUNet(3, weights=weights, **settings).double()


def by_channel(layer, values):
    """Each output channel's weights as one row."""
    return (values.transpose(0, 1) if isinstance(layer, nn.ConvTranspose1d) else values).flatten(1)


def normalized(network):
    return {name: part for name, part in network.named_modules() if parametrize.is_parametrized(part)}


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(3, 4, 4, stride=2), nn.Linear(6, 4)],
    ids=["conv", "transposed", "linear"],
)
def test_a_weight_equals_the_formula_channel_by_channel(layer, centered):
    stored = layer.double().weight.detach() * 3 + 1
    rows = []
    for row in by_channel(layer, stored).tolist():
        mean = sum(row) / len(row) if centered else 0
        length = math.sqrt(sum((value - mean) ** 2 for value in row))
        gain = math.sqrt(2) if isinstance(layer, nn.ConvTranspose1d) else 1
        rows.append([gain * (value - mean) / length for value in row])
    used = by_channel(layer, NormalizedWeight(layer, centered)(stored))
    assert (used - torch.tensor(rows, dtype=torch.double)).abs().max() < 1e-10


def test_magnitudes_of_gaussian_inputs_are_preserved():
    x = torch.linspace(-12, 12, 100_001, dtype=torch.double)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    assert torch.trapezoid(balanced_mish(x).square() * density, x).item() == pytest.approx(1, abs=1e-10)
    assert torch.allclose(balanced_mish(x) / balanced_mish(x[-1:]), mish(x) / mish(x[-1:]))
    one, other = torch.tensor([1.0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 1])  # uncorrelated
    assert balanced_sum(one, other).norm() == pytest.approx(one.norm())
    network = small("magnitude_preserving", dim=32).float()
    blocks = [part for name, part in network.named_modules() if name.split(".")[-2:-1] == ["blocks"]]
    magnitudes = []
    for block in blocks:
        block.register_forward_hook(lambda *call: magnitudes.append(call[2].square().mean().sqrt().item()))
    network(torch.randn(16, 3, 64), torch.arange(16))
    assert len(magnitudes) == 8
    assert all(0.8 < magnitude < 1.25 for magnitude in magnitudes)


@pytest.mark.parametrize("weights", NORMALIZED)
def test_what_reads_or_writes_the_data_is_free_to_scale_and_all_else_is_not(weights):
    network = small(weights)
    sample, level = torch.randn(2, 3, 32).double(), torch.tensor([1, 5])
    before = network(sample, level)
    with torch.no_grad():
        for part in normalized(network).values():
            part.parametrizations.weight.original.mul_(3)
    assert torch.allclose(network(sample, level), before)
    kinds = (nn.Conv1d, nn.ConvTranspose1d) if weights == "standardized" else (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)
    free = {name for name, part in network.named_modules() if isinstance(part, kinds)} - set(normalized(network))
    reading = {"down.0.blocks.0.first.conv", "down.0.blocks.0.residual"}
    assert free == {"project"} | (reading if weights == "standardized" else set())


@pytest.mark.parametrize("weights", NORMALIZED)
def test_normalized_weights_add_no_reach(weights):
    network = small(weights)
    report = audit(network, (torch.randn(1, 3, 96).double(), torch.tensor([5])), times=4)
    assert report.verdict == "local"
    assert report.receptive_field == network.receptive_field()


@pytest.mark.parametrize("norm", ["none", "rms"])
def test_training_forces_stored_magnitude_preserving_weights_to_unit_norm(tiny, hash_dataset, norm):
    config = tiny(model={"norm": norm, "weights": "magnitude_preserving"})
    trainer = Trainer(config, load_data(config.data), torch.device("cpu"))
    for _ in range(2):
        for part in normalized(trainer.network).values():
            stored = part.parametrizations.weight.original
            assert torch.allclose(stored, part.weight, atol=1e-6)
        trainer.update()
    assert parametrize.is_parametrized(trainer.planner().network.middle.blocks[0].embed)


def test_weight_decay_against_a_forced_norm_is_refused():
    model = {"weights": "magnitude_preserving"}
    with pytest.raises(UserError, match=r"weight_decay = 0.1 must be 0 with model.weights = magnitude_preserving"):
        from_dict({"model": model, "weight_decay": 0.1})
    from_dict({"model": {"weights": "standardized"}, "weight_decay": 0.1})
