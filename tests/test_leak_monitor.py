"""The leak monitor: what it shows is the audit's leakage, and the training does not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from norm_study.audit import LeakMonitor, audit
from planner.training.leak_monitor import heat_map
from planner.training.train import train

SCALAR, MAP = "leakage/beyond_receptive_field", "leakage/map"


class Conditional(nn.Module):
    """A network with a norm, a level by name, dropout and running statistics."""

    def __init__(self, norm):
        super().__init__()
        self.inlet, self.norm, self.outlet = nn.Conv1d(3, 8, 5, padding=2), norm, nn.Conv1d(8, 3, 3, padding=1)
        self.dropout, self.level = nn.Dropout(0.1), nn.Linear(1, 8)

    def forward(self, x, level=None):
        h = self.norm(self.inlet(x)) + self.level(level[:, None])[..., None]
        return {"sample": self.outlet(self.dropout(h.relu()))}["sample"]


def trained(folder, norm, every=None, **settings):
    """A few steps of a loop of one's own, with and without a monitor; the weights and the events' reader."""
    torch.manual_seed(0)
    network, writer = Conditional(norm()), SummaryWriter(str(folder))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    monitor = LeakMonitor(network, writer, every=every, **settings) if every else None
    for _ in range(6):
        x, level = torch.randn(4, 3, 48), torch.rand(4)
        optimizer.zero_grad()
        (network(x, level=level) - x).square().mean().backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
    if monitor is not None:
        monitor.close()
    writer.close()
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return network, monitor, reader


@pytest.mark.parametrize("norm", [lambda: nn.GroupNorm(2, 8), lambda: nn.BatchNorm1d(8)], ids=["group", "batch"])
def test_the_training_ends_with_the_same_bits(tmp_path, norm):
    without, _, _ = trained(tmp_path / "without", norm)
    watched, monitor, _ = trained(tmp_path / "with", norm, every=2)
    assert monitor.seconds > 0
    assert watched.training
    assert not watched._forward_pre_hooks
    for name, value in without.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_scalars_and_maps_come_at_their_steps_and_show_the_leak(tmp_path):
    _, monitor, reader = trained(tmp_path / "group", lambda: nn.GroupNorm(2, 8), every=2)
    assert monitor.receptive_field == (3, 3)
    assert [event.step for event in reader.Scalars(SCALAR)] == [2, 4, 6]
    assert [event.step for event in reader.Images(MAP)] == [2, 4, 6]
    assert all(0 < event.value < 1 for event in reader.Scalars(SCALAR))
    _, _, reader = trained(tmp_path / "none", nn.Identity, every=3)
    assert [event.value for event in reader.Scalars(SCALAR)] == [0, 0]


def test_the_scalar_is_the_audits_leakage(tmp_path):
    network, monitor, _ = trained(tmp_path, lambda: nn.GroupNorm(2, 8), every=6, times=48)
    (x,), named = monitor._given
    whole = audit(_Named(network, named), x, times=48, projections=8, training=False, attribution=False, dtype=None)
    assert monitor.measure()[0] == pytest.approx(whole.leakage.value, rel=0.3)  # one projection against eight
    assert monitor.receptive_field == whole.receptive_field


class _Named(nn.Module):
    def __init__(self, network, named):
        super().__init__()
        self.network, self.named = network, named

    def forward(self, x):
        return self.network(x, **self.named)


def test_an_input_with_nothing_beyond_gives_a_map_and_no_number(tmp_path):
    _, _, reader = trained(tmp_path, lambda: nn.GroupNorm(2, 8), every=3, receptive_field=(48, 48))
    assert SCALAR not in reader.Tags()["scalars"]
    assert [event.step for event in reader.Images(MAP)] == [3, 6]


def test_the_map_is_bright_where_energy_is_and_has_the_receptive_fields_ends_in_white():
    energy, outside = np.full((2, 6), 1e-12), np.zeros((2, 6), dtype=bool)
    energy[:, 2], outside[:, 4:] = 1.0, True
    image = heat_map(energy, outside)
    assert image.shape[1:] == (6, 3)
    assert image.shape[0] >= 128
    assert (image[:, 4] == 255).all()
    assert image[0, 2].sum() > image[0, 1].sum()


def test_a_planners_training_has_the_same_bits_and_its_leakage_in_tensorboard(tiny, hash_dataset, tmp_path):
    config = tiny(model={"norm": "group", "norm_groups": 8})
    plain = train(config, tmp_path / "plain", "cpu", progress=False)
    watched = train(config, tmp_path / "watched", "cpu", progress=False, leakage_every=5)
    one, two = (run.load_network("model").state_dict() for run in (plain, watched))
    assert all(torch.equal(one[name], two[name]) for name in one)
    reader = EventAccumulator(str(watched.path))
    reader.Reload()
    assert [event.step for event in reader.Scalars(SCALAR)] == [5, 10]
    assert all(event.value > 0 for event in reader.Scalars(SCALAR))
    assert [row.keys() for row in plain.metrics()] == [row.keys() for row in watched.metrics()]
