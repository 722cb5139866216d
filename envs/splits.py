"""Which tasks of a maze demonstrations cover, and which are held out: the splits of the recipe "stitch"."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from envs.maze_map import Cell, MazeMap, Task, way_name
from envs.worlds import OGBENCH
from groundwork.errors import UserError

STITCH_CELLS = 4
"""Length of a demonstration of the recipe "stitch", in cells."""
STITCH_TASKS = 8


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
        Task(f"four-cells-{way_name(start, goal)}", "four-cells", start, goal, "demonstrated") for start, goal in spread
    ]
    far = [task for task in maze.tasks if maze.distances_from(task.start)[task.goal] > STITCH_CELLS]
    if maze.world != OGBENCH:
        far = [
            Task(f"across-{way_name(task.start, task.goal)}", "across", task.start, task.goal, "held_out")
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
