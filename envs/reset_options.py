"""What an environment's ``reset`` takes: start and goal, by cell or by exact position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.geometry import require_free
from envs.maze_map import Cell, MazeMap
from groundwork.errors import UserError

RESET_OPTIONS = ("start_cell", "reset_cell", "goal_cell", "start_xy", "goal_xy")
EXCLUSIVE_OPTIONS = (
    ("start_cell", "reset_cell"),
    ("start_cell", "start_xy"),
    ("reset_cell", "start_xy"),
    ("goal_cell", "goal_xy"),
)


@dataclass(frozen=True)
class Ends:
    """Start and goal as given: each by cell, by exact position (2,) in metres, or not at all (``None``)."""

    start_cell: Cell | None
    goal_cell: Cell | None
    start_xy: np.ndarray | None
    goal_xy: np.ndarray | None


def read_options(maze: MazeMap, options: Mapping[str, Any] | None) -> Ends:
    """Reads and checks the options of a reset; the library's ``reset_cell`` is another name of ``start_cell``.

    Raises:
        UserError: an unknown option, a cell or position that is not free, or a cell beside a position.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    unknown = [key for key in given if key not in RESET_OPTIONS]
    if unknown:
        raise UserError(f"reset option {unknown[0]!r}: unknown; allowed: {', '.join(RESET_OPTIONS)}")
    for one, other in EXCLUSIVE_OPTIONS:
        if one in given and other in given:
            raise UserError(f"reset options {one!r} and {other!r}: give one of them")
    cells = {
        key.replace("reset", "start"): maze.require_free(given[key], key)
        for key in ("start_cell", "reset_cell", "goal_cell")
        if key in given
    }
    positions = {key: free_position(maze, given[key], key) for key in ("start_xy", "goal_xy") if key in given}
    return Ends(cells.get("start_cell"), cells.get("goal_cell"), positions.get("start_xy"), positions.get("goal_xy"))


def free_position(maze: MazeMap, xy: Any, name: str) -> np.ndarray:
    """The position (2,) in metres as floats.

    Raises:
        UserError: it is none, or lies in no free cell; ``name`` says what it was to be.
    """
    try:
        position = np.array(xy, dtype=float)
    except (TypeError, ValueError):
        position = np.array(np.nan)
    if position.shape != (2,):
        raise UserError(f"{name}: {xy!r} is no position; allowed: two numbers x, y in metres")
    require_free(maze, position, name)
    return position
