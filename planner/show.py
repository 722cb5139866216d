"""What a run is, in the terminal or on one page: settings, data, curves, and plans drawn on its map."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from envs.maps import DT_S, MazeMap, Task
from groundwork.files import write_atomically
from groundwork.page import figure_uri, render
from groundwork.tables import markdown_table
from planner.comparison.figures import example_tasks, family_plans, plans_figure
from planner.measures import plan_measures
from planner.plan import Planner
from planner.training.run import RunFolder, find_run

BARS = "▁▂▃▄▅▆▇█"
CURVE_COLUMNS = 40
CURVES = ("loss", "validation_loss", "rollout_success", "rollout_plan_valid", "held_out_plan_valid")
CELL_ROWS, CELL_COLUMNS = 2, 4
"""Characters of a cell: as wide as it is high in most terminals."""
NUM_PLANS = 6


def describe(run: str | Path, device: str = "auto") -> str:
    """A run as text: what it is, its curves, and its plans for a task of each family.

    Args:
        run: a run folder, finished or not, or the name of a shipped planner.
        device: where the plans are drawn: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: no such run, or damaged files.
    """
    folder = find_run(run)
    text = f"{run}: {_state(folder)}\n\n{markdown_table(['what', 'value'], facts(folder))}"
    if curves := _curves(folder):
        text += "\n\n" + "\n".join(curves)
    if folder.checkpoints() and folder.statistics().maze is not None:
        text += f"\n\n{_plans_text(Planner.from_run(run, device=device))}"
    return text


def facts(folder: RunFolder) -> list[list[str]]:
    """Settings and data of a run, as (what, value)."""
    config, known = folder.config(), folder.statistics()
    data, model = config.data, config.model
    rows = [
        ["norm", f"{model.norm}, {'before' if model.norm_placement == 'pre' else 'after'} the activation"],
        ["dataset", f"{data.dataset}, on {known.environment}"],
        ["training split", f"{known.episodes:,} episodes, {known.windows:,} windows"],
        ["plan", f"{data.horizon} points, {(data.horizon - 1) * data.stride * DT_S:.2f} s"],
        ["training", f"{config.steps:,} steps of {config.batch_size} windows, seed {config.seed}"],
        ["sampling", f"{config.diffusion.sampler}, {config.diffusion.sampling_steps} network evaluations per plan"],
    ]
    if known.maze is not None:
        rows.insert(3, ["data's step", f"{known.median_step_m:.3f} m median, {known.longest_step_m:.3f} m longest"])
    if folder.checkpoints():
        network = folder.load_network()
        left, right = network.receptive_field()
        count = sum(parameter.numel() for parameter in network.parameters())
        rows.insert(4, ["network", f"{count:,} parameters, receptive field −{left} … +{right} points"])
    return rows


def _state(folder: RunFolder) -> str:
    kept = folder.checkpoints()
    step = int(kept[-1].name.removeprefix("step_")) if kept else 0
    return f"{'finished' if folder.done else 'not finished'}, last checkpoint at step {step:,}"


def _curves(folder: RunFolder) -> list[str]:
    """A line per measure: from its first to its last value, a bar for each part of the training."""
    lines, metrics = [], folder.metrics()
    for name in CURVES:
        if values := [row[name] for row in metrics if row.get(name) is not None]:
            parts = [float(np.mean(part)) for part in np.array_split(values, min(CURVE_COLUMNS, len(values)))]
            low, span = min(parts), (max(parts) - min(parts)) or 1.0
            bars = "".join(BARS[round((part - low) / span * (len(BARS) - 1))] for part in parts)
            lines.append(f"{name.replace('_', ' '):<20} {values[0]:>9.4g} {bars} {values[-1]:.4g}")
    return lines


def _plans_text(planner: Planner) -> str:
    """Of the first task of each family the plans' validity, and the first plan on the map."""
    maze = planner.statistics.maze
    assert maze is not None
    plans_FNHX = family_plans(planner, num_plans=NUM_PLANS)[..., :2]
    parts = []
    for task, plans_NHX in zip(example_tasks(maze), plans_FNHX, strict=True):
        valid = plan_measures(plans_NHX, maze, planner.statistics.longest_step_m)["plan_valid"].sum()
        title = f"{task.family} ({task.split.replace('_', ' ')})"
        drawn = plan_on_map(maze, task, plans_NHX[0])
        parts.append(f"{title}: {valid} of {NUM_PLANS} plans valid; the first of them:\n{drawn}")
    return "\n\n".join(parts)


def plan_on_map(maze: MazeMap, task: Task, plan_HX: np.ndarray) -> str:
    """A map of characters: walls, the planned points as ``o``, and the task's start S and goal G."""
    wide = np.where(maze.walls, "#", " ").repeat(CELL_ROWS, 0).repeat(CELL_COLUMNS, 1)
    goal_too = np.concatenate([plan_HX, maze.cell_to_xy([task.goal, task.start])])
    rows = (len(maze.rows) / 2 - goal_too[:, 1]) * CELL_ROWS
    columns = (goal_too[:, 0] + len(maze.rows[0]) / 2) * CELL_COLUMNS
    places = zip(
        np.clip(rows.astype(int), 0, len(wide) - 1), np.clip(columns.astype(int), 0, len(wide[0]) - 1), strict=True
    )
    for place, mark in zip(places, ["o"] * len(plan_HX) + ["G", "S"], strict=True):
        wide[place] = mark
    return "\n".join("".join(row).rstrip() for row in wide)


def write_page(run: str | Path, device: str = "auto") -> Path:
    """The same as an HTML page, with the plans as a figure: ``show.html`` in the run folder, or where one may write."""
    folder = find_run(run)
    figure = None
    if folder.checkpoints() and (maze := folder.statistics().maze) is not None:
        plans = family_plans(Planner.from_run(run, device=device), num_plans=NUM_PLANS)
        figure = figure_uri(plans_figure(maze, {str(folder.config().model.norm): plans}))
    page = render(
        "planner",
        "show.html.j2",
        run=str(run),
        state=_state(folder),
        facts=facts(folder),
        curves=_curves(folder),
        figure=figure,
    )
    try:
        write_atomically(folder.path / "show.html", page)
        return folder.path / "show.html"
    except OSError:  # a shipped planner may lie where nobody writes
        target = Path(tempfile.mkdtemp()) / "show.html"
        write_atomically(target, page)
        return target
