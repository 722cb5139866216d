"""Probes: layers in order, networks in order, and no more knowledge than the receptive field allows."""

from __future__ import annotations

import numpy as np
import torch

from norm_study.localization.localize import Noise, train_networks
from norm_study.localization.probes import activations, probe_predictions, run_probes
from norm_study.localization.settings import ProbeConfig

CPU = torch.device("cpu")
TINY = ProbeConfig(
    norm="none",
    length=24,
    depth=4,
    kernel=3,
    width=16,
    batch=32,
    steps=150,
    learning_rate=4e-3,
    predictions=2000,
    probe_steps=250,
    probe_width=16,
)


def test_activations_lie_layer_by_layer_then_network_by_network():
    networks = train_networks(TINY, [0, 1], CPU)
    x = Noise([0, 1], CPU).draw(2, 24)
    first, second = (list(network.hidden(own)) for network, own in zip(networks, x, strict=True))
    joined = activations(networks, x, [1, 3])
    assert torch.equal(joined, torch.stack([first[0], second[0], first[2], second[2]]))


def test_probes_of_many_networks_equal_those_of_one():
    networks = train_networks(TINY, [0, 1], CPU)
    both = probe_predictions(networks, [0, 1], TINY, TINY, [1, 3])
    alone = probe_predictions(train_networks(TINY, [1], CPU), [1], TINY, TINY, [1, 3])
    np.testing.assert_allclose(both[:, 1], alone[:, 0], atol=5e-2)
    assert both.shape == (2, 2, TINY.predictions, TINY.length)


def test_claim_without_norm_position_spreads_no_faster_than_the_receptive_field():
    rows = run_probes(TINY, [0], CPU)
    assert [row["layer"] for row in rows] == [1, 2, 3]
    assert [row["reach"] for row in rows] == [1, 2, 3]
    assert all(row["distance"] <= row["reach"] for row in rows)
    assert rows[-1]["distance"] > 0
    assert rows[-1]["mse"] < rows[0]["mse"]
