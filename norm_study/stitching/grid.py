"""The stitching study's grid: one planner per norm, padding, receptive field and seed, trained and measured once each.

Every run is a process of its own (``planner train``, then ``norm-study stitch --run``), so that several run at once
and a killed study goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.files import write_atomically
from norm_study.stitching.settings import FactorRun, Grid, StitchSettings
from planner.config import from_dict, load_preset, to_dict

Work = TypeVar("Work")
Stored = list[tuple[FactorRun, dict[str, Any]]]
"""Finished runs, each with its ``rows``, ``intervention`` and ``facts``."""


@dataclass(frozen=True)
class Budget:
    """What every run of a grid is trained with.

    Attributes:
        preset: a shipped name or a file.
        steps: optimizer steps; ``None``: the preset's.
        dataset: Minari's id; ``None``: the preset's.
        rates: learning rates of norms that do not use the preset's.
    """

    preset: str = "hash"
    steps: int | None = None
    dataset: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Words of ``planner train``."""
        steps = ["--steps", str(self.steps)] if self.steps else []
        return [self.preset, *steps, *(["--data.dataset", self.dataset] if self.dataset else [])]


def run_grid(grid: Grid, out: Path, settings: StitchSettings, budget: Budget, *, jobs: int, runs_folder: Path) -> None:
    """Trains and measures what is not yet finished.

    Args:
        grid: which cells.
        out: rows go to ``out/rows/NAME.json.gz``.
        settings: of the measurement.
        jobs: runs at a time; with more than one, each gets one thread.
        budget: of the training, the same for every run.
        runs_folder: where run folders are kept.

    Raises:
        UserError: a run failed; the others are finished first.
    """
    waiting = [run for run in grid.runs() if not is_finished(out, run, settings, budget)]

    def one(run: FactorRun) -> str | None:
        return _train_and_measure(run, out, settings, budget, runs_folder, jobs)

    in_parallel(waiting, one, jobs, "stitching grid")


def in_parallel(work: Sequence[Work], one: Callable[[Work], str | None], jobs: int, what: str) -> None:
    """Does ``one`` on each piece of work, ``jobs`` at a time, with a bar called ``what``.

    Raises:
        UserError: some returned what went wrong; the others are finished first.
    """
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(work), unit="run", desc=what) as bar:
        problems = []
        for done in as_completed([pool.submit(one, piece) for piece in work]):
            bar.update()
            problems += [problem] if (problem := done.result()) else []
    if problems:
        raise UserError(f"{len(problems)} of {len(work)} runs failed, the first: {problems[0]}")


def run_module(module: str, arguments: Sequence[str], jobs: int) -> str | None:
    """Runs a command of ours as a process, with one thread if ``jobs`` run at once.

    Returns:
        The last line of what went wrong, or ``None``.
    """
    environment = dict(os.environ, TQDM_DISABLE="1", **({"OMP_NUM_THREADS": "1"} if jobs > 1 else {}))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else None


def _train_and_measure(
    run: FactorRun,
    out: Path,
    settings: StitchSettings,
    budget: Budget,
    runs_folder: Path,
    jobs: int,
) -> str | None:
    """Runs one cell; returns the last line of what went wrong, or ``None``."""
    folder = runs_folder / run.name
    rate = ["--learning_rate", repr(budget.rates[run.norm])] if run.norm in budget.rates else []
    measured = runs_folder / f"{run.name}.json"
    asked = [
        "--horizons",
        ",".join(map(str, settings.multiples)),
        "--episodes",
        str(settings.episodes),
        "--best-of",
        str(settings.best_of),
        "--best-of-episodes",
        str(settings.best_of_episodes),
        "--seed",
        str(settings.seed),
    ]
    for module, arguments in (
        ("planner.main", ["train", *budget.options(), "--run", str(folder), *run.options(), *rate]),
        ("norm_study.main", ["stitch", "--run", str(folder), *asked, "--json", str(measured)]),
    ):
        if problem := run_module(module, arguments, jobs):
            return f"{run.name}: {problem}"
    result = json.loads(measured.read_text())
    stored = {"question": _question(run, settings, budget), **result}
    packed = gzip.compress(json.dumps(stored).encode(), mtime=0)
    write_atomically(rows_path(out, run), packed)
    measured.unlink()
    return None


def _question(run: FactorRun, settings: StitchSettings, budget: Budget) -> dict[str, Any]:
    """What a stored answer must have been asked."""
    preset = to_dict(from_dict(load_preset(budget.preset)))
    if budget.dataset:
        preset["data"]["dataset"] = budget.dataset
    if run.norm in budget.rates:
        preset["learning_rate"] = budget.rates[run.norm]
    asked = {"run": run.overrides(), "measured": vars(settings), "steps": budget.steps, "preset": preset}
    return json.loads(json.dumps(asked))


def rows_path(out: Path, run: FactorRun) -> Path:
    """Where a run's rows are kept."""
    return out / "rows" / f"{run.name}.json.gz"


def is_finished(out: Path, run: FactorRun, settings: StitchSettings, budget: Budget) -> bool:
    """Whether rows to exactly this question are there."""
    stored = _read(rows_path(out, run))
    return stored is not None and stored.get("question") == _question(run, settings, budget)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (EOFError, OSError, ValueError, zlib.error):
        return None


def stored_runs(out: Path, grid: Grid) -> Stored:
    """What is stored of a grid, in its order, whatever was asked."""
    found = [(run, _read(rows_path(out, run))) for run in grid.runs()]
    return [(run, stored) for run, stored in found if stored is not None]


def answered_runs(out: Path, grid: Grid, settings: StitchSettings, budget: Budget) -> Stored:
    """What is stored of a grid to exactly this question."""
    return [
        (run, stored)
        for run, stored in stored_runs(out, grid)
        if stored.get("question") == _question(run, settings, budget)
    ]
