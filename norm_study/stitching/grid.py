"""The stitching study's grid: a planner per norm, padding, receptive field and seed, trained and measured once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from groundwork.answers import Answers
from groundwork.jobs import Executor, Job, run_jobs
from norm_study.stitching.cells import FactorRun
from norm_study.stitching.result import measure
from norm_study.stitching.settings import StitchSettings
from planner.config import Config
from planner.renamed import RENAMED
from planner.training.train import train_job

Stored = list[tuple[FactorRun, dict[str, Any]]]
"""Finished runs, each with its ``rows``, ``intervention`` and ``facts``."""


def answers_in(out: Path) -> Answers:
    """The store of a grid's measured runs."""
    return Answers(out / "rows", RENAMED, _label, compressed=True)


def _label(question: Any) -> str:
    return FactorRun.of(question["config"]).name


@dataclass(frozen=True)
class Budget:
    """What every run of a grid is trained and measured with.

    Attributes:
        base: settings of the training, but for the factors.
        measured: settings of the measurement.
        rates: learning rates of norms that do not use the base's.
    """

    base: Config
    measured: StitchSettings
    rates: Mapping[str, float] = field(default_factory=dict)

    def question(self, run: FactorRun) -> dict[str, Any]:
        """What a stored answer must have been asked."""
        return {"config": run.config(self.base, self.rates), "measured": self.measured}


def train_and_measure(
    store: Answers, asked: Mapping[Path, Mapping[str, Any]], executor: Executor, title: str, device: str
) -> None:
    """Trains and measures what is not yet stored.

    Args:
        store: of what was measured.
        asked: run folder → the question about it, with its ``config`` and what is ``measured``.
        executor: where the runs are trained and measured.
        title: of the progress bar.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: a run failed; the others are finished first.
    """
    jobs: list[Job] = []
    for folder, question in asked.items():
        if store.find(question) is None:  # what is measured need not be trained
            training = train_job(question["config"], folder, device)
            work = partial(measure, [str(folder)], question["measured"], device)
            jobs += [training, store.job(question, work, after=training.name)]
    run_jobs(jobs, executor, title)


def all_runs(out: Path) -> dict[FactorRun, dict[str, Any]]:
    """What is stored, whatever was asked; of a run the newest answer."""
    return {FactorRun.of(question["config"]): answer for question, answer in answers_in(out)}


def stored_runs(out: Path, runs: Sequence[FactorRun]) -> Stored:
    """What is stored of these runs, in their order."""
    found = all_runs(out)
    return [(run, found[run]) for run in runs if run in found]


def answered_runs(out: Path, runs: Sequence[FactorRun], budget: Budget) -> Stored:
    """What is stored of these runs to exactly this question."""
    store = answers_in(out)
    found = [(run, store.find(budget.question(run))) for run in runs]
    return [(run, answer) for run, answer in found if answer is not None]
