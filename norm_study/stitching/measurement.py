"""From a trained planner to what compositionality its norm left: one row per episode, all plans in batches.

Shapes: N problems, M plans of one problem, H planned points, X the two coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.maps import MazeMap, Task
from groundwork.errors import UserError
from groundwork.intervals import difference_over_seeds, interval_over_seeds
from norm_study.stitching.novelty import NearestWindows, distinct_routes
from norm_study.stitching.settings import StitchSettings
from planner.comparison.figures import example_tasks
from planner.data import load_data
from planner.measures import LEAVING_DISTANCE_M, LONGEST_VALID_STEP
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout

SHARE_OF_REACH = 0.8
"""A task counts when its path is at most this share of what the horizon covers at the data's median speed."""

PIECE_POINTS = 16
GAP_MEASURES = ("success", "plan_valid", "longest_step", "end_gap", "tracking_error")
FLAWS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "jumps": lambda row: row["longest_step"] > LONGEST_VALID_STEP,
    "through_wall": lambda row: not row["plan_valid"] and row["longest_step"] <= LONGEST_VALID_STEP,
}
"""Why a plan is not valid, out of its row: a step is too long, or all are short and lead through a wall."""
OTHER_MEASURES = (
    *FLAWS,
    "steps_to_goal",
    "wall_contact",
    "novelty_whole",
    "novelty_piece",
    "single_valid",
    "any_valid",
    "single_success",
    "best_success",
    "routes",
    "valid_routes",
)
MEASURES = (*GAP_MEASURES, *OTHER_MEASURES)
SHARES = (
    "success",
    "plan_valid",
    *FLAWS,
    "single_valid",
    "any_valid",
    "single_success",
    "best_success",
    "wall_contact",
)

Rows = list[dict[str, Any]]


def task_length_m(maze: MazeMap, task: Task) -> float:
    """Shortest path of a task in metres; there-and-back must leave by a cell and return."""
    if task.start == task.goal:
        return 2 * LEAVING_DISTANCE_M
    return float(maze.distances_from(task.start)[task.goal])


def can_be_done(maze: MazeMap, task: Task, horizon: int, median_step_m: float) -> bool:
    """Whether a plan of ``horizon`` points can do the task at the data's speed: path ≤ 0.8 (H − 1) · median step."""
    return task_length_m(maze, task) <= SHARE_OF_REACH * (horizon - 1) * median_step_m


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
    maze = planner.statistics.maze
    if maze is None:
        raise UserError(f"stitching needs a maze; {planner.statistics.environment} of {run} is none")
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
    maze = planner.statistics.maze
    assert maze is not None
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


def summarize(rows: Rows) -> dict[str, Any]:
    """Means with 95 % intervals over the countable rows of each split, and the compositionality gap between them.

    Returns:
        ``{"demonstrated", "held_out", "gap", "by_horizon"}``: the first three at the smallest multiple in
        ``rows``, each measure → ``{mean, low, high, n, over}``; ``by_horizon["1"]`` and so on repeats them for each
        multiple. The interval is over training seeds where there are at least three, else over episodes. The gap
        is demonstrated minus held out.
    """
    if not rows:
        raise UserError("nothing was measured")
    by_horizon = {str(multiple): _splits(rows, multiple) for multiple in sorted({row["multiple"] for row in rows})}
    return {**next(iter(by_horizon.values())), "by_horizon": by_horizon}


def countable(rows: Rows, *, split: str | None = None, multiple: int | None = None) -> Rows:
    """The rows of tasks that can be done at their horizon, of one split and multiple if named."""
    return [
        row
        for row in rows
        if row["countable"] and split in (None, row["split"]) and multiple in (None, row["multiple"])
    ]


def _splits(rows: Rows, multiple: int) -> dict[str, Any]:
    demonstrated, held_out = (countable(rows, split=split, multiple=multiple) for split in ("demonstrated", "held_out"))
    return {
        "demonstrated": {name: interval(demonstrated, name) for name in MEASURES},
        "held_out": {name: interval(held_out, name) for name in MEASURES},
        "gap": {name: _gap(demonstrated, held_out, name) for name in GAP_MEASURES},
    }


def by_run(rows: Rows, name: str) -> dict[str, list[float]]:
    """The values of a measure by training run; rows without it are left out."""
    values: dict[str, list[float]] = {}
    flaw = FLAWS.get(name)
    for row in rows:
        if flaw or name in row:
            values.setdefault(row["run"], []).append(flaw(row) if flaw else row[name])
    return values


def interval(rows: Rows, name: str) -> dict[str, Any]:
    """Mean and interval of a measure: over training seeds where there are at least three, else over episodes."""
    return interval_over_seeds(list(by_run(rows, name).values()), share=name in SHARES)


def _gap(demonstrated: Rows, held_out: Rows, name: str) -> dict[str, Any]:
    first, second = by_run(demonstrated, name), by_run(held_out, name)
    differences = [float(np.mean(first[run]) - np.mean(second[run])) for run in first if run in second]
    samples = [row[name] for row in demonstrated], [row[name] for row in held_out]
    return difference_over_seeds(differences, samples, share=name in SHARES)
