"""Runs by what a command calls them: a folder, or the name of a trained planner that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundwork.errors import UserError
from planner.config import Config, what_trains
from planner.training.run import RunFolder

SHIPPED = Path(__file__).resolve().parent.parent / "weights"


def shipped_names() -> list[str]:
    """The names of the trained planners that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.yaml"))


def find_run(path: str | Path) -> RunFolder:
    """The run of a folder, or the shipped planner of that name where no folder is so called.

    Raises:
        UserError: neither.
    """
    if Path(path).is_dir():
        return RunFolder(path)
    if str(path) in shipped_names():
        return RunFolder(SHIPPED / path)
    shipped = ", ".join(shipped_names())
    raise UserError(f"{path} is no run folder and no shipped planner; shipped are {shipped or 'none'}")


def find_runs(paths: Sequence[str | Path]) -> list[RunFolder]:
    """The runs of several folders, or shipped planners, each named once.

    Raises:
        UserError: one is missing or named twice.
    """
    folders = [find_run(path) for path in paths]
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice: its episodes would count as those of two seeds")
    return folders


def find_seeds(paths: Sequence[str | Path]) -> list[RunFolder]:
    """The runs of several folders, or shipped planners, each of them a training of its own.

    Raises:
        UserError: one is missing or named twice, or two are of the same settings and seed.
    """
    folders = find_runs(paths)
    first: dict[Config, Path] = {}
    for folder in folders:
        twin = first.setdefault(what_trains(folder.config()), folder.path)
        if twin != folder.path:
            raise UserError(
                f"{twin} and {folder.path} are trainings of the same settings and seed: their episodes would count as "
                "those of two seeds"
            )
    return folders
