"""How long a training step takes with each norm; networks are untrained and differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from planner.bench.limits import seconds
from planner.config import Config
from planner.norms import NormKind
from planner.training.trainer import Trainer


def bench_norms(trainer: Trainer, norms: Sequence[NormKind], steps: int) -> Callable[[], dict[str, float]]:
    """Sets up a training of each norm and returns a function that times each once, in turn.

    Args:
        trainer: its settings, but for the norm, its data and its device.
        norms: which.
        steps: training steps per timing.
    """
    config, device = trainer.config, trainer.device
    trainings = {norm: Trainer(_with_norm(config, norm), trainer.data, device) for norm in norms}
    for training in trainings.values():
        seconds(training.update, max(3, steps // 10), device)

    def once() -> dict[str, float]:
        return {f"norm_step_s:{norm}": seconds(one.update, steps, device) for norm, one in trainings.items()}

    return once


def _with_norm(config: Config, norm: NormKind) -> Config:
    return replace(config, model=replace(config.model, norm=norm, num_packs=0))


def norms_summary(rows: Sequence[dict[str, float]], norms: Sequence[NormKind]) -> dict[str, float]:
    """Medians over the repeats: milliseconds of a step, and its ratio to the first norm's in the same repeat."""
    found = {}
    for norm in norms:
        took, first = ([row[f"norm_step_s:{each}"] for row in rows] for each in (norm, norms[0]))
        found[f"norm_step_ms:{norm}"] = 1e3 * float(np.median(took))
        found[f"norm_step_ratio:{norm}"] = float(np.median(np.divide(took, first)))
    return found
