"""Which tasks of a comparison count: those that can be done within the planned horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.maze_map import MazeMap
from planner.rollout import SHARE_OF_REACH, can_be_done, choose_tasks
from planner.training.run import RunFolder

Rows = Sequence[dict[str, Any]]


def mark_countable(rows: Rows, multiple: int, folders: Sequence[RunFolder], tasks: Sequence[str]) -> None:
    """Notes in each row whether its task can be done within the planned horizon, at the data's speed, in every run.

    Args:
        rows: episodes at one multiple of the training horizon.
        multiple: that one.
        folders: all runs of the comparison, on one maze.
        tasks: splits, families or names that were asked for.
    """
    known = [(folder.statistics(), folder.config().data.horizon) for folder in folders]
    maze = known[0][0].maze_for("compare")
    fits = {
        task.name: all(can_be_done(maze, task, multiple * horizon, data.median_step_m) for data, horizon in known)
        for task in choose_tasks(maze, tasks)
    }
    for row in rows:
        row |= {"multiple": multiple, "countable": fits[row["task"]]}


def counting_rule(rows: Sequence[Mapping[str, Any]], maze: MazeMap) -> str:
    """Which tasks of a maze count at which horizon, in whole sentences."""
    if maze.world.ends_at_goal:
        return "Every task counts at every horizon, as in the benchmark that the maze is of."
    text = (
        "A task counts if it can be done within the horizon at the data's median speed: its shortest path is at most "
        f"{100 * SHARE_OF_REACH:.0f} % of what a plan of that length covers."
    )
    for multiple in sorted({row["multiple"] for row in rows}):
        here = [row for row in rows if row["multiple"] == multiple]
        left_out = sorted({row["family"] for row in here} - {row["family"] for row in here if row["countable"]})
        if left_out:
            text += f" Too far at {multiple}× the training horizon: {', '.join(left_out)}."
    return text


def counted(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[str, list[Any]]:
    """A column's name and the rows that count in it; where none does, all of them, and the name says so."""
    countable = [row for row in rows if row.get("countable", True)]  # earlier rows do not say
    return (name, countable) if countable else (f"{name} (too short)", list(rows))
