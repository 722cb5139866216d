"""Figures of plans and of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from envs.draw import draw_maze, draw_trajectories
from envs.maps import MazeMap, Task
from groundwork.style import PALETTE, legend_outside, open_axes
from planner.measures import MEASURES
from planner.plan import Planner


def example_tasks(maze: MazeMap) -> list[Task]:
    """The first task of each family."""
    first: dict[str, Task] = {}
    for task in maze.tasks:
        first.setdefault(task.family, task)
    return list(first.values())


def family_plans(planner: Planner, *, horizon: int | None = None, num_plans: int = 6, seed: int = 0) -> np.ndarray:
    """Plans for the first task of each family, between cell centres.

    Args:
        planner: on a maze.
        horizon: planned points H; ``None``: the training's.
        num_plans: N, per family.
        seed: of the plans.

    Returns:
        (families, N, H, D) in data units, in the order of :func:`example_tasks`.
    """
    maze = planner.statistics.maze
    assert maze is not None
    tasks = example_tasks(maze)
    starts = maze.cell_to_xy(np.array([task.start for task in tasks]))
    goals = maze.cell_to_xy(np.array([task.goal for task in tasks]))
    return planner.plan(starts, goals, num_plans=num_plans, seed=seed, horizon=horizon)


def plans_figure(maze: MazeMap, plans: Mapping[str, np.ndarray]) -> Figure:
    """Plans for one task of each family (columns), one row per label.

    Args:
        maze: the walls.
        plans: label → what :func:`family_plans` gave.
    """
    tasks = example_tasks(maze)
    height = 2.5 * len(maze.rows) / len(maze.rows[0])
    figure = Figure(figsize=(2.5 * len(tasks) + 0.6, (height + 0.15) * len(plans) + 0.7), layout="constrained")
    axes = figure.subplots(len(plans), len(tasks), squeeze=False, sharex=True, sharey=True)
    for row, (label, plans_FNHD) in enumerate(plans.items()):
        for column, task in enumerate(tasks):
            axis = axes[row, column]
            draw_maze(axis, maze)
            draw_trajectories(axis, list(plans_FNHD[column, ..., :2]), dots=True)
            if row == 0:
                axis.set_title(f"{task.family}\n({task.split.replace('_', ' ')})", fontsize=9)
            axis.set_xlabel("x (m)" if row == len(plans) - 1 else "")
            axis.set_ylabel(f"{label}\ny (m)" if column == 0 else "")
    return figure


def bar_figure(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]], columns: Sequence[str]) -> Figure:
    """Bars with 95 % intervals: one panel per measure that is drawn, one group per column, one bar per label.

    Args:
        summaries: label → column → measure → ``{mean, low, high, …}``.
        columns: groups along the x axis, such as "demonstrated, H = 64".
    """
    taken = next(iter(summaries.values()))[columns[0]]
    measures = [name for name, measure in MEASURES.items() if measure.chart and name in taken]
    figure = Figure(figsize=(3.1 * len(measures), 3.4), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    width = 0.8 / len(summaries)
    for axis, measure in zip(axes, measures, strict=True):
        for index, (label, summary) in enumerate(summaries.items()):
            cells = [summary[column][measure] for column in columns]
            means = np.array([cell["mean"] for cell in cells], dtype=float)
            lows, highs = (
                np.array([cell["mean"] if cell[end] is None else cell[end] for cell in cells], dtype=float)
                for end in ("low", "high")
            )
            places = np.arange(len(columns)) + (index - (len(summaries) - 1) / 2) * width
            axis.bar(places, means, width, color=PALETTE[index % len(PALETTE)], label=label)
            error = np.abs(np.stack([means - lows, highs - means]))
            axis.errorbar(places, means, error, fmt="none", ecolor="0.25", elinewidth=1, capsize=2)
        axis.set_xticks(range(len(columns)), columns, fontsize=7, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_ylabel(MEASURES[measure].axis)
        axis.set_ylim(bottom=0, top=1.02 if MEASURES[measure].share else None)
        if MEASURES[measure].against:
            axis.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
    open_axes(axes)
    legend_outside(figure, axes[0], "outside upper center", ncols=len(summaries))
    return figure
