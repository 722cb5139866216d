"""Mazes as ASCII pictures with named tasks: which cells are free, where they lie, how to walk them.

``#`` is wall, ``.`` or a blank is free. How large a cell is and where the origin lies is the world's, see
:mod:`envs.worlds`: in PointMaze's a cell is one metre wide and the origin lies in the middle of the map, x to the right
and y upwards, as in Gymnasium-Robotics.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs import shipped
from envs.map_picture import NEIGHBOUR_OFFSETS, check_rows
from envs.worlds import OGBENCH, POINT_MAZE, WORLDS, World
from groundwork.errors import UserError

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

Cell = tuple[int, int]
"""(row, column), counted from 0 at the top left."""

STITCH_CELLS = 4
"""Length of a demonstration of the recipe "stitch", in cells."""
STITCH_TASKS = 8

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
    tasks = tuple(Task(_between(*pair), "any", *pair, "demonstrated") for pair in pairs)
    longest = max(maze.distances_from(start)[goal] for start, goal in pairs)
    # A metre takes the experts about 40 steps; the shipped maps allow about twice that.
    return MazeMap(name, maze.rows, tasks, max(300, 80 * longest))


def pairs_apart(maze: MazeMap, steps: int) -> list[tuple[Cell, Cell]]:
    """All (start, goal) whose shortest path has this many steps, start by start."""
    return [
        (start, goal)
        for start in maze.free_cells
        for goal, distance in maze.distances_from(start).items()
        if distance == steps
    ]


def stitched(maze: MazeMap) -> MazeMap:
    """The maze with the splits of data by the recipe "stitch".

    Demonstrated are pairs exactly four cells apart, up to eight of them spread over the maze; held out are the maze's
    own tasks that are farther. OGBench's keep their names.

    Raises:
        UserError: no cells are that far apart.
    """
    pairs = pairs_apart(maze, STITCH_CELLS)
    if not pairs:
        raise UserError(
            f"recipe: stitch needs cells {STITCH_CELLS} apart, {maze.name} has none; allowed: tasks, navigate"
        )
    spread = [pairs[index] for index in np.unique(np.linspace(0, len(pairs) - 1, STITCH_TASKS).round().astype(int))]
    near = [
        Task(f"four-cells-{_between(start, goal)}", "four-cells", start, goal, "demonstrated") for start, goal in spread
    ]
    far = [task for task in maze.tasks if maze.distances_from(task.start)[task.goal] > STITCH_CELLS]
    if maze.world != OGBENCH:
        far = [
            Task(f"across-{_between(task.start, task.goal)}", "across", task.start, task.goal, "held_out")
            for task in far
        ]
    return replace(maze, tasks=(*near, *far))


def demonstrated_by(maze: MazeMap, ways: Collection[tuple[Cell, Cell]]) -> MazeMap:
    """The maze with the splits that its demonstrations mean, told by them alone.

    Ways that are all four cells long are the recipe "stitch"'s, see :func:`stitched`. Where they stand beside the
    maze's demonstrated tasks, both count as demonstrated, and held out are the maze's held-out tasks that are farther.
    Ways of any other kind leave the maze's own splits.

    Args:
        maze: the maze.
        ways: (start, goal) of every demonstration.
    """
    own = {(task.start, task.goal) for task in maze.tasks if task.split == "demonstrated"}
    short = {way for way in ways if maze.is_free(way[0]) and maze.distances_from(way[0]).get(way[1]) == STITCH_CELLS}
    if short <= own or not own | short >= set(ways):
        return maze
    four_cells = stitched(maze)
    if short >= set(ways):
        return four_cells
    far = {(task.start, task.goal) for task in four_cells.tasks if task.split == "held_out"}
    kept = [task for task in maze.tasks if task.split == "demonstrated" or (task.start, task.goal) in far]
    return replace(maze, tasks=(*kept, *(task for task in four_cells.tasks if task.split == "demonstrated")))


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
        Task(f"{family}-{_between(start, goal)}", family, start, goal, split)
        for family, split, start, goal in shipped.tasks_of(name)
    )
    return MazeMap(name, tuple(shipped.PICTURES[name]), tasks, shipped.EPISODE_LIMITS[name], world_of(name))


def _between(start: Cell, goal: Cell) -> str:
    return f"{start[0]}.{start[1]}-{goal[0]}.{goal[1]}"


def _far_apart(maze: MazeMap, number: int) -> list[Cell]:
    """Up to ``number`` cells, each as far as possible from those before it."""
    chosen = [max(maze.distances_from(maze.free_cells[0]).items(), key=lambda item: item[1])[0]]
    while len(chosen) < min(number, len(maze.free_cells)):
        tables = [maze.distances_from(cell) for cell in chosen]
        chosen.append(max(maze.free_cells, key=lambda cell: min(table[cell] for table in tables)))
    return chosen
