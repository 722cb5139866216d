"""PackNorm: what the two sequences share, the symmetry that forbids the task, and the claims at a tiny size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from norm_study.localization.localize import Noise
from norm_study.localization.network import ConvNetwork
from norm_study.localization.packnorm import draw_pairs, run_packnorm
from norm_study.localization.settings import PackNormConfig

CPU = torch.device("cpu")
TINY = PackNormConfig(
    length=9, depth=4, kernel=3, width=16, overlap=7, batch=32, steps=300, learning_rate=6e-3, predictions=1000
)


@pytest.mark.parametrize("overlap", [0, 3, 9])
def test_pairs_share_exactly_the_overlap(overlap):
    pairs = draw_pairs(Noise([0, 1], CPU), 5, 9, overlap)
    first, second = pairs[:, 0::2], pairs[:, 1::2]
    assert pairs.shape == (2, 10, 1, 9)
    assert torch.equal(first[..., 9 - overlap :], second[..., :overlap])
    if overlap < 9:
        assert not torch.equal(first[..., : 9 - overlap], second[..., overlap:])


def test_exchanging_the_sequences_exchanges_the_outputs():
    network = ConvNetwork(0, "packnorm_isolated", depth=4, kernel=3, width=8, padded=False)
    pairs = torch.randn(6, 1, 12)
    swapped = pairs.view(3, 2, 1, 12).flip(1).reshape(6, 1, 12)
    outputs = network(pairs).view(3, 2, 1, -1)
    torch.testing.assert_close(network(swapped).view(3, 2, 1, -1), outputs.flip(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coupled", [True, False])
def test_only_the_coupling_passes_anything_between_the_sequences(coupled):
    kind = "packnorm_isolated" if coupled else "instance_isolated"
    network = ConvNetwork(0, kind, depth=4, kernel=3, width=8, padded=False)
    pair = torch.randn(2, 1, 12)
    changed = pair.clone()
    changed[1] = torch.randn(1, 12)
    same = torch.allclose(network(pair)[0], network(changed)[0], atol=1e-6)
    assert same is not coupled


def test_claim_no_overlap_no_answer():
    (row,) = run_packnorm(replace(TINY, overlap=0), [0], CPU)
    assert row["mse"] == pytest.approx(1, abs=0.05)


def test_claim_overlap_identifies_the_sequences_through_the_coupling_alone():
    (coupled,) = run_packnorm(TINY, [0], CPU)
    (uncoupled,) = run_packnorm(replace(TINY, coupled=False), [0], CPU)
    assert coupled["mse"] < 0.3
    assert uncoupled["mse"] > 0.95
