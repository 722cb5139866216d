"""The pictures and animations of a comparison's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from envs.maze_map import MazeMap, Task
from groundwork.files import save_figure
from planner.animation import panel, write_animation
from planner.comparison.figures import (
    Summaries,
    bar_figure,
    example_figure,
    example_tasks,
    family_plans,
    fewest_and_most,
    plans_figure,
    shortest_columns,
)
from planner.comparison.report import animation_file
from planner.plan import Planner

PLANS_SHOWN = 6
ANIMATION_INCHES = 2.8
TEXT_WIDTH_DPI = 120
"""At which six inches are as wide as a page's text."""


def draw_comparison(
    target: Path, planners: Mapping[str, Planner], summaries: Summaries, task: Task, multiples: Sequence[int]
) -> None:
    """Writes the pictures and animations of the page; plans are those of the first run of each label.

    One picture and the animations are about one task at the shortest horizon, as the page's first sentence is.
    """
    maze = next(iter(planners.values())).statistics.maze_for("compare")
    horizons = {label: min(multiples) * planner.config.data.horizon for label, planner in planners.items()}
    save_figure(_example_figure(planners, summaries, task, horizons), target / "example.png", dpi=TEXT_WIDTH_DPI)
    save_figure(bar_figure(summaries), target / "bars.png", dpi=TEXT_WIDTH_DPI)
    for label, planner in planners.items():
        start, goal = maze.cell_to_xy(task.start), maze.cell_to_xy(task.goal)
        moving = panel(planner, start, goal, horizon=horizons[label], name=label)
        write_animation(target / animation_file(label), maze, [moving], inches=ANIMATION_INCHES)
    for multiple in multiples:
        save_figure(_plans_figure(maze, planners, multiple), target / f"plans_{multiple}x.png", dpi=150)


def example_task(maze: MazeMap, rows: Sequence[dict[str, Any]]) -> Task:
    """The first task that shows what decides: one that nobody demonstrated and that counts at the shortest horizon."""
    shortest = min(row["multiple"] for row in rows)
    counts = {row["family"] for row in rows if row["countable"] and row["multiple"] == shortest}
    return max(example_tasks(maze), key=lambda task: (task.split == "held_out", task.family in counts))


def _example_figure(
    planners: Mapping[str, Planner], summaries: Summaries, task: Task, horizons: Mapping[str, int]
) -> Figure:
    """Plans of the norms with the fewest and the most valid plans at the shortest horizon."""
    column = shortest_columns(summaries)[0]
    valid = {label: summaries[label][column]["plan_valid"]["mean"] or 0.0 for label in planners}
    chosen = dict.fromkeys(fewest_and_most(valid))
    maze = next(iter(planners.values())).statistics.maze_for("compare")
    start, goal = maze.cell_to_xy(task.start), maze.cell_to_xy(task.goal)
    plans = {
        label: planners[label].plan(start, goal, num_plans=PLANS_SHOWN, horizon=horizons[label])[..., :2]
        for label in chosen
    }
    return example_figure(maze, plans, {label: planners[label].statistics.longest_step_m for label in chosen})


def _plans_figure(maze: MazeMap, planners: Mapping[str, Planner], multiple: int) -> Figure:
    """Plans of the first run of each label at a multiple of the training horizon."""
    plans = {
        label: family_plans(planner, horizon=multiple * planner.config.data.horizon, num_plans=PLANS_SHOWN)
        for label, planner in planners.items()
    }
    return plans_figure(maze, plans)
