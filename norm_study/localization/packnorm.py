"""Section 3.2: two sequences that share a part, with nothing between them but the norm layers.

    x1 = [ a a a a a a | s s s s ]          target -1
                       [ s s s s | b b b b b b ] = x2      target +1

Both go through the same unpadded convolutions, each for itself. PackNorm joins the two along time, takes
InstanceNorm's statistics and splits them again. With no overlap the two are exchangeable and the best error
is 1; so it is at any overlap when each is normalized alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from norm_study.localization.localize import Noise, chunks, fit
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import PackNormConfig
from planner.norms import NormKind


def draw_pairs(noise: Noise, pairs: int, length: int, overlap: int) -> Tensor:
    """(S, 2 B, 1, L): rows 2b and 2b+1 are x1 and x2 of pair b, with x2[:o] = x1[L-o:]."""
    joined = noise.draw(pairs, 2 * length - overlap)
    both = torch.stack([joined[..., :length], joined[..., length - overlap :]], dim=2)
    return rearrange(both, "s b p c t -> s (b p) c t")


def pair_targets(pairs: int) -> Tensor:
    """(2 B, 1, 1): -1 for x1, +1 for x2."""
    return torch.tensor([-1.0, 1.0]).repeat(pairs).view(-1, 1, 1)


def run_packnorm(config: PackNormConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains and tests one network per seed; one row each."""
    kind: NormKind = "packnorm_isolated" if config.coupled else "instance_isolated"
    rows = []
    for chunk in chunks(seeds, 2 * config.batch * config.width * config.length, device):
        sizes = {"depth": config.depth, "kernel": config.kernel, "width": config.width}
        networks = [ConvNetwork(seed, kind, **sizes, padded=False).to(device) for seed in chunk]
        noise, wanted = Noise(chunk, device), pair_targets(config.batch).to(device)

        def draw(noise: Noise = noise, wanted: Tensor = wanted) -> tuple[Tensor, Tensor]:
            return draw_pairs(noise, config.batch, config.length, config.overlap), wanted

        label = f"overlap {config.overlap}, {'coupled' if config.coupled else 'uncoupled'}"
        fit(networks, draw, config.learning_rate, config.steps, label)
        test = draw_pairs(Noise(chunk, device, stream=2), config.predictions, config.length, config.overlap)
        wanted = pair_targets(config.predictions).to(device)
        with torch.no_grad():
            errors = [(network(own) - wanted).square().mean() for network, own in zip(networks, test, strict=True)]
        rows += [
            {
                "seed": seed,
                "overlap": config.overlap,
                "coupled": config.coupled,
                "length": config.length,
                "mse": float(error),
            }
            for seed, error in zip(chunk, errors, strict=True)
        ]
    return rows
