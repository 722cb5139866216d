"""From a trained planner to what compositionality its norm left: one row per episode, all plans in batches.

Shapes: N problems, M plans of one problem, H planned points, X the two coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.maze_map import MazeMap, Task
from groundwork.errors import UserError
from norm_study.stitching.novelty import NearestWindows, distinct_routes
from norm_study.stitching.settings import StitchSettings
from norm_study.stitching.summary import Rows
from planner.comparison.figures import example_tasks
from planner.data import load_data
from planner.plan import Planner
from planner.rollout import RolloutSettings, can_be_done, choose_tasks, rollout
from planner.training.run import RunFolder

PIECE_POINTS = 16


def stitch_rows(run: str | Path, settings: StitchSettings, device: str = "auto", step: int | None = None) -> Rows:
    """Measures one trained run.

    Args:
        run: a finished run folder whose dataset is at hand.
        settings: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``.
        step: a kept checkpoint; by default the last.

    Returns:
        One row per multiple, task and episode. ``countable`` says whether the task can be done at that horizon.

    Raises:
        UserError: no such run, its dataset is gone, or its environment is no maze.
    """
    planner = Planner.from_run(run, device=device, step=step)
    maze = planner.statistics.maze_for(f"stitch of {run}")
    training, horizon = load_data(planner.config.data).training, planner.config.data.horizon
    windows = {
        name: NearestWindows(training, planner.statistics.normalizer, points)
        for name, points in (("whole", horizon), ("piece", min(PIECE_POINTS, horizon)))
    }
    rows: Rows = []
    for multiple in settings.multiples:
        rows += _rows_at(planner, maze, multiple, settings, windows)
    about = {"run": Path(run).name, "norm": planner.config.model.norm, "run_seed": planner.config.seed}
    return [about | row for row in rows]


def example_plans(run: str | Path, multiple: int, num_plans: int = 6, device: str = "auto") -> dict[str, Any]:
    """Plans to draw: one task of each family, between cell centres.

    Returns:
        ``{"maze", "multiple", "tasks", "plans"}``: the map, and per task ``num_plans`` plans (H, 2) in millimetres'
        precision, as lists.
    """
    planner = Planner.from_run(run, device=device)
    maze = planner.statistics.maze_for("a picture of plans")
    tasks = example_tasks(maze)
    starts, goals = (maze.cell_to_xy(np.array([getattr(task, end) for task in tasks])) for end in ("start", "goal"))
    horizon = multiple * planner.config.data.horizon
    plans = planner.plan(starts, goals, num_plans=num_plans, seed=0, horizon=horizon)[..., :2]
    return {
        "maze": maze.to_dict(),
        "multiple": multiple,
        "tasks": [f"{task.family}\n({task.split.replace('_', ' ')})" for task in tasks],
        "plans": np.round(plans.astype(float), 3).tolist(),
    }


def check_held_out(run: RunFolder, multiples: Sequence[int]) -> None:
    """Refuses a run of which nothing could be said.

    Raises:
        UserError: no held-out task of its map can be done at any of these multiples of its horizon.
    """
    statistics, horizon = run.statistics(), run.config().data.horizon
    maze = statistics.maze_for(str(run.path))
    held_out = [task for task in maze.tasks if task.split == "held_out"]
    for multiple in multiples:
        if any(can_be_done(maze, task, multiple * horizon, statistics.median_step_m) for task in held_out):
            return
    times = ", ".join(f"{multiple}×" for multiple in multiples)
    raise UserError(
        f"{run.path.name}: map {maze.name} has no held-out task that can be done in plans of {times} its horizon"
    )


def _rows_at(
    planner: Planner, maze: MazeMap, multiple: int, settings: StitchSettings, windows: dict[str, NearestWindows]
) -> Rows:
    """Rows at one multiple of the training horizon."""
    horizon = multiple * planner.config.data.horizon
    asked = RolloutSettings(episodes=settings.episodes, seed=settings.seed, horizon=horizon)
    tasks = choose_tasks(maze, ("demonstrated", "held_out"))
    single = rollout(planner, tasks, asked)
    whole, piece = (windows[name].farthest_part(single.plans[..., :2]) for name in ("whole", "piece"))
    best = _best_of(planner, tasks, asked, settings)
    routes = _routes(planner, maze, horizon, settings)
    countable = {task.name: can_be_done(maze, task, horizon, planner.statistics.median_step_m) for task in tasks}
    rows = []
    for index, row in enumerate(single.rows):
        del row["planning_ms"]
        row |= {"multiple": multiple, "countable": countable[row["task"]]}
        if row["seed"] == settings.seed:  # one count per task, not one per episode
            row |= routes.get(row["task"], {})
        row |= {"novelty_whole": float(whole[index]), "novelty_piece": float(piece[index])}
        if found := best.get((row["task"], row["seed"])):  # beside the single plan of the same episode
            row |= found | {"single_valid": row["plan_valid"], "single_success": row["success"]}
        rows.append(row)
    return rows


def _best_of(
    planner: Planner, tasks: Sequence[Task], asked: RolloutSettings, settings: StitchSettings
) -> dict[tuple[str, int], dict[str, Any]]:
    """By (task, seed): whether any of N plans was valid, and whether the best by validity reached the goal."""
    if settings.best_of == 1:
        return {}
    episodes = min(settings.best_of_episodes, settings.episodes)
    rows = rollout(planner, tasks, replace(asked, best_of=settings.best_of, episodes=episodes)).rows
    return {
        (row["task"], row["seed"]): {"any_valid": row["plan_valid"], "best_success": row["success"]} for row in rows
    }


def _routes(planner: Planner, maze: MazeMap, horizon: int, settings: StitchSettings) -> dict[str, dict[str, int]]:
    """For one task of each family the number of distinct routes among N plans, and among the valid ones."""
    if settings.best_of == 1:
        return {}
    tasks = example_tasks(maze)
    starts, goals = (maze.cell_to_xy(np.array([getattr(task, end) for task in tasks])) for end in ("start", "goal"))
    plans = planner.plan(starts, goals, num_plans=settings.best_of, seed=settings.seed, horizon=horizon)[..., :2]
    found = distinct_routes(plans, maze, planner.statistics.longest_step_m)
    return {
        task.name: {"routes": every, "valid_routes": valid} for task, (every, valid) in zip(tasks, found, strict=True)
    }
