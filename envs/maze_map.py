"""One maze as an ASCII picture with named tasks: which cells are free, where they lie, how to walk them.

``#`` is wall, ``.`` or a blank is free. How large a cell is and where the origin lies is the world's, see
:mod:`envs.worlds`: in PointMaze's a cell is one metre wide and the origin lies in the middle of the map, x to the right
and y upwards, as in Gymnasium-Robotics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from envs.map_picture import NEIGHBOUR_OFFSETS, check_rows
from envs.worlds import POINT_MAZE, WORLDS, World
from groundwork.errors import UserError

Cell = tuple[int, int]
"""(row, column), counted from 0 at the top left."""

Split = Literal["demonstrated", "held_out", "single_task", "multi_task"]


@dataclass(frozen=True)
class Task:
    """One thing to plan: from start cell to goal cell.

    Its split says whether demonstrations of it exist, or which of D4RL's protocols draws its cells.
    """

    name: str
    family: str
    start: Cell
    goal: Cell
    split: Split


def way_name(start: Cell, goal: Cell) -> str:
    """What tells a way from others in a task's name."""
    return f"{start[0]}.{start[1]}-{goal[0]}.{goal[1]}"


@dataclass(frozen=True)
class MazeMap:
    """A closed, connected maze.

    Attributes:
        name: what the maze is called; part of its environment's id when the maze is a shipped one.
        rows: one string per row, top first; ``#`` is wall, ``.`` is free.
        tasks: what to plan in it.
        episode_limit: environment steps after which an episode ends.
        world: what moves in it, and how large it is.

    Raises:
        UserError: the rows are no closed, rectangular, connected map, or a task names a wall.
    """

    name: str
    rows: tuple[str, ...]
    tasks: tuple[Task, ...]
    episode_limit: int
    world: World = POINT_MAZE

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(row.replace(" ", ".") for row in self.rows))
        check_rows(self.name, self.rows)
        for task in self.tasks:
            self.require_free(task.start, f"start of task {task.name}")
            self.require_free(task.goal, f"goal of task {task.name}")

    @cached_property
    def walls(self) -> np.ndarray:
        """Which cells are wall, bool (rows, columns), read-only."""
        walls = np.array([[character == "#" for character in row] for row in self.rows])
        walls.setflags(write=False)
        return walls

    @cached_property
    def touching_walls(self) -> np.ndarray:
        """Wall cells with a free cell beside or diagonally beside them, (W, 2)."""
        rows, columns = self.walls.shape
        free = np.pad(~self.walls, 1)
        touched = np.zeros_like(self.walls)
        for down in range(3):
            for right in range(3):
                touched |= free[down : down + rows, right : right + columns]
        return np.argwhere(self.walls & touched)

    @cached_property
    def free_cells(self) -> list[Cell]:
        """All free cells, row by row."""
        return [(int(row), int(column)) for row, column in np.argwhere(~self.walls)]

    def is_free(self, cell: Sequence[int]) -> bool:
        """Whether the cell lies in the map and is no wall."""
        row, column = cell
        return 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0]) and self.rows[row][column] == "."

    def require_free(self, cell: Sequence[int], what: str) -> Cell:
        """Returns the cell as a tuple of ints; a :class:`UserError` says ``what`` it was to be."""
        if len(cell) != 2 or any(int(index) != index for index in cell):
            raise UserError(f"{what}: {cell!r} is no cell; allowed: two whole numbers (row, column)")
        row, column = int(cell[0]), int(cell[1])
        if not self.is_free((row, column)):
            size = f"{len(self.rows)} rows and {len(self.rows[0])} columns"
            raise UserError(f"{what}: cell ({row}, {column}) is no free cell of map {self.name} ({size})")
        return row, column

    def free_neighbours(self, cell: Cell) -> list[Cell]:
        """The free cells to the right, below, to the left and above, in this order."""
        row, column = cell
        around = ((row + down, column + right) for down, right in NEIGHBOUR_OFFSETS)
        return [neighbour for neighbour in around if self.is_free(neighbour)]

    def is_crossing(self, cell: Cell) -> bool:
        """Whether three or more ways meet in this cell."""
        return len(self.free_neighbours(cell)) >= 3

    @cached_property
    def corner_and_steps_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the outer corner of cell (0, 0) lies, and how far x goes per column and y per row; each (2,)."""
        cell_m, corner_m = self.world.cell_m, self.world.corner_m
        if corner_m is None:
            size_m = cell_m * np.array([len(self.rows[0]), len(self.rows)])
            return size_m / 2 * [-1, 1], cell_m * np.array([1.0, -1.0])
        return np.array(corner_m), cell_m * np.array([1.0, 1.0])

    @cached_property
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest x and y of the map, each (2,)."""
        corner, steps = self.corner_and_steps_m
        opposite = corner + steps * [len(self.rows[0]), len(self.rows)]
        return np.minimum(corner, opposite), np.maximum(corner, opposite)

    def cell_to_xy(self, cells: Any) -> np.ndarray:
        """Centres of cells in metres: (..., 2) rows and columns to (..., 2) x and y."""
        corner, steps = self.corner_and_steps_m
        return corner + steps * (np.asarray(cells, dtype=float)[..., ::-1] + 0.5)

    def xy_to_place(self, xy: Any) -> np.ndarray:
        """Rows and columns of points, with their fractions: (..., 2) metres to (..., 2), also outside the map."""
        corner, steps = self.corner_and_steps_m
        return ((np.asarray(xy, dtype=float) - corner) / steps)[..., ::-1]

    def xy_to_cell(self, xy: Any) -> np.ndarray:
        """Cells that hold the points: (..., 2) metres to (..., 2) int, also outside the map."""
        return np.floor(self.xy_to_place(xy)).astype(int)

    def shortest_path(
        self,
        start: Cell,
        goal: Cell,
        order: Literal["breadth", "depth"] = "breadth",
        rng: np.random.Generator | None = None,
    ) -> list[Cell]:
        """Cells from start to goal, both included.

        Args:
            start: a free cell.
            goal: a free cell.
            order: ``breadth`` finds a shortest path; ``depth`` the first one that a depth-first search meets,
                which in a maze with loops is often a detour (as in D4RL's pointmaze sets).
            rng: shuffles the neighbours, so that ties (breadth) and detours (depth) differ from call to call;
                without it the answer is always the same.
        """
        start = self.require_free(start, "start cell")
        goal = self.require_free(goal, "goal cell")
        came_from: dict[Cell, Cell | None] = {}
        frontier: deque[tuple[Cell, Cell | None]] = deque([(start, None)])
        while goal not in came_from:
            cell, previous = frontier.popleft() if order == "breadth" else frontier.pop()
            if cell in came_from:
                continue
            came_from[cell] = previous
            neighbours = self.free_neighbours(cell)
            if rng is not None:
                neighbours = [neighbours[index] for index in rng.permutation(len(neighbours))]
            frontier.extend((neighbour, cell) for neighbour in neighbours if neighbour not in came_from)
        path: list[Cell] = []
        step: Cell | None = goal
        while step is not None:
            path.append(step)
            step = came_from[step]
        return path[::-1]

    def distances_from(self, start: Cell) -> dict[Cell, int]:
        """Steps of the shortest path from the start cell to every free cell."""
        distances = {start: 0}
        frontier = deque([start])
        while frontier:
            cell = frontier.popleft()
            for neighbour in self.free_neighbours(cell):
                if neighbour not in distances:
                    distances[neighbour] = distances[cell] + 1
                    frontier.append(neighbour)
        return distances

    def to_gymnasium(self) -> list[list[int]]:
        """The map in Gymnasium-Robotics' form: 1 is wall, 0 is free."""
        return self.walls.astype(int).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, fit for JSON; :meth:`from_dict` is its inverse."""
        tasks = [asdict(task) | {"start": list(task.start), "goal": list(task.goal)} for task in self.tasks]
        return {
            "name": self.name,
            "rows": list(self.rows),
            "tasks": tasks,
            "episode_limit": self.episode_limit,
            "world": self.world.name,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> MazeMap:
        """The map that :meth:`to_dict` described, also before it told the world."""
        tasks = tuple(
            Task(task["name"], task["family"], tuple(task["start"]), tuple(task["goal"]), task["split"])
            for task in plain["tasks"]
        )
        return cls(
            plain["name"],
            tuple(plain["rows"]),
            tasks,
            int(plain["episode_limit"]),
            WORLDS[plain.get("world", POINT_MAZE.name)],
        )
