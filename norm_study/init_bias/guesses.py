"""Where the norm stands, and what an untrained classifier guesses (*Where You Place the Norm Matters*).

f0 is the share of a dataset that an untrained network puts into class 0; its distribution over random
initialisations is the object. Neutral: concentrated at 1/2. Prejudiced: spread, or piled up at 0 and 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from norm_study.init_bias.data import blobs, digits
from norm_study.init_bias.networks import CNNChunk, MLPChunk
from norm_study.init_bias.settings import InitBiasConfig, Place
from norm_study.init_bias.theory import summarize_shares
from norm_study.localization.localize import chunks
from planner.norms import NormKind

Rows = list[dict[str, Any]]
MEASURES = ("f0", "max_fraction", "mean", "deviation", "scaled_mean", "scaled_deviation")
PAPER_VARIANTS: tuple[tuple[NormKind, Place], ...] = (
    ("none", "pre"),
    ("batch", "pre"),
    ("batch", "post"),
    ("layer", "pre"),
    ("layer", "post"),
)
DIGIT_SIDE = 8


def inputs_of(config: InitBiasConfig, seed: int) -> Tensor:
    """(N, D) data, or (N, C, T) for a cnn: a digit's rows are channels, a blob has one."""
    if config.data == "digits":
        x = digits(config.points, 10, seed)[0]
    else:
        x = blobs(config.points, config.dimensions, max(config.classes, 2), seed)[0]
    if config.network == "mlp":
        return x
    return x.view(len(x), DIGIT_SIDE if config.data == "digits" else 1, -1)


def measure_outputs(outputs_IKN: Tensor, scales_IN: Tensor) -> dict[str, Tensor]:
    """Per network the shares of its guesses and the moments of the difference of its first two outputs.

    The scaled moments are of the difference over its scale, point by point. No guess changes by that.
    """
    guesses = outputs_IKN.argmax(1)
    counts = torch.stack([(guesses == k).sum(1) for k in range(outputs_IKN.shape[1])])
    difference = outputs_IKN[:, 0].double() - outputs_IKN[:, 1].double()
    scaled = difference / scales_IN.double().clamp_min(1e-30)
    points = outputs_IKN.shape[2]
    return {
        "f0": counts[0].double() / points,
        "max_fraction": counts.max(0).values.double() / points,
        "mean": difference.mean(1),
        "deviation": difference.std(1, correction=0),
        "scaled_mean": scaled.mean(1),
        "scaled_deviation": scaled.std(1, correction=0),
    }


@torch.no_grad()
def measure_networks(
    config: InitBiasConfig, variants: Sequence[tuple[NormKind, Place]], seed: int, device: torch.device
) -> dict[tuple[NormKind, Place], dict[str, np.ndarray]]:
    """Measures one seed's networks under every variant; the variants share weights and data.

    Returns:
        Per variant and measure an array (depths, I).
    """
    x = inputs_of(config, seed).to(device)
    entries = x.numel() // x.shape[1] * config.width if config.network == "cnn" else len(x) * config.width
    found: dict[Any, list[list[dict[str, Tensor]]]] = {variant: [] for variant in variants}
    label = f"{config.data} depth {config.depth} seed {seed}"
    with tqdm(total=config.inits, desc=label, file=sys.stderr, leave=False, mininterval=1.0) as progress:
        for indices in chunks(range(config.inits), entries, device):
            chunk = (MLPChunk if config.network == "mlp" else CNNChunk)(config, seed, indices, x)
            for norm, place in variants:
                found[norm, place].append([measure_outputs(*o) for o in chunk.outputs(norm, place)])
            progress.update(len(indices))
    return {
        variant: {
            name: np.stack(
                [torch.cat([part[d][name] for part in parts]).cpu().numpy() for d in range(len(config.depths))]
            )
            for name in MEASURES
        }
        for variant, parts in found.items()
    }


def _rows(seed: int, norm: str, place: str, measured: dict[str, np.ndarray]) -> Rows:
    digits_kept = {name: [[float(f"{v:.4g}") for v in one] for one in array.T] for name, array in measured.items()}
    return [
        {
            "seed": seed,
            "init": init,
            "norm": norm,
            "place": place,
            **{name: values[init][-1] for name, values in digits_kept.items()},
            "by_depth": {name: values[init] for name, values in digits_kept.items()},
        }
        for init in range(len(digits_kept["f0"]))
    ]


def run_init_bias(config: InitBiasConfig, seeds: Sequence[int], device: torch.device) -> Rows:
    """One row per initialisation (and variant, in the suite).

    Row entries are of the networks of ``config.depth``; ``by_depth`` holds those of ``config.depths``, which share
    their hidden layers and have outputs of their own.
    """
    variants = PAPER_VARIANTS if config.suite == "paper" else ((config.norm, config.place),)
    rows: Rows = []
    for seed in seeds:
        for (norm, place), measured in measure_networks(config, variants, seed, device).items():
            rows += _rows(seed, norm, place, measured)
    return rows


def arrays_at(config: InitBiasConfig, rows: Rows, depth: int) -> dict[str, np.ndarray]:
    """The (I,) measures of the networks of one depth."""
    which = config.depths.index(depth)
    return {name: np.array([row["by_depth"][name][which] for row in rows]) for name in MEASURES}


def at_depth(config: InitBiasConfig, rows: Rows, depth: int) -> dict[str, Any]:
    """The summary of the networks of one depth."""
    return summarize_shares(arrays_at(config, rows, depth), config.points, config.classes)


def summarize_init_bias(config: InitBiasConfig, rows: Rows) -> dict[str, Any]:
    """The summary at ``config.depth``, and a table with one line per variant and depth."""
    variants = list(dict.fromkeys((row["norm"], row["place"]) for row in rows))
    table = []
    for norm, place in variants:
        chosen = [row for row in rows if (row["norm"], row["place"]) == (norm, place)]
        for depth in config.depths:
            table.append({"norm": norm, "place": place, "depth": depth, **at_depth(config, chosen, depth)})
    if len(variants) > 1:
        return {"table": table}
    named = ("norm", "place", "depth")
    return {**{key: value for key, value in table[-1].items() if key not in named}, "table": table}
