"""Rollouts that are kept in the run that was rolled out, so that the same question is answered once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from groundwork.answers import Answers
from groundwork.jobs import Job
from planner.plan import Planner
from planner.renamed import RENAMED
from planner.rollout import RolloutSettings, choose_tasks, rollout
from planner.training.find import find_run
from planner.training.run import RunFolder

Rows = list[dict[str, Any]]


def run_rollout(path: str | Path, settings: RolloutSettings, tasks: Sequence[str], device: str = "auto") -> Rows:
    """Rows of a run's rollout, those kept in the run folder if there are any.

    Raises:
        UserError: no such run, tasks or settings.
    """
    folder = find_run(path)
    work = partial(_roll_out, path, settings, tasks, device)
    try:
        return _kept(folder).answer(_question(folder, settings, tasks), work)["rows"]
    except OSError as error:  # a run that may only be read can be rolled out, too
        print(f"note: {folder.path}: the rollout is not kept ({error.strerror})", file=sys.stderr)
        return work()["rows"]


def rollout_job(
    path: str | Path, settings: RolloutSettings, tasks: Sequence[str], device: str, after: str | None = None
) -> Job:
    """A rollout of a run, which ``after`` trains if it is not finished, for :func:`groundwork.jobs.run_jobs`."""
    return Job(
        f"{path} at {settings.horizon} points",
        partial(run_rollout, path, settings, tasks, device),
        partial(_is_kept, path, settings, tasks),
        after,
    )


def _is_kept(path: str | Path, settings: RolloutSettings, tasks: Sequence[str]) -> bool:
    folder = RunFolder(path)
    return folder.done and _kept(folder).find(_question(folder, settings, tasks)) is not None


def _kept(folder: RunFolder) -> Answers:
    return Answers(folder.path / "rollouts", RENAMED)


def _question(folder: RunFolder, settings: RolloutSettings, tasks: Sequence[str]) -> dict[str, Any]:
    how = folder.config().diffusion.drawn_as(settings)  # kept once, whoever says that steps are taken again
    levels = how.resample_levels if how.resample else None
    asked = replace(settings, resample=how.resample or None, resample_levels=levels)
    return {"settings": asked, "tasks": tasks, "checkpoint": folder.checkpoint().name}


def _roll_out(path: str | Path, settings: RolloutSettings, tasks: Sequence[str], device: str) -> dict[str, Any]:
    planner = Planner.from_run(path, device=device)
    maze = planner.statistics.maze_for(f"a rollout of {path}")
    return {"rows": rollout(planner, choose_tasks(maze, tasks), settings).rows}
