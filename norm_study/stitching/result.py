"""All that is measured of trained runs: rows, summary, interventions, facts and plans to draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.errors import UserError
from norm_study.stitching.intervention import InterventionSettings, intervention_rows
from norm_study.stitching.measurement import check_held_out, example_plans, stitch_rows
from norm_study.stitching.settings import StitchSettings
from norm_study.stitching.summary import summarize
from planner.training.find import find_run, find_seeds


def measure(runs: Sequence[str], settings: StitchSettings, device: str) -> dict[str, Any]:
    """Measures finished runs that differ in their seed alone.

    Returns:
        ``{"config", "rows", "summary", "intervention", "facts", "plans"}``.

    Raises:
        UserError: runs that differ otherwise, or two of one name.
    """
    started = time.perf_counter()
    folders = find_seeds(runs)
    configs = {replace(folder.config(), seed=0) for folder in folders}
    if len(configs) > 1 or len({Path(run).name for run in runs}) < len(runs):
        raise UserError("RUN …: give runs that differ in their seed alone, each with a name of its own")
    check_held_out(folders[0], settings.multiples)
    rows = [row for run in runs for row in stitch_rows(run, settings, device)]
    moved = [row for run in runs for row in intervention_rows(run, InterventionSettings(), device)]
    names = [Path(run).name for run in runs]
    about = {"runs": names, **asdict(settings), "intervention": asdict(InterventionSettings())}
    config = {**about, "torch": torch.__version__, "seconds": round(time.perf_counter() - started, 1)}
    facts = [_facts(run) for run in runs]
    return {
        "config": config,
        "rows": rows,
        "summary": summarize(rows),
        "intervention": moved,
        "facts": facts,
        "plans": [example_plans(run, max(settings.multiples), device=device) for run in runs],
    }


def _facts(run: str) -> dict[str, Any]:
    """What a run cost and how large it is."""
    folder = find_run(run)
    config, network, metrics = folder.config(), folder.load_network(), folder.metrics()
    rates = sorted(row["steps_per_second"] for row in metrics)
    begins = [0, *(row["step"] for row in metrics)]
    last = metrics[-5:]
    return {
        "run": folder.path.name,
        "norm": config.model.norm,
        "seed": config.seed,
        "steps": config.steps,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "reach": list(network.receptive_field()),
        "training_seconds": round(
            sum((row["step"] - begin) / row["steps_per_second"] for begin, row in zip(begins, metrics, strict=False)), 1
        ),
        "steps_per_second": rates[len(rates) // 2] if rates else None,
        "final_loss": sum(row["loss"] for row in last) / len(last) if last else None,
        "largest_mean_gradient": max((row["gradient_norm"] for row in metrics), default=None),
    }
