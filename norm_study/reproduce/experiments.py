"""The table of experiments: what each is called, its sizes, how it runs and what it sums up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from groundwork.intervals import mean_interval, mean_intervals
from norm_study.init_bias.guesses import run_init_bias, summarize_init_bias
from norm_study.init_bias.settings import InitBiasConfig, InitBiasTrainingConfig, InitBiasUNetConfig
from norm_study.init_bias.training import run_init_bias_training, summarize_init_bias_training
from norm_study.init_bias.unet import run_init_bias_unet, summarize_init_bias_unet
from norm_study.localization.batchnorm import run_batchnorm
from norm_study.localization.groups import best_rates, rank_correlations, run_groups
from norm_study.localization.localize import norm_free_floor, run_localization
from norm_study.localization.packnorm import run_packnorm
from norm_study.localization.probes import run_probes
from norm_study.localization.settings import (
    BatchNormConfig,
    GroupsConfig,
    LocalizationConfig,
    MultihopConfig,
    PackNormConfig,
    ProbeConfig,
    UNetConfig,
)
from norm_study.localization.unet_case import run_unet

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """One subcommand.

    Attributes:
        help: one line.
        config: the dataclass of its sizes.
        run: (config, seeds, device) to rows.
        summarize: (config, rows) to what the rows amount to, with intervals over seeds.
    """

    help: str
    config: type
    run: Callable[[Any, Sequence[int], torch.device], Rows]
    summarize: Callable[[Any, Rows], dict[str, Any]]


def _localization(config: LocalizationConfig, rows: Rows) -> dict[str, Any]:
    names = ("mse", "localization_distance", "localized_share", "unbroken_distance", "interior_localized")
    return {
        **mean_intervals(rows, names),
        "floor": norm_free_floor(config.length, config.reach),
        "length": config.length,
        "receptive_field": config.reach,
    }


def _multihop(config: MultihopConfig, rows: Rows) -> dict[str, Any]:
    return {**_localization(config, rows), "single_hop_reach": 3 * config.reach}


def _probes(config: ProbeConfig, rows: Rows) -> dict[str, Any]:
    layers = [
        {
            "layer": layer,
            "reach": layer * (config.kernel - 1) // 2,
            **mean_intervals([row for row in rows if row["layer"] == layer], ("mse", "distance", "localized_share")),
        }
        for layer in range(1, config.depth)
    ]
    return {"layers": layers, "length": config.length, "receptive_field": config.reach}


def _packnorm(config: PackNormConfig, rows: Rows) -> dict[str, Any]:
    sizes = {"overlap": config.overlap, "length": config.length, "coupled": config.coupled}
    return {**mean_intervals(rows, ("mse",)), **sizes}


def _groups(config: GroupsConfig, rows: Rows) -> dict[str, Any]:
    best = best_rates(rows)
    return {
        "best": [
            {
                "groups": count,
                **mean_intervals([row for row in best if row["groups"] == count], ("mse", "localization_distance")),
            }
            for count in config.group_counts
        ],
        "mse_rank_correlation": mean_interval(rank_correlations(rows, "mse")),
        "distance_rank_correlation": mean_interval(rank_correlations(rows, "localization_distance")),
        "length": config.length,
        "receptive_field": config.reach,
    }


def _batchnorm(config: BatchNormConfig, rows: Rows) -> dict[str, Any]:
    names = ("mse", "distance", "interior_localized")
    return {
        **mean_intervals(rows, [f"{name}_{kind}" for name in names for kind in ("minibatch", "running")]),
        "floor": norm_free_floor(config.length, config.reach),
        "length": config.length,
        "receptive_field": config.reach,
    }


def _unet(config: UNetConfig, rows: Rows) -> dict[str, Any]:
    names = ("mse", "localization_distance", "localized_share", "interior_localized", "interior_share", "shift_error")
    return {
        **mean_intervals(rows, names),
        "floor": rows[0]["floor"],
        "length": config.length,
        "receptive_field": [rows[0]["left"], rows[0]["right"]],
        "total_stride": config.total_stride,
    }


EXPERIMENTS: dict[str, Experiment] = {
    "localize": Experiment(
        "problem 2.1 with any norm (figure 1a)", LocalizationConfig, run_localization, _localization
    ),
    "multihop": Experiment(
        "localization farther than a single hop can carry, 3r < L/2", MultihopConfig, run_localization, _multihop
    ),
    "probe": Experiment("what each hidden layer knows about position (figure 1b)", ProbeConfig, run_probes, _probes),
    "packnorm": Experiment(
        "two overlapping sequences joined by nothing but the norm (figure 3)", PackNormConfig, run_packnorm, _packnorm
    ),
    "groups": Experiment(
        "localization distance against the number of groups (figure 4)", GroupsConfig, run_groups, _groups
    ),
    "batchnorm": Experiment(
        "minibatch against running statistics (figures 5 and 6)", BatchNormConfig, run_batchnorm, _batchnorm
    ),
    "unet": Experiment("the planner's U-Net beyond its receptive field", UNetConfig, run_unet, _unet),
    "init-bias": Experiment(
        "what untrained classifiers guess, by norm and place", InitBiasConfig, run_init_bias, summarize_init_bias
    ),
    "init-bias-training": Experiment(
        "how long an initial bias lasts, by norm and place",
        InitBiasTrainingConfig,
        run_init_bias_training,
        summarize_init_bias_training,
    ),
    "init-bias-unet": Experiment(
        "the planner's first predictions and losses, by norm and placement",
        InitBiasUNetConfig,
        run_init_bias_unet,
        summarize_init_bias_unet,
    ),
}


def run_experiment(name: str, config: Any, seeds: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Runs one experiment.

    Returns:
        ``{"config", "rows", "summary"}``, fit for JSON; ``config`` also holds the experiment's name, the
        seeds, the device and the seconds that it took.
    """
    started = time.perf_counter()
    rows = EXPERIMENTS[name].run(config, seeds, device)
    seconds = round(time.perf_counter() - started, 1)
    about = {
        "experiment": name,
        "seeds": list(seeds),
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    return {
        "config": {**asdict(config), **about, "torch": torch.__version__, "seconds": seconds},
        "rows": rows,
        "summary": EXPERIMENTS[name].summarize(config, rows),
    }
