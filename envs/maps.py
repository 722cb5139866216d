"""Where mazes come from: shipped ones by their names, text files, pictures, and the specs of environments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from envs import shipped
from envs.maze_map import Cell, MazeMap, Task, way_name
from envs.worlds import OGBENCH, POINT_MAZE, World
from groundwork.errors import UserError

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


def map_names() -> list[str]:
    """Names of the shipped maps."""
    return list(shipped.PICTURES)


def get_map(name_or_path: str) -> MazeMap:
    """A shipped map by its name, or the map in a text file.

    Raises:
        UserError: no such name or file, or the file is no closed, rectangular, connected map.
    """
    if name_or_path in shipped.PICTURES:
        return _shipped_map(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(map_names())
        raise UserError(f"map: no map or file {name_or_path!r}; allowed: {known}, or a file of # and . cells")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"map: {name_or_path} is no text file; allowed: lines of # and . cells") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return map_from_rows(lines, name=re.sub(r"[^-\w]", "_", path.stem))


def world_of(name: str) -> World:
    """The world of the map of that name; maps of users' own are PointMaze's."""
    return OGBENCH if name in shipped.OGBENCH_TASKS else POINT_MAZE


def map_from_rows(rows: Iterable[str], name: str = "custom") -> MazeMap:
    """A map of PointMaze's from its picture; a picture equal to a shipped one gives the shipped map with its tasks.

    Other pictures get the task family "any": demonstrated, between a few cells that lie far apart.
    """
    maze = MazeMap(name, tuple(rows), (), 1)
    for known in map_names():
        if (maze.rows, maze.world) == (_shipped_map(known).rows, _shipped_map(known).world):
            return _shipped_map(known)
    corners = _far_apart(maze, 3)
    pairs = [(start, goal) for start in corners for goal in corners if start != goal]
    tasks = tuple(Task(way_name(*pair), "any", *pair, "demonstrated") for pair in pairs)
    longest = max(maze.distances_from(start)[goal] for start, goal in pairs)
    # A metre takes the experts about 40 steps; the shipped maps allow about twice that.
    return MazeMap(name, maze.rows, tasks, max(300, 80 * longest))


def from_env_spec(spec: EnvSpec) -> MazeMap | None:
    """The maze of an environment: ours, or PointMaze of Gymnasium-Robotics or OGBench; ``None`` for others.

    Gymnasium-Robotics marks free cells with 0, ``r``, ``g`` or ``c``. Its AntMaze has cells of four metres
    and is no PointMaze.
    """
    if spec.namespace == "maze" and "rows" in spec.kwargs:
        return map_from_rows(spec.kwargs["rows"])
    if "ogbench" in str(spec.entry_point) and spec.kwargs.get("loco_env_type", "point") == "point":
        name = f"{OGBENCH.name}-{spec.kwargs.get('maze_type')}"
        return _shipped_map(name) if name in shipped.OGBENCH_TASKS else None
    if "point_maze" in str(spec.entry_point) and "maze_map" in spec.kwargs:
        rows = ("".join("#" if cell == 1 else "." for cell in row) for row in spec.kwargs["maze_map"])
        return map_from_rows(rows, name=spec.name)
    return None


@cache
def _shipped_map(name: str) -> MazeMap:
    tasks = tuple(
        Task(f"{family}-{way_name(start, goal)}", family, start, goal, split)
        for family, split, start, goal in shipped.tasks_of(name)
    )
    return MazeMap(name, tuple(shipped.PICTURES[name]), tasks, shipped.EPISODE_LIMITS[name], world_of(name))


def _far_apart(maze: MazeMap, number: int) -> list[Cell]:
    """Up to ``number`` cells, each as far as possible from those before it."""
    chosen = [max(maze.distances_from(maze.free_cells[0]).items(), key=lambda item: item[1])[0]]
    while len(chosen) < min(number, len(maze.free_cells)):
        tables = [maze.distances_from(cell) for cell in chosen]
        chosen.append(max(maze.free_cells, key=lambda cell: min(table[cell] for table in tables)))
    return chosen
