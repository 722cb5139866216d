"""Probes (figure 1b): what each hidden layer of a trained network knows about position.

A probe is an MLP of two hidden layers that sees the channels of one layer at one index and predicts the
target there. It is a network of kernel 1, and the probes of all layers and networks train as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from norm_study.localization.localize import Noise, chunks, fit, target, train_networks
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import LocalizationConfig, ProbeConfig, ProbeSizes
from norm_study.localization.welch import localize


@torch.no_grad()
def activations(networks: Sequence[ConvNetwork], x: Tensor, layers: Sequence[int]) -> Tensor:
    """(S, B, 1, L) inputs to (layers*S, B, h, L): the chosen hidden layers, 1 the first, joined in order."""
    found = [list(network.hidden(own)) for network, own in zip(networks, x, strict=True)]
    return torch.stack([hidden[layer - 1] for layer in layers for hidden in found])


def probe_predictions(
    networks: Sequence[ConvNetwork],
    seeds: Sequence[int],
    config: LocalizationConfig,
    sizes: ProbeSizes,
    layers: Sequence[int],
) -> np.ndarray:
    """Trains one probe per (layer, network) on frozen activations and predicts with them.

    Args:
        networks: S trained networks.
        seeds: theirs; probes are initialized and fed from streams of their own.
        config: the networks' sizes and the test's number of predictions.
        sizes: the probes'.
        layers: hidden layers, 1 to D-1, ascending.

    Returns:
        (layers, S, N, L) predictions on fresh inputs.
    """
    device = next(networks[0].parameters()).device
    about: dict[str, Any] = {"inputs": config.width, "depth": 3, "kernel": 1, "width": sizes.probe_width}
    probe_seeds = [1000 * (layer + 1) + seed for layer in layers for seed in seeds]
    probes = [ConvNetwork(seed, "none", **about).to(device) for seed in probe_seeds]
    noise, wanted = Noise(seeds, device, stream=3), target(config.length).to(device)

    def draw() -> tuple[Tensor, Tensor]:
        x = noise.draw(sizes.probe_batch, config.length, config.inputs)
        return activations(networks, x, layers), wanted

    fit(probes, draw, sizes.probe_learning_rate, sizes.probe_steps, f"{config.norm} probes")
    noise, parts = Noise(seeds, device, stream=4), []
    with torch.no_grad():
        for first in range(0, config.predictions, 256):
            x = noise.draw(min(256, config.predictions - first), config.length, config.inputs)
            felt = activations(networks, x, layers)
            parts.append(torch.stack([probe(own)[:, 0] for probe, own in zip(probes, felt, strict=True)]).cpu())
    return torch.cat(parts, dim=1).unflatten(0, (len(layers), len(seeds))).numpy()


def run_probes(config: ProbeConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains networks and a probe on every hidden layer of each; one row per (seed, layer).

    A row's ``reach`` is r_d = d (k-1)/2, what the first d convolutions can see.
    """
    layers, rows = list(range(1, config.depth)), []
    for chunk in chunks(seeds, config.batch * config.width * config.length, device):
        networks = train_networks(config, chunk, device)
        predictions = probe_predictions(networks, chunk, config, config, layers)
        for which, seed in enumerate(chunk):
            for layer, of_layer in zip(layers, predictions, strict=True):
                found = localize(of_layer[which], config.alpha)
                rows.append(
                    {
                        "seed": seed,
                        "norm": config.norm,
                        "layer": layer,
                        "reach": layer * (config.kernel - 1) // 2,
                        "mse": float(((of_layer[which] - target(config.length).numpy()) ** 2).mean()),
                        "distance": found.distance,
                        "localized_share": found.share,
                        "localized": found.indices(),
                    }
                )
    return rows
