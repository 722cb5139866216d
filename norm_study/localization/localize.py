"""The localization problem (problem 2.1): read one's own position out of noise.

Input x ~ N(0, I_L), target y = linspace(-1, 1, L), mean squared error. Without norm the indices farther than
the receptive field r from both ends see only noise and best predict their mean, zero. With a norm that pools
over time they can learn where they are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from norm_study.localization.settings import LocalizationConfig
from norm_study.localization.stacked import StackedAdam, StackedNetwork
from norm_study.localization.welch import localize

# Entries of one activation above which a stack gains nothing on a CPU: it leaves the core's cache instead.
CACHED_ENTRIES = 200_000
WARM_UP_STEPS = 100
SHOWN_SAMPLES = 8


def target(length: int) -> Tensor:
    """(L,) the positions to be predicted, from -1 to 1."""
    return torch.linspace(-1, 1, length)


def norm_free_floor(length: int, reach: int) -> float:
    """The best error without norm: (1/L) sum of y_i^2 over r <= i <= L-1-r."""
    return float((target(length).double()[reach : length - reach] ** 2).sum()) / length


def interior(length: int, reach: int) -> list[int]:
    """The indices whose receptive field touches no end."""
    return list(range(reach, length - reach))


class Noise:
    """Each network's own stream of inputs, a function of its seed alone.

    Drawn on the CPU whatever the device, so that a seed means the same everywhere.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device, stream: int = 1):
        # Initialization uses the seed itself; inputs of training and of testing come from streams beside it.
        self.generators = [torch.Generator().manual_seed(seed + stream * 1_000_003) for seed in seeds]
        self.device = device

    def draw(self, batch: int, length: int, inputs: str = "noise") -> Tensor:
        """(B, S, L) fresh inputs."""
        drawn = 1 if inputs == "constant" else length
        x = torch.stack([torch.randn(batch, drawn, generator=g) for g in self.generators], dim=1)
        return x.expand(-1, -1, length).to(self.device).contiguous()


def learning_rate_schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def fit(
    network: nn.Module,
    draw: Callable[[], tuple[Tensor, Tensor]],
    learning_rates: Sequence[float],
    steps: int,
    label: str,
) -> None:
    """Trains a stack of networks on squared error, each as if it were alone.

    Args:
        network: maps (B, S*in, T) to (B, S, T').
        draw: one step's inputs and their targets, the latter broadcastable to (B, S, T').
        learning_rates: one per network.
        steps: number of updates.
        label: shown with the progress on standard error.
    """
    optimizer = StackedAdam(network.parameters(), learning_rates)
    progress = tqdm(range(steps), desc=label, file=sys.stderr, mininterval=1.0, leave=False, dynamic_ncols=True)
    for step in progress:
        x, wanted = draw()
        errors = (network(x) - wanted).square().mean(dim=(0, 2))
        errors.sum().backward()
        optimizer.step(learning_rate_schedule(step, steps))
        if step % 100 == 0:
            progress.set_postfix(mse=f"{float(errors.detach().mean()):.4f}")


def chunks(items: Sequence[Any], entries_each: int, device: torch.device) -> Iterator[Sequence[Any]]:
    """Splits networks into stacks: all at once on a GPU, as many as fit the cache on a CPU."""
    size = len(items) if device.type == "cuda" else max(1, CACHED_ENTRIES // entries_each)
    for first in range(0, len(items), size):
        yield items[first : first + size]


def train_networks(
    config: LocalizationConfig, seeds: Sequence[int], learning_rates: Sequence[float], device: torch.device
) -> StackedNetwork:
    """Trains one network per (seed, learning rate) pair as a single computation.

    The last few are remembered, since figures 1a and 1b measure the same networks.
    """
    shared = {item.name: getattr(config, item.name) for item in fields(LocalizationConfig)}
    shared |= {"predictions": LocalizationConfig.predictions, "alpha": LocalizationConfig.alpha}
    return _trained(LocalizationConfig(**shared), tuple(seeds), tuple(learning_rates), device)


@lru_cache(maxsize=8)
def _trained(
    config: LocalizationConfig,
    seeds: tuple[int, ...],
    learning_rates: tuple[float, ...],
    device: torch.device,
) -> StackedNetwork:
    network = StackedNetwork(
        seeds,
        config.norm,
        depth=config.depth,
        kernel=config.kernel,
        width=config.width,
        groups=config.groups,
        minibatch=config.minibatch,
    ).to(device)
    noise, wanted = Noise(seeds, device), target(config.length).to(device)
    label = f"{config.norm} L={config.length} seeds {','.join(map(str, seeds))}"
    fit(
        network,
        lambda: (noise.draw(config.batch, config.length, config.inputs), wanted),
        learning_rates,
        config.steps,
        label,
    )
    return network.requires_grad_(False)


@torch.no_grad()
def predict(
    network: nn.Module, seeds: Sequence[int], config: LocalizationConfig, inputs: str | None = None
) -> np.ndarray:
    """(S, N, L) predictions on fresh inputs."""
    device = next(network.parameters()).device
    noise, parts = Noise(seeds, device, stream=2), []
    at_once = config.minibatch * max(1, 256 // config.minibatch)  # whole minibatches
    for first in range(0, config.predictions, at_once):
        size = min(at_once, config.predictions - first)
        parts.append(network(noise.draw(size, config.length, inputs or config.inputs)).cpu())
    return torch.cat(parts).transpose(0, 1).numpy()


def prediction_row(predictions: np.ndarray, alpha: float, reach: int) -> dict[str, Any]:
    """Error, localization and the moments that the figures draw, of one network's (N, L) predictions."""
    length = predictions.shape[1]
    found = localize(predictions, alpha)
    inside = set(interior(length, reach))
    return {
        "mse": float(((predictions - target(length).numpy()) ** 2).mean()),
        **found.as_row(),
        "interior_localized": sum(i in inside for i in found.indices()),
        "mean": np.round(predictions.mean(0), 5).tolist(),
        "deviation": np.round(predictions.std(0), 5).tolist(),
        "samples": np.round(predictions[:SHOWN_SAMPLES], 3).tolist(),
    }


def run_localization(config: LocalizationConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains and tests one network per seed; one row each."""
    rows = []
    for chunk in chunks(seeds, config.batch * config.width * config.length, device):
        network = train_networks(config, chunk, [config.learning_rate] * len(chunk), device)
        for seed, predictions in zip(chunk, predict(network, chunk, config), strict=True):
            row = {
                "seed": seed,
                "norm": config.norm,
                **prediction_row(predictions, config.alpha, config.reach),
            }
            rows.append(row)
        for row, change in zip(rows[-len(chunk) :], constant_input_spread(network, chunk, config), strict=True):
            row["constant_input_spread"] = change
    return rows


def constant_input_spread(network: nn.Module, seeds: Sequence[int], config: LocalizationConfig) -> list[float | None]:
    """Remark 2.2: how far interior predictions differ when the input is the same number everywhere.

    Returns:
        Per network the largest difference between two interior predictions of one sequence; ``None`` without
        an interior.
    """
    inside = slice(config.reach, config.length - config.reach)
    few = replace(config, predictions=config.minibatch * 16)
    outputs = predict(network, seeds, few, inputs="constant")[:, :, inside]
    if outputs.shape[-1] == 0:
        return [None] * len(seeds)
    return [float(np.ptp(one, axis=-1).max()) for one in outputs]
