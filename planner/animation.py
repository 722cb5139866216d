"""One task, several planners: a plan of each and the ball that follows it, as one animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from envs.draw import Panel, rollout_gif
from envs.maze_map import MazeMap
from groundwork.errors import UserError
from groundwork.files import write_atomically
from planner.execution import execute_one
from planner.measures import jumps, plan_measures
from planner.plan import Planner

FRAMES_EVERY_S = 0.08


def panel(
    planner: Planner,
    start: ArrayLike,
    goal: ArrayLike,
    seed: int = 0,
    *,
    horizon: int | None = None,
    name: str | None = None,
) -> Panel:
    """A plan from ``start`` to ``goal``, its jumps, and the ball's way along it on MuJoCo.

    Args:
        planner: draws it.
        start: position in meters, or a state.
        goal: position in meters.
        seed: of the plan.
        horizon: planned points; by default the training's.
        name: what the title calls the planner; by default its norm.

    Raises:
        UserError: the planner's environment is no maze, or a start or goal in a wall.
    """
    plan_HD = planner.plan(start, goal, seed=seed, horizon=horizon)[0]
    maze = planner.statistics.maze_for("an animation")
    path_LX, plan_HX = execute_one(planner, plan_HD), plan_HD[:, :2]
    longest_m = planner.statistics.longest_step_m
    plan = {name: values[0] for name, values in plan_measures(plan_HX[None], maze, longest_m).items()}
    verdict = "valid" if plan["plan_valid"] else f"not valid, longest step {plan['longest_step']:.0f} × the data's"
    return Panel(path_LX, plan_HX, jumps(plan_HX, longest_m), f"{name or planner.config.model.norm}\n{verdict}")


def animate(
    runs: Sequence[str | Path], start: ArrayLike, goal: ArrayLike, out: Path, seed: int = 0, device: str = "auto"
) -> None:
    """Writes a GIF with a panel per planner; what jumps is drawn in red.

    Args:
        runs: run folders or names of shipped planners, on one maze.
        start: position in meters, or a state.
        goal: position in meters.
        out: the file.
        seed: of the plans.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: no such runs, runs on different mazes, or a start or goal in a wall.
    """
    planners = [Planner.from_run(run, device=device) for run in runs]
    maze = planners[0].statistics.maze
    if maze is None or any(planner.statistics.maze != maze for planner in planners):
        raise UserError(f"runs {', '.join(map(str, runs))} must be on one maze")
    write_animation(out, maze, [panel(planner, start, goal, seed) for planner in planners])


def write_animation(out: Path, maze: MazeMap, panels: Sequence[Panel], inches: float = 3.6) -> None:
    """Writes the panels side by side as a GIF in real time."""
    animation = io.BytesIO()
    rollout_gif(animation, maze, panels, every_s=FRAMES_EVERY_S, inches=inches)
    write_atomically(out, animation.getvalue())
