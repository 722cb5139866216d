"""The localization problem (problem 2.1): read one's own position out of noise.

Input x ~ N(0, I_L), target y = linspace(-1, 1, L), mean squared error. Without norm the indices farther than
the receptive field r from both ends see only noise and best predict their mean, zero. With a norm that pools
over time they can learn where they are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import LocalizationConfig
from norm_study.localization.welch import localize
from planner.training.stacked import Stack

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
        """(S, B, 1, L) fresh inputs."""
        drawn = 1 if inputs == "constant" else length
        x = torch.stack([torch.randn(batch, 1, drawn, generator=g) for g in self.generators])
        return x.expand(-1, -1, -1, length).to(self.device).contiguous()


def learning_rate_schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def fit(
    networks: Sequence[nn.Module],
    draw: Callable[[], tuple[Tensor, Tensor]],
    learning_rate: float,
    steps: int,
    label: str,
) -> None:
    """Trains networks of equal shape on squared error, side by side and each as if it were alone.

    Args:
        networks: S of them, each maps (B, in, T) to (B, 1, T').
        draw: one step's inputs (S, B, in, T) and the target of all, broadcastable to (B, 1, T').
        learning_rate: Adam's at its peak.
        steps: number of updates.
        label: shown with the progress on standard error.
    """

    def loss(network: Callable[[Tensor], Tensor], batch: tuple[Tensor, ...]) -> Tensor:
        return (network(batch[0]) - batch[1]).square().mean()

    stack = Stack(networks)
    optimizer = torch.optim.Adam(stack.parameters.values(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_schedule, steps=steps))
    progress = tqdm(range(steps), desc=label, file=sys.stderr, mininterval=1.0, leave=False, dynamic_ncols=True)
    for step in progress:
        x, wanted = draw()
        errors = stack.losses(loss, [(own, wanted) for own in x])
        errors.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            progress.set_postfix(mse=f"{float(errors.detach().mean()):.4f}")


def chunks(items: Sequence[Any], entries_each: int, device: torch.device) -> Iterator[Sequence[Any]]:
    """Splits networks into stacks: all at once on a GPU, as many as fit the cache on a CPU."""
    size = len(items) if device.type == "cuda" else max(1, CACHED_ENTRIES // entries_each)
    for first in range(0, len(items), size):
        yield items[first : first + size]


def train_networks(config: LocalizationConfig, seeds: Sequence[int], device: torch.device) -> Sequence[ConvNetwork]:
    """Trains one network per seed, all as a single computation.

    The last few are remembered, since figures 1a and 1b measure the same networks.
    """
    shared = {item.name: getattr(config, item.name) for item in fields(LocalizationConfig)}
    shared |= {"predictions": LocalizationConfig.predictions, "alpha": LocalizationConfig.alpha}
    return _trained(LocalizationConfig(**shared), tuple(seeds), device)


@lru_cache(maxsize=8)
def _trained(
    config: LocalizationConfig,
    seeds: tuple[int, ...],
    device: torch.device,
) -> tuple[ConvNetwork, ...]:
    sizes = {name: getattr(config, name) for name in ("depth", "kernel", "width", "groups", "minibatch")}
    networks = tuple(ConvNetwork(seed, config.norm, **sizes).to(device) for seed in seeds)
    noise, wanted = Noise(seeds, device), target(config.length).to(device)
    label = f"{config.norm} L={config.length} seeds {','.join(map(str, seeds))}"

    def draw() -> tuple[Tensor, Tensor]:
        return noise.draw(config.batch, config.length, config.inputs), wanted

    fit(networks, draw, config.learning_rate, config.steps, label)
    return tuple(network.requires_grad_(False) for network in networks)


@torch.no_grad()
def predict(
    network: nn.Module, seed: int, count: int, length: int, *, minibatch: int = 1, inputs: str = "noise"
) -> np.ndarray:
    """(N, L) predictions of one network on ``count`` fresh inputs, in whole minibatches."""
    device = next(network.parameters()).device
    noise, parts = Noise([seed], device, stream=2), []
    at_once = minibatch * max(1, 256 // minibatch)
    for first in range(0, count, at_once):
        (x,) = noise.draw(min(at_once, count - first), length, inputs)
        parts.append(network(x)[:, 0].cpu())
    return torch.cat(parts).numpy()


def predict_as_trained(network: nn.Module, seed: int, config: LocalizationConfig) -> np.ndarray:
    """(N, L) predictions of a network on inputs like those that it was trained on."""
    count, minibatch = config.predictions, config.minibatch
    return predict(network, seed, count, config.length, minibatch=minibatch, inputs=config.inputs)


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
        networks = train_networks(config, chunk, device)
        for seed, network in zip(chunk, networks, strict=True):
            found = prediction_row(predict_as_trained(network, seed, config), config.alpha, config.reach)
            spread = constant_input_spread(network, seed, config)
            rows.append({"seed": seed, "norm": config.norm, **found, "constant_input_spread": spread})
    return rows


def constant_input_spread(network: nn.Module, seed: int, config: LocalizationConfig) -> float | None:
    """Remark 2.2: how far interior predictions differ when the input is the same number everywhere.

    Returns:
        The largest difference between two interior predictions of one sequence; ``None`` without an interior.
    """
    count = config.minibatch * 16
    outputs = predict(network, seed, count, config.length, minibatch=config.minibatch, inputs="constant")
    inside = outputs[:, config.reach : config.length - config.reach]
    return float(np.ptp(inside, axis=-1).max()) if inside.shape[-1] else None
