"""Figures of plans and of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from envs.draw import draw_jumps, draw_maze, draw_trajectories
from envs.maze_map import MazeMap, Task
from groundwork.style import open_axes
from planner.measures import MEASURES, jumps, plan_measures
from planner.norms import NORM_TABLE, WHOLE_KINDS, in_legend_order, norm_of
from planner.plan import Planner

Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]
SHADES = (1.0, 0.4)
"""Of a pair of bars; the first is what was held out."""
POOLS = "////"
"""The hatch of norms that pool over time."""


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
    maze = planner.statistics.maze_for("a picture of plans")
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


def example_figure(maze: MazeMap, plans: Mapping[str, np.ndarray], longest_m: Mapping[str, float]) -> Figure:
    """Plans of several planners for one task, side by side; steps longer than a valid plan's are drawn in red.

    Args:
        maze: the walls.
        plans: label → (N, H, 2) positions in meters.
        longest_m: label → the longest step of its data.
    """
    size = (2.7 * len(plans) + 0.3, 2.7 * len(maze.rows) / len(maze.rows[0]) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(plans), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (label, plans_NHX) in zip(axes, plans.items(), strict=True):
        draw_maze(axis, maze)
        draw_trajectories(axis, list(plans_NHX), dots=True)
        for plan_HX in plans_NHX:
            draw_jumps(axis, plan_HX, jumps(plan_HX, longest_m[label]))
        valid = int(plan_measures(plans_NHX, maze, longest_m[label])["plan_valid"].sum())
        axis.set_title(f"{label}: {valid} of {len(plans_NHX)} plans valid", fontsize=10)
        axis.label_outer()
    return figure


def bar_figure(summaries: Summaries) -> Figure:
    """Valid plans and success at the shortest horizon: a bar per norm and split, held out above demonstrated.

    Norms whose statistics pool over time stand together, below the others, and are hatched.

    Args:
        summaries: label → column such as "held out, 1× horizon" → measure → ``{mean, low, high, …}``.
    """
    labels = in_legend_order(summaries)
    columns = shortest_columns(summaries)
    measures = sorted(headline_measures(summaries), key=lambda name: MEASURES[name].of != "plan")
    pooling = [label for label in labels if pools_over_time(label)]
    blocks = {"no pooling over time": [label for label in labels if label not in pooling], "pools over time": pooling}
    blocks = {title: own for title, own in blocks.items() if own}
    rows = [entry for title, own in blocks.items() for entry in (title, *own)]
    figure = Figure(figsize=(2.3 * len(measures) + 1.2, 0.36 * len(rows) + 1.0), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    axes[0].set_ylim(len(rows) - 0.4, -0.5)
    for axis, measure in zip(axes, measures, strict=True):
        for place, label in enumerate(rows):
            if label not in blocks:
                _pair(axis, place, label, [summaries[label][column].get(measure) for column in columns])
        axis.set(xlim=(0, 102), xlabel=f"{MEASURES[measure].label} (%)", xticks=(0, 25, 50, 75, 100))
        axis.set_yticks(range(len(rows)), rows)
        axis.tick_params(axis="y", length=0)
        for tick, row in zip(axis.yaxis.get_major_ticks(), rows, strict=True):
            tick.label1.set(style="italic" if row in blocks else "normal", color="0.35" if row in blocks else "black")
    open_axes(axes)
    handles: list[Any] = [
        Patch(color="0.25", alpha=shade, label=split_of(column)) for column, shade in zip(columns, SHADES, strict=False)
    ]
    if pooling:
        handles.append(Patch(facecolor="white", edgecolor="0.25", hatch=POOLS, label="pools over time"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def _pair(axis: Axes, place: int, label: str, cells: Sequence[Mapping[str, Any] | None]) -> None:
    """A norm's bars, one per split, with their intervals; a share that was not measured has none."""
    norm, height = norm_of(label), 0.8 / len(cells)
    color = NORM_TABLE[norm].color if norm in NORM_TABLE else "0.5"
    for index, (cell, shade) in enumerate(zip(cells, SHADES, strict=False)):
        if cell is None or cell["mean"] is None:
            continue
        at, mean = place + (index - (len(cells) - 1) / 2) * height, 100 * cell["mean"]
        hatch = POOLS if pools_over_time(label) else None
        axis.barh(at, mean, height, color=color, alpha=shade, hatch=hatch, edgecolor="white", linewidth=0)
        ends = [cell["mean"] if cell[end] is None else cell[end] for end in ("low", "high")]
        error = np.abs(100 * np.array(ends) - mean)[:, None]
        axis.errorbar(mean, at, xerr=error, fmt="none", ecolor="black", elinewidth=1, capsize=2)


def pools_over_time(label: str) -> bool:
    """Whether the norm that a label begins with pools over time when it plans."""
    norm = norm_of(label)
    return norm in NORM_TABLE and NORM_TABLE[norm].mixes_time_inference


def headline_measures(summaries: Summaries) -> list[str]:
    """The measures that a comparison begins with, as far as they were taken."""
    taken = next(iter(next(iter(summaries.values())).values()))
    return [name for name, measure in MEASURES.items() if measure.headline and name in taken]


def fewest_and_most(shares: Mapping[str, float]) -> tuple[str, str]:
    """The labels with the smallest and the largest share; two of them where all shares are equal.

    Norms of packs are left out where there are others: nobody plans with halves that are drawn apart.
    """
    whole = {label: share for label, share in shares.items() if norm_of(label) in WHOLE_KINDS}
    shares = whole if len(whole) > 1 else shares
    return min(shares, key=shares.__getitem__), max(reversed([*shares]), key=shares.__getitem__)


def shortest_columns(summaries: Summaries) -> list[str]:
    """The columns at the shortest horizon: held-out tasks first, where there are any."""
    columns = list(next(iter(summaries.values())))
    first = horizon_of(columns[0])
    return sorted((column for column in columns if horizon_of(column) == first), reverse=True)


def horizon_of(column: str) -> str:
    """``1×`` of "held out, 1× horizon"."""
    return column.partition(", ")[2].partition(" ")[0]


def split_of(column: str) -> str:
    """``held out`` of "held out, 1× horizon"."""
    return column.partition(",")[0]
