"""Many episodes at once: plan in one batch, execute side by side on MuJoCo, one row per episode.

Shapes: N episodes, H planned points, L environment steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from envs.maps import MazeMap, Task
from envs.point_maze import make_env
from envs.side_by_side import SideBySide
from groundwork.errors import UserError
from groundwork.intervals import mean_interval
from planner.guidance import GUIDE_SCALE, AvoidRegion
from planner.measures import plan_measures
from planner.plan import Planner
from planner.policy import control, reference, shifted
from planner.sampler import SamplerKind
from planner.scores import drawn, score_tasks, scores

GOAL_TOLERANCE_M = 0.45
LEAVING_DISTANCE_M = 1.0
SETTLING_STEPS = 50
FEWEST_REPLANNED_POINTS = 16
EPISODES_SIDE_BY_SIDE = 256
MEASURES = (
    "success",
    "plan_valid",
    "longest_step",
    "end_gap",
    "steps_to_goal",
    "tracking_error",
    "wall_contact",
)
OPTIONAL_MEASURES = ("valid_among_n", "plan_avoids", "path_avoids", "score", "score_expert")


@dataclass(frozen=True)
class RolloutSettings:
    """How plans are made and executed.

    Attributes:
        episodes: per task.
        seed: of starts, goals and plans.
        horizon: planned points; ``None``: the training's.
        replan_every: environment steps after which the rest is planned anew, with the points that are left; 0:
            plan once.
        replan_warm: replanning begins from the last plan, shifted and noised again to this share of the noise
            levels, in as much smaller a share of the steps; 0: from pure noise.
        sampler, sampling_steps: ``None``: the run's.
        best_of: plans drawn for each one that is executed: the shortest valid one.
        avoid: x, y and radius in metres of a region to stay out of; rows then say whether plan and path did.
        avoid_scale: of its gradient steps.
    """

    episodes: int = 10
    seed: int = 0
    horizon: int | None = None
    replan_every: int = 0
    replan_warm: float = 0.0
    sampler: SamplerKind | None = None
    sampling_steps: int | None = None
    best_of: int = 1
    avoid: tuple[float, float, float] | None = None
    avoid_scale: float = GUIDE_SCALE

    def __post_init__(self) -> None:
        """Checks the seed, which each batch of plans multiplies.

        Raises:
            UserError: it is negative or too large.
        """
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed = {self.seed} must be from 0 to {2**31 - 1}")

    @property
    def guide(self) -> AvoidRegion | None:
        """The cost that ``avoid`` means."""
        return AvoidRegion(*self.avoid) if self.avoid else None


@dataclass(frozen=True)
class Execution:
    """What happened, per episode.

    Attributes:
        positions: (N, L + 1, 2) metres.
        references: (N, L, 2) metres, what the controller followed.
        contact: (N, L) whether the ball touched a wall.
    """

    positions: np.ndarray
    references: np.ndarray
    contact: np.ndarray


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


def rollout(planner: Planner, tasks: Sequence[Task], settings: RolloutSettings) -> Rollout:
    """Plans and executes ``settings.episodes`` episodes of each task.

    Raises:
        UserError: the planner's environment is no maze, or settings out of range.
    """
    maze = planner.statistics.maze
    if maze is None:
        raise UserError(f"rollout needs a maze; {planner.statistics.environment} is none")
    if settings.episodes < 1 or settings.replan_every < 0:
        raise UserError(f"episodes = {settings.episodes} must be at least 1 and replan_every at least 0")
    if settings.best_of < 1:
        raise UserError(f"best_of = {settings.best_of} must be at least 1")
    if settings.seed < 0:
        raise UserError(f"seed = {settings.seed} must be at least 0")
    if not 0 <= settings.replan_warm <= 1:
        raise UserError(f"replan_warm = {settings.replan_warm} must be from 0 to 1")
    if settings.replan_warm and not settings.replan_every:
        raise UserError(f"replan_warm = {settings.replan_warm} needs replan_every")
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
    limit = max(maze.episode_limit, plan_steps + SETTLING_STEPS)
    environment = make_env(maze, disable_env_checker=True)
    try:
        states = np.empty((len(problems), 4))
        goals = np.empty((len(problems), 2))
        for index, (task, seed) in enumerate(problems):
            observation, _ = environment.reset(seed=seed, options={"start_cell": task.start, "goal_cell": task.goal})
            states[index], goals[index] = observation["observation"], observation["desired_goal"]
        began = time.perf_counter()
        plans, valid_share = _plan(planner, states, goals, settings, settings.seed * 1_000_003 + first)
        planning_ms = 1e3 * (time.perf_counter() - began) / len(problems)
        balls = SideBySide(environment, states)
        execution = _execute(planner, balls, states, goals, plans, limit, settings, first)
    finally:
        environment.close()
    measures = plan_measures(plans[..., :2], maze, planner.statistics.longest_step_m)
    measures |= _executed_measures(execution, goals, plan_steps, [task.start == task.goal for task, _ in problems])
    distance = np.linalg.norm(execution.positions[:, 1:] - goals[:, None], axis=-1)
    scored = scores(distance, maze, [task.split for task, _ in problems])
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
            "planning_ms": planning_ms,
        }
        for index, (task, seed) in enumerate(problems)
    ]
    return Rollout(rows, plans, execution.positions)


def _plan(
    planner: Planner,
    states: np.ndarray,
    goals: np.ndarray,
    settings: RolloutSettings,
    seed: int,
    last_plans: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One plan per episode (N, H, D), the best of those drawn for it, and the share (N,) of valid ones among them."""
    candidates = planner.plan(
        states,
        goals,
        num_plans=settings.best_of,
        seed=seed,
        horizon=settings.horizon,
        sampler=settings.sampler,
        sampling_steps=settings.sampling_steps,
        last_plans=last_plans,
        warm_level=settings.replan_warm if last_plans is not None else 0.0,
        guide=settings.guide,
        guide_scale=settings.avoid_scale,
    )
    return planner.best(candidates, settings.guide)


def _execute(
    planner: Planner,
    balls: SideBySide,
    states: np.ndarray,
    goals: np.ndarray,
    plans: np.ndarray,
    limit: int,
    settings: RolloutSettings,
    first: int,
) -> Execution:
    """Follows the plans for ``limit`` steps, all episodes in lockstep."""
    num_episodes = len(states)
    positions = np.empty((num_episodes, limit + 1, 2))
    references = np.empty((num_episodes, limit, 2))
    contact = np.zeros((num_episodes, limit), dtype=bool)
    positions[:, 0] = states[:, :2]
    followed, begin, horizon = reference(plans, planner.config.data.stride), 0, plans.shape[1]
    for step in range(limit):
        if settings.replan_every and step and step % settings.replan_every == 0:
            left = _points_left(planner, horizon, step)
            if left >= max(FEWEST_REPLANNED_POINTS, 2 * _unit(planner)):
                anew = replace(settings, horizon=left)
                seed = settings.seed * 1_000_003 + first + 7919 * step
                last = shifted(plans, step - begin, planner.config.data.stride, left)
                plans, _ = _plan(planner, states, goals, anew, seed, last)
                followed, begin = reference(plans, planner.config.data.stride), step
        # The action of this step should lead to the reference's next point.
        target = followed[:, min(step + 1 - begin, followed.shape[1] - 1)]
        states, contact[:, step] = balls.step(control(states, target))
        positions[:, step + 1] = states[:, :2]
        references[:, step] = target[:, :2]
    return Execution(positions, references, contact)


def _points_left(planner: Planner, horizon: int, step: int) -> int:
    """Points of a plan of ``horizon`` that lie ahead after ``step`` steps, rounded up to what the levels can halve."""
    unit = _unit(planner)
    return unit * math.ceil((horizon - step / planner.config.data.stride) / unit)


def _unit(planner: Planner) -> int:
    """What the length of a plan must be a multiple of; twice that is the shortest plan."""
    return 2 ** (len(planner.config.model.dim_mults) - 1) * planner.config.model.num_packs


def _executed_measures(
    execution: Execution, goals: np.ndarray, plan_steps: int, returns: list[bool]
) -> dict[str, np.ndarray]:
    """Arrays (N,) of what the execution was worth; see the docs' metric glossary."""
    limit = execution.contact.shape[1]
    distance = np.linalg.norm(execution.positions[:, 1:] - goals[:, None], axis=-1)
    away = np.linalg.norm(execution.positions[:, 1:] - execution.positions[:, :1], axis=-1) >= LEAVING_DISTANCE_M
    left = np.maximum.accumulate(away, axis=1) | ~np.asarray(returns)[:, None]
    at_goal = (distance <= GOAL_TOLERANCE_M) & left
    success = at_goal.any(1)
    off = np.linalg.norm(execution.positions[:, 1:] - execution.references, axis=-1)
    return {
        "success": success,
        "steps_to_goal": np.where(success, at_goal.argmax(1) + 1, limit),
        "wall_contact": execution.contact.mean(1),
        "tracking_error": np.sqrt(np.square(off[:, :plan_steps]).mean(1)),
    }


def execute_one(planner: Planner, plan: np.ndarray) -> np.ndarray:
    """Executes one plan (H, D) on MuJoCo; returns the path (L + 1, 2) in metres.

    Raises:
        UserError: the planner's environment is no maze, or the plan starts in a wall.
    """
    maze = planner.statistics.maze
    if maze is None:
        raise UserError(f"executing a plan needs a maze; {planner.statistics.environment} is none")
    limit = (len(plan) - 1) * planner.config.data.stride + SETTLING_STEPS
    environment = make_env(maze)
    try:
        options = {"start_xy": plan[0, :2], "goal_xy": plan[-1, :2]}
        observation, _ = environment.reset(seed=0, options=options)
        states, goals = observation["observation"][None].copy(), plan[None, -1, :2]
        states[0, 2:] = plan[0, 2 : states.shape[1]]  # the ball starts as fast as the plan does
        balls = SideBySide(environment, states)
        return _execute(planner, balls, states, goals, plan[None], limit, RolloutSettings(), 0).positions[0]
    finally:
        environment.close()


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per split, each measure's mean, median and 95 % interval over episodes."""
    names = MEASURES + tuple(name for name in OPTIONAL_MEASURES if name in rows[0])
    splits = sorted({row["split"] for row in rows})
    return {
        split: {name: mean_interval([row[name] for row in rows if row["split"] == split]) for name in names}
        for split in splits
    }
