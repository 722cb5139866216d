"""The table of experiments: what each is called, its sizes, how it runs and what it sums up to.

It is read without torch; what an experiment runs is imported when it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from groundwork.options import Settings
from groundwork.program import Later
from norm_study.init_bias.settings import InitBiasConfig, InitBiasTrainingConfig, InitBiasUNetConfig
from norm_study.localization.settings import (
    BatchNormConfig,
    GroupsConfig,
    LocalizationConfig,
    MultihopConfig,
    PackNormConfig,
    ProbeConfig,
    UNetConfig,
)

if TYPE_CHECKING:
    import torch

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """One subcommand.

    Attributes:
        help: one sentence.
        config: the dataclass of its sizes.
        run: (config, seeds, device) to rows.
        summarize: (config, rows) to what the rows amount to, with intervals over seeds.
    """

    help: str
    config: type[Settings]
    run: Callable[[Any, Sequence[int], torch.device], Rows]
    summarize: Callable[[Any, Rows], dict[str, Any]]


EXPERIMENTS: dict[str, Experiment] = {
    "localize": Experiment(
        "Train on problem 2.1 with any norm (figure 1a).",
        LocalizationConfig,
        Later("norm_study.localization.localize:run_localization"),
        Later("norm_study.reproduce.summaries:localization"),
    ),
    "multihop": Experiment(
        "Localize farther than a single hop can carry, 3r < L/2.",
        MultihopConfig,
        Later("norm_study.localization.localize:run_localization"),
        Later("norm_study.reproduce.summaries:multihop"),
    ),
    "probe": Experiment(
        "Probe what each hidden layer knows about position (figure 1b).",
        ProbeConfig,
        Later("norm_study.localization.probes:run_probes"),
        Later("norm_study.reproduce.summaries:probes"),
    ),
    "packnorm": Experiment(
        "Join two overlapping sequences by nothing but the norm (figure 3).",
        PackNormConfig,
        Later("norm_study.localization.packnorm:run_packnorm"),
        Later("norm_study.reproduce.summaries:packnorm"),
    ),
    "groups": Experiment(
        "Measure the localization distance against the number of groups (figure 4).",
        GroupsConfig,
        Later("norm_study.localization.groups:run_groups"),
        Later("norm_study.reproduce.summaries:groups"),
    ),
    "batchnorm": Experiment(
        "Compare minibatch with running statistics (figures 5 and 6).",
        BatchNormConfig,
        Later("norm_study.localization.batchnorm:run_batchnorm"),
        Later("norm_study.reproduce.summaries:batchnorm"),
    ),
    "unet": Experiment(
        "Test the planner's U-Net beyond its receptive field.",
        UNetConfig,
        Later("norm_study.localization.unet_case:run_unet"),
        Later("norm_study.reproduce.summaries:unet"),
    ),
    "init-bias": Experiment(
        "Measure what untrained classifiers guess, by norm and place.",
        InitBiasConfig,
        Later("norm_study.init_bias.guesses:run_init_bias"),
        Later("norm_study.init_bias.guesses:summarize_init_bias"),
    ),
    "init-bias-training": Experiment(
        "Measure how long an initial bias lasts, by norm and place.",
        InitBiasTrainingConfig,
        Later("norm_study.init_bias.training:run_init_bias_training"),
        Later("norm_study.init_bias.training:summarize_init_bias_training"),
    ),
    "init-bias-unet": Experiment(
        "Measure the planner's first predictions and losses, by norm and placement.",
        InitBiasUNetConfig,
        Later("norm_study.init_bias.unet:run_init_bias_unet"),
        Later("norm_study.init_bias.unet:summarize_init_bias_unet"),
    ),
}


def run_experiment(name: str, config: Any, seeds: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Runs one experiment.

    Returns:
        ``{"config", "rows", "summary"}``, fit for JSON; ``config`` also holds the experiment's name, the
        seeds, the device and the seconds that it took.
    """
    import torch

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
