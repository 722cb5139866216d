"""The learning rate of each norm, chosen on demonstrated tasks alone, so that held-out tasks stay unseen."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundwork.errors import UserError
from groundwork.files import read_json, write_atomically
from groundwork.intervals import mean_interval
from groundwork.jobs import Executor, Job, run_jobs
from groundwork.section import Section
from groundwork.tables import Cell, Table
from norm_study.stitching.cells import FactorRun
from norm_study.stitching.settings import RateSettings
from norm_study.stitching.summary import study_cell
from planner.comparison.kept import rollout_job, run_rollout
from planner.config import Config
from planner.settings import RolloutSettings
from planner.training.train import train_job

CHOICE_SEED = 100
"""Training seed of the runs that choose; none of the study's own."""
MULTIPLES, TASKS = (1, 2), ("demonstrated",)


def choose_rates(
    settings: RateSettings, base: Config, out: Path, executor: Executor, runs_folder: Path, device: str
) -> dict[str, float]:
    """Trains every norm at every rate with one seed, and takes the rate whose demonstrated plans are valid most often.

    Finished runs are not trained again. Validity is the mean over the training horizon and twice it; of equal ones the
    smaller rate is taken. Held-out tasks are not looked at.

    Args:
        settings: norms and rates.
        base: what all trainings share.
        out: ``rates.json`` (norm → rate), ``rates.md`` and the rows go there.
        executor: where trainings and rollouts run.
        runs_folder: where run folders are kept.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        Norm → chosen rate.

    Raises:
        UserError: a run failed.
    """
    tried = {(norm, rate): runs_folder / _name(norm, rate) for norm in settings.norms for rate in settings.rates}
    asked = [
        RolloutSettings(episodes=settings.episodes, horizon=multiple * base.data.horizon) for multiple in MULTIPLES
    ]
    jobs: list[Job] = []
    for (norm, rate), folder in tried.items():
        config = FactorRun(norm, "zeros", "half", CHOICE_SEED).config(base, {norm: rate})
        training = train_job(config, folder, device)
        jobs += [training, *(rollout_job(folder, one, TASKS, device, after=training.name) for one in asked)]
    run_jobs(jobs, executor, "learning rates")
    rows = [
        {"norm": norm, "rate": rate, "run_seed": CHOICE_SEED, **row}
        for (norm, rate), folder in tried.items()
        for one in asked
        for row in run_rollout(folder, one, TASKS, device)
    ]
    chosen: dict[str, float] = {
        norm: best_rate([row for row in rows if row["norm"] == norm]) for norm in settings.norms
    }
    write_atomically(out / "rates_rows.json.gz", gzip.compress(json.dumps(rows, allow_nan=False).encode(), mtime=0))
    write_atomically(out / "rates.json", json.dumps(chosen) + "\n")
    write_atomically(out / "rates.md", rates_section(rows, chosen).write(out, "rates").markdown())
    return chosen


def _name(norm: str, rate: float) -> str:
    return f"{norm}-rate{rate:g}-seed{CHOICE_SEED}"


def best_rate(rows: Sequence[Mapping[str, Any]]) -> float:
    """The rate with the largest share of valid plans, the smallest one of equals."""
    shares = {rate: np.mean([row["plan_valid"] for row in rows if row["rate"] == rate]) for rate in _rates(rows)}
    return min(shares, key=lambda rate: (-shares[rate], rate))


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return sorted({row["rate"] for row in rows})


def rates_section(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, float]) -> Section:
    """Valid demonstrated plans of each norm at each rate; intervals over episodes."""
    lines: list[list[Cell]] = []
    for norm, best in chosen.items():
        own = [
            [row["plan_valid"] for row in rows if (row["norm"], row["rate"]) == (norm, rate)] for rate in _rates(rows)
        ]
        lines.append([norm, *(study_cell(mean_interval(valid), "plan_valid") for valid in own), f"**{best:g}**"])
    return Section(
        "Learning rates",
        f"The learning rate of each norm: {', '.join(f'{norm} {rate:g}' for norm, rate in chosen.items())}.",
        ["The share of valid plans on demonstrated tasks; the largest one chooses, the smaller rate of equals."],
        tables=[Table(["norm", *(f"{rate:g}" for rate in _rates(rows)), "chosen"], lines)],
        data=["rates.json", "rates_rows.json.gz"],
    )


def read_rates(path: Path) -> dict[str, float]:
    """Norm → rate out of ``rates.json``.

    Raises:
        UserError: missing, damaged, or no such mapping.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(rate, float) and 0 < rate < 1 for rate in found.values()):
        raise UserError(f"{path} must hold a learning rate between 0 and 1 for each norm")
    return found
