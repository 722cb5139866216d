"""Scores on D4RL's mazes: their tasks, and both scales, D4RL's own and this environment's.

A return is the number of steps that end within 0.5 m of the goal, over the map's episode limit. Both scales are
linear in it. D4RL's ends, 0 and 100, are its own reference returns; the other scale's are those of a random policy
and of the expert on this environment, see :mod:`envs.references`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from envs.maze_map import MazeMap, Task
from envs.references import SCORE_TOLERANCE_M, SINGLE_TASK_GOALS, Protocol, reference_returns, score_pairs

D4RL_REFERENCE = {"umaze": (23.85, 161.86), "medium": (13.13, 277.39), "large": (6.7, 273.99)}


def score_tasks(maze: MazeMap) -> list[Task]:
    """The protocols that the map has, as tasks whose cells :func:`drawn` replaces for each episode."""
    anywhere = maze.free_cells[0]
    return [
        Task(protocol, "score", anywhere, SINGLE_TASK_GOALS.get(maze.name, anywhere), protocol)
        for protocol in get_args(Protocol)
        if protocol == "multi_task" or maze.name in SINGLE_TASK_GOALS
    ]


def drawn(maze: MazeMap, task: Task, seed: int) -> Task:
    """The task with start and goal drawn from ``seed`` where it is a protocol; any other task as it is."""
    if task.family != "score":
        return task
    pairs = score_pairs(maze, task.split)  # type: ignore[arg-type]
    start, goal = pairs[np.random.default_rng(seed).integers(len(pairs))]
    return replace(task, start=start, goal=goal)


def scores(distance_NL: np.ndarray, maze: MazeMap, splits: Sequence[str]) -> dict[str, list[float | None]]:
    """What episodes score on both scales.

    Args:
        distance_NL: metres to the goal after each step.
        maze: the map; on maps without D4RL's references ``score`` is the share of all steps, in %.
        splits: of each episode's task.

    Returns:
        Lists of N: ``score`` with D4RL's references, and ``score_expert`` with a random policy as 0 and the expert
        as 100 (``None`` for tasks for which that was not measured). Both are ``None`` where an episode
        ends at its goal.
    """
    if maze.world.ends_at_goal:
        return dict.fromkeys(("score", "score_expert"), [None] * len(splits))
    counted = maze.episode_limit if maze.name in D4RL_REFERENCE else distance_NL.shape[1]
    returns = (distance_NL[:, :counted] <= SCORE_TOLERANCE_M).sum(1)
    d4rl = D4RL_REFERENCE.get(maze.name, (0.0, float(counted)))
    ours = [reference_returns(maze, split) for split in splits]
    return {
        "score": [_scaled(value, d4rl) for value in returns.tolist()],
        "score_expert": [_scaled(value, ends) for value, ends in zip(returns.tolist(), ours, strict=True)],
    }


def _scaled(value: float, ends: tuple[float, float] | None) -> float | None:
    return None if ends is None else 100 * (value - ends[0]) / (ends[1] - ends[0])
