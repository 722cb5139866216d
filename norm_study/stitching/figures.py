"""Figures of the stitching study, out of its stored rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter

from envs.draw import draw_maze, draw_trajectories
from envs.maze_map import MazeMap
from groundwork.files import save_figure
from groundwork.style import legend_outside, open_axes, plot_intervals
from norm_study.stitching.cells import REACHES
from norm_study.stitching.grid import Stored
from norm_study.stitching.summary import Rows, countable, interval
from planner.config import PaddingMode
from planner.norms import NORM_TABLE, in_legend_order

OUTCOMES = {
    "plan_valid": ("valid", "#004488"),
    "through_wall": ("through a wall, no jump", "#DDAA33"),
    "jumps": ("jump", "#BB5566"),
}
"""(label, color) of each kind of plan; dark, light and middle in grey, too."""
WIDEST = 4
"""Columns of plans that a page still shows at a size to read."""


def base_cell(stored: Stored) -> Stored:
    """The runs at the first padding and receptive field, where only the norm differs."""
    first = stored[0][0]
    return [(run, result) for run, result in stored if (run.padding, run.reach) == (first.padding, first.reach)]


def norms_of(stored: Stored) -> list[str]:
    """Norms in the order of the legend."""
    return in_legend_order({run.norm for run, _ in stored})


def _rows(stored: Stored, norm: str, multiple: int, split: str = "held_out") -> Rows:
    return [
        row
        for run, result in stored
        if run.norm == norm
        for row in countable(result["rows"], split=split, multiple=multiple)
    ]


def headline(stored: Stored) -> Figure:
    """Validity and success on held-out tasks against multiples of the training horizon, one line per norm."""
    chosen = base_cell(stored)
    multiples = sorted({row["multiple"] for _, result in chosen for row in result["rows"]})
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    norms = norms_of(chosen)
    for axis, measure, label in zip(
        axes, ("plan_valid", "success"), ("valid plans (%)", "success in MuJoCo (%)"), strict=True
    ):
        for index, norm in enumerate(norms):
            found = [(at, rows) for at, multiple in enumerate(multiples) if (rows := _rows(chosen, norm, multiple))]
            cells = [interval(rows, measure) for _, rows in found]
            # Beside each other, so that intervals of norms at the same height can be told apart.
            places = np.array([at for at, _ in found]) + 0.06 * (index - (len(norms) - 1) / 2)
            plot_intervals(
                axis, places, cells, color=NORM_TABLE[norm].color, marker=NORM_TABLE[norm].marker, lw=1.4, label=norm
            )
        axis.set_xticks(range(len(multiples)), [f"{multiple}×" for multiple in multiples])
        axis.set(xlabel="planned points / training horizon", ylabel=label, ylim=(-4, 104))
    open_axes(axes)
    legend_outside(figure, axes[0])
    return figure


def plans(stored: Stored) -> Figure:
    """Plans of the first seed of each norm, for one task of each family."""
    first: dict[str, Any] = {run.norm: result["plans"][0] for run, result in reversed(base_cell(stored))}
    norms = norms_of(base_cell(stored))
    maze = MazeMap.from_dict(first[norms[0]]["maze"])
    tasks = first[norms[0]]["tasks"]
    wide = len(tasks) < len(norms) <= WIDEST
    rows, columns = (tasks, norms) if wide else (norms, tasks)
    height, width = maze.walls.shape
    size = (2.2 * len(columns) + 0.5, (2.1 * height / width + 0.15) * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        task, norm = (row, norms[column]) if wide else (column, norms[row])
        draw_maze(axis, maze)
        draw_trajectories(axis, [np.array(plan) for plan in first[norm]["plans"][task]], dots=True)
        if row == 0:
            axis.set_title(columns[column], fontsize=9)
        axis.set_xlabel("x (m)" if row == len(rows) - 1 else "")
        axis.set_ylabel(f"{rows[row]}\ny (m)" if column == 0 else "")
    return figure


def heat_map(stored: Stored) -> Figure:
    """Held-out validity of every cell: norms (rows) against padding and receptive field (columns), per multiple."""
    multiples = sorted({row["multiple"] for _, result in stored for row in result["rows"]})
    there = {(run.reach, run.padding) for run, _ in stored}
    columns = [place for place in product(REACHES, get_args(PaddingMode)) if place in there]
    norms = norms_of(stored)
    figure = Figure(
        figsize=(1.3 + len(multiples) * (0.62 * len(columns) + 0.5), 0.42 * len(norms) + 1.6), layout="constrained"
    )
    axes = figure.subplots(1, len(multiples), squeeze=False, sharey=True)[0]
    blank = ""
    for axis, multiple in zip(axes, multiples, strict=True):
        share = np.full((len(norms), len(columns)), np.nan)
        for row, norm in enumerate(norms):
            for column, place in enumerate(columns):
                here = [(run, result) for run, result in stored if (run.reach, run.padding) == place]
                rows = _rows(here, norm, multiple)
                if rows:
                    share[row, column] = 100 * interval(rows, "plan_valid")["mean"]
        blank = "; white: not run" if np.isnan(share).any() else blank
        mesh = axis.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for row, column in np.argwhere(~np.isnan(share)):
            value = share[row, column]
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 55 else "black")
        axis.set_xticks(range(len(columns)), [f"{reach},\n{padding}" for reach, padding in columns], fontsize=7)
        axis.set_yticks(range(len(norms)), norms)
        axis.set_title(f"{multiple}×", fontsize=9)
    figure.suptitle("planned points / training horizon", fontsize=9)
    figure.supxlabel(f"reach to one side, padding\n(quarter: 18 points, half: 32, whole: 78{blank})", fontsize=9)
    figure.colorbar(mesh, ax=axes, label="valid held-out plans (%)")
    return figure


def outcomes(stored: Stored) -> Figure:
    """What plans are, by norm: valid, through a wall in steps like the data's, or with a jump."""
    chosen = base_cell(stored)
    norms = norms_of(chosen)[::-1]
    multiples = sorted({row["multiple"] for _, result in chosen for row in result["rows"]})
    splits = ("demonstrated", "held_out")
    figure = Figure(figsize=(2.6 * len(multiples) + 1.6, 2 * (0.26 * len(norms) + 0.6) + 0.5), layout="constrained")
    axes = figure.subplots(len(splits), len(multiples), squeeze=False, sharex=True, sharey=True)
    for (line, column), axis in np.ndenumerate(axes):
        left = np.zeros(len(norms))
        for measure, (label, color) in OUTCOMES.items():
            rows = [_rows(chosen, norm, multiples[column], splits[line]) for norm in norms]
            share = [100 * interval(own, measure)["mean"] if own else 0 for own in rows]
            axis.barh(norms, share, left=left, color=color, label=label, height=0.7)
            left += share
        axis.set_title(f"{splits[line].replace('_', ' ')}, {multiples[column]}×", fontsize=9)
        axis.set(xlim=(0, 100), xticks=(0, 50, 100))
    figure.supxlabel("plans (%); ×: planned points / training horizon", fontsize=9)
    open_axes(axes.flat)
    legend_outside(figure, axes[0, 0], "outside upper center", ncols=len(OUTCOMES), fontsize=9)
    return figure


def novelty(stored: Stored) -> Figure:
    """Each held-out plan's distance to the data, whole against piece, at all horizons; crosses are invalid plans."""
    chosen = base_cell(stored)
    norms = norms_of(chosen)
    columns = min(4, len(norms))
    lines = -(-len(norms) // columns)
    multiples = sorted({row["multiple"] for _, result in chosen for row in result["rows"]})
    figure = Figure(figsize=(2.3 * columns + 0.4, 2.2 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, norm in zip(axes, norms, strict=False):
        rows = [row for multiple in multiples for row in _rows(chosen, norm, multiple)]
        for valid, marker, color in ((False, "x", "0.45"), (True, "o", NORM_TABLE[norm].color)):
            points = np.array([[r["novelty_whole"], r["novelty_piece"]] for r in rows if r["plan_valid"] is valid])
            if len(points):
                axis.plot(*points.T, marker, color=color, ms=3, mew=0.7, alpha=0.5, rasterized=True)
        axis.set_title(norm, fontsize=9)
        axis.set(xscale="log", yscale="log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(FixedLocator([0.03, 0.1, 0.3, 1, 3]))
            side.set_major_formatter("{x:g}")
            side.set_minor_formatter(NullFormatter())
    open_axes(axes)
    for axis in axes[len(norms) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(norms) - columns) : len(norms)]:  # the lowest of its column
        axis.tick_params(labelbottom=True)
    figure.supxlabel(
        "distance to the nearest training window (m): farthest part of the training horizon's length", fontsize=9
    )
    figure.supylabel("farthest piece of 16 points (m)", fontsize=9)
    return figure


def intervention(stored: Stored) -> Figure:
    """Movement of the output when only inputs beyond the receptive field are exchanged."""
    chosen = base_cell(stored)
    norms = norms_of(chosen)
    panels = (
        ("evaluation", "level", "noise level (share of all)", "one evaluation"),
        ("denoising", "steps", "DDIM steps of 16", "several steps"),
        ("length", "level", "noise level (share of all)", "other length and context"),
    )
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (kind, key, label, title) in zip(axes, panels, strict=True):
        for index, norm in enumerate(norms):  # open marks of falling size: norms that do the same hide each other
            rows = [row for run, result in chosen if run.norm == norm for row in result["intervention"]]
            rows = [row for row in rows if row["kind"] == kind]
            places = sorted({row[key] for row in rows})
            means = [np.mean([row["movement"] for row in rows if row[key] == place]) for place in places]
            mark = {"marker": NORM_TABLE[norm].marker, "markersize": 10 - index, "markerfacecolor": "none"}
            axis.plot(places, np.maximum(means, 1e-9), color=NORM_TABLE[norm].color, lw=1.2, label=norm, **mark)
        axis.set(yscale="log", xlabel=label, title=title, ylim=(3e-10, 5))
        if kind == "denoising":
            axis.set_xscale("log", base=2)
            axis.set_xticks(places, [str(place) for place in places])
    axes[0].set_ylabel("movement of the output\n(standard deviations; 1e-9: less)")
    open_axes(axes)
    legend_outside(figure, axes[0])
    return figure


FIGURES: dict[str, tuple[Callable[[Stored], Figure], str]] = {
    "headline": (
        headline,
        "Validity and success on held-out tasks against multiples of the training horizon, one line per norm.",
    ),
    "plans": (plans, "Plans of the first seed of each norm, for one task of each family."),
    "outcomes": (outcomes, "What plans are, by norm: valid, through a wall in steps like the data's, or with a jump."),
    "heat_map": (
        heat_map,
        "Held-out validity of every cell: norms (rows) against padding and receptive field (columns), per multiple.",
    ),
    "novelty": (
        novelty,
        "Each held-out plan's distance to the data, whole against piece, at all horizons; crosses are invalid plans.",
    ),
    "intervention": (
        intervention,
        "Movement of the output when only inputs beyond the receptive field are exchanged.",
    ),
}
"""Every figure with its caption, in a page's order."""


def draw_study(stored: Stored, out: Path) -> None:
    """Writes every figure as PNG into ``out``."""
    for name, (draw, _) in FIGURES.items():
        save_figure(draw(stored), out / f"{name}.png", dpi=150)
