"""Many episodes at once: plan in one batch, execute side by side on MuJoCo, one row per episode.

Shapes: N episodes, H planned points, L environment steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from envs.maze_map import MazeMap, Task
from envs.point_maze import make_env
from envs.side_by_side import SideBySide
from envs.worlds import World
from groundwork.errors import UserError
from groundwork.intervals import mean_interval
from planner.execution import SETTLING_STEPS, execute
from planner.measures import LEAVING_DISTANCE_M, MEASURES, execution_measures, plan_measures
from planner.plan import Planner
from planner.policy import shifted
from planner.scores import drawn, score_tasks, scores
from planner.settings import RolloutSettings

SHARE_OF_REACH = 0.8
"""A task counts when its path is at most this share of what the horizon covers at the data's median speed."""
FEWEST_REPLANNED_POINTS = 16
EPISODES_SIDE_BY_SIDE = 256


@dataclass(frozen=True)
class Rollout:
    """Rows with the plans and paths behind them, in the same order."""

    rows: list[dict[str, Any]]
    plans: np.ndarray
    positions: np.ndarray


def choose_tasks(maze: MazeMap, chosen: Sequence[str]) -> list[Task]:
    """The tasks whose split, family or name is among ``chosen``; ``single_task`` and ``multi_task`` are D4RL's.

    Raises:
        UserError: a word that is none of them.
    """
    tasks = [*maze.tasks, *score_tasks(maze)]
    known = [{task.split, task.family, task.name} for task in tasks]
    for word in chosen:
        # The splits of every map's tasks, which the commands choose by default; some maps hold nothing out.
        if word not in ("demonstrated", "held_out") and not any(word in names for names in known):
            allowed = sorted({task.split for task in tasks}) + sorted({task.family for task in tasks})
            raise UserError(
                f"tasks = {word!r} is not among map {maze.name!r}'s: {', '.join(allowed)}, or a task's name"
            )
    found = [task for task, names in zip(tasks, known, strict=True) if names & set(chosen)]
    if not found:
        raise UserError(f"tasks = {','.join(chosen)}: map {maze.name!r} has none of them")
    return found


def task_length_m(maze: MazeMap, task: Task) -> float:
    """Shortest path of a task in meters; there-and-back must leave by a cell and return."""
    if task.start == task.goal:
        return 2 * LEAVING_DISTANCE_M
    return maze.world.cell_m * maze.distances_from(task.start)[task.goal]


def can_be_done(maze: MazeMap, task: Task, horizon: int, median_step_m: float) -> bool:
    """Whether a plan of ``horizon`` points can do the task at the data's speed: path ≤ 0.8 (H − 1) · median step.

    D4RL's protocols, whose starts and goals are drawn anew in every episode, count at any horizon, and so do
    OGBench's tasks, as its benchmark counts them: where episodes end at the goal and mazes are wide, ways are shorter
    than from cell to cell.
    """
    always = maze.world.ends_at_goal or task.split in ("single_task", "multi_task")
    return always or task_length_m(maze, task) <= SHARE_OF_REACH * (horizon - 1) * median_step_m


def rollout(planner: Planner, tasks: Sequence[Task], settings: RolloutSettings) -> Rollout:
    """Plans and executes ``settings.episodes`` episodes of each task.

    Raises:
        UserError: the planner's environment is no maze.
    """
    maze = planner.statistics.maze_for("rollout")
    seeds = range(settings.seed, settings.seed + settings.episodes)
    problems = [(drawn(maze, task, seed), seed) for task in tasks for seed in seeds]
    parts = [
        _rollout_chunk(planner, maze, problems[first : first + EPISODES_SIDE_BY_SIDE], settings, first)
        for first in range(0, len(problems), EPISODES_SIDE_BY_SIDE)
    ]
    return Rollout(
        rows=[row for part in parts for row in part.rows],
        plans=np.concatenate([part.plans for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
    )


def _rollout_chunk(
    planner: Planner, maze: MazeMap, problems: list[tuple[Task, int]], settings: RolloutSettings, first: int
) -> Rollout:
    horizon = settings.horizon or planner.config.data.horizon
    plan_steps = (horizon - 1) * planner.config.data.stride
    world, limit = maze.world, max(maze.episode_limit, plan_steps + SETTLING_STEPS)
    if world.ends_at_goal:
        limit = maze.episode_limit
    environment = make_env(maze, disable_env_checker=True)
    try:
        states = np.empty((len(problems), world.state_dim))
        goals = np.empty((len(problems), 2))
        for index, (task, seed) in enumerate(problems):
            observation, _ = environment.reset(seed=seed, options={"start_cell": task.start, "goal_cell": task.goal})
            states[index], goals[index] = observation["observation"], observation["desired_goal"]
        began = time.perf_counter()
        plans, valid_share = _plan(planner, states, goals, settings, settings.plan_seed(first))
        replan = _Replanning(planner, goals, plans, settings, first, seconds=time.perf_counter() - began)
        balls, is_over = SideBySide(environment, states), _at_goal(goals, world) if world.ends_at_goal else None
        execution = execute(balls, states, plans, planner.config.data.stride, limit, replan, is_over)
    finally:
        environment.close()
    measures = plan_measures(plans[..., :2], maze, planner.statistics.longest_step_m)
    if replan.drawn_anew:
        last = plan_measures(replan.last[..., :2], maze, planner.statistics.longest_step_m)
        measures["last_plan_valid"] = last["plan_valid"]
    returns = [task.start == task.goal for task, _ in problems]
    measures |= execution_measures(execution, goals, plan_steps, returns, world.goal_tolerance_m)
    scored = scores(execution.to_goal_m(goals), maze, [task.split for task, _ in problems])
    if settings.guide is not None:
        measures["plan_avoids"] = ~settings.guide.entered(plans[..., :2])
        measures["path_avoids"] = ~settings.guide.entered(execution.positions)
    rows = [
        {
            "task": task.name,
            "family": task.family,
            "split": task.split,
            "seed": seed,
            "horizon": horizon,
            **{name: values[index].item() for name, values in measures.items()},
            **{name: values[index] for name, values in scored.items()},
            "valid_among_n": valid_share[index].item(),
            "planning_ms": 1e3 * replan.seconds / len(problems),
        }
        for index, (task, seed) in enumerate(problems)
    ]
    return Rollout(rows, plans, execution.positions)


def _at_goal(goals: np.ndarray, world: World) -> Callable[[np.ndarray], np.ndarray]:
    return lambda states: np.linalg.norm(states[:, :2] - goals, axis=1) <= world.goal_tolerance_m


def _plan(
    planner: Planner,
    states: np.ndarray,
    goals: np.ndarray,
    settings: RolloutSettings,
    seed: int,
    last_plans: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One plan per episode (N, H, D), the best of those drawn for it, and the share (N,) of valid ones among them."""
    sampling = replace(settings, replan_warm=settings.replan_warm if last_plans is not None else 0.0)
    drawn = planner.drawn(states, goals, seed=seed, horizon=settings.horizon, sampling=sampling, last_plans=last_plans)
    return planner.chosen(drawn, settings)


@dataclass
class _Replanning:
    """Draws the rest of the plans anew every so many steps, as long as enough of it is left.

    Attributes:
        planner: draws them.
        goals: (N, 2) where they end.
        last: the plans that are followed.
        settings: how often, and how they are drawn.
        first: index of the first episode, for the seeds.
        seconds: spent on planning.
        begin: the step at which ``last`` began.
        drawn_anew: how often.
    """

    planner: Planner
    goals: np.ndarray
    last: np.ndarray
    settings: RolloutSettings
    first: int
    seconds: float
    begin: int = 0
    drawn_anew: int = 0

    def __post_init__(self) -> None:
        self.horizon = self.last.shape[1]

    def __call__(self, step: int, states: np.ndarray) -> np.ndarray | None:
        """Plans from where the balls are, if it is time."""
        if not self.settings.replan_every or not step or step % self.settings.replan_every:
            return None
        left = _points_left(self.planner, self.horizon, step)
        if left < max(FEWEST_REPLANNED_POINTS, 2 * self.planner.unit):
            return None
        began = time.perf_counter()
        rest = shifted(self.last, step - self.begin, self.planner.config.data.stride, left)
        asked, seed = replace(self.settings, horizon=left), self.settings.plan_seed(self.first, step)
        self.last, _ = _plan(self.planner, states, self.goals, asked, seed, rest)
        self.begin, self.drawn_anew = step, self.drawn_anew + 1
        self.seconds += time.perf_counter() - began
        return self.last


def _points_left(planner: Planner, horizon: int, step: int) -> int:
    """Points of a plan of ``horizon`` that lie ahead after ``step`` steps, rounded up to what the levels can halve."""
    return planner.unit * math.ceil((horizon - step / planner.config.data.stride) / planner.unit)


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per split, mean, median and 95 % interval over episodes of each measure that the rows hold."""
    splits = sorted({row["split"] for row in rows})
    names = [name for name in MEASURES if any(name in row for row in rows)]
    return {
        split: {
            name: mean_interval([row[name] for row in rows if row["split"] == split], MEASURES[name].within)
            for name in names
        }
        for split in splits
    }
