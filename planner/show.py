"""What a run is, in the terminal or on one page: settings, data, curves, and plans drawn on its map."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from envs.maze_map import MazeMap, Task
from groundwork.files import write_atomically
from groundwork.page import figure_bytes, page
from groundwork.section import Picture, Section, origin_facts
from groundwork.tables import Table
from planner.comparison.figures import example_tasks, family_plans, plans_figure
from planner.comparison.run_facts import network_facts, run_facts
from planner.config import DiffusionConfig
from planner.measures import plan_measures
from planner.plan import Planner
from planner.training.find import find_run
from planner.training.run import RunFolder

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
    folder, planner = find_run(run), _planner(run, device)
    text = f"{_state(folder)}\n\n{_section(folder).markdown()}"
    return text if planner is None else f"{text}\n{_plans_text(planner)}"


def write_page(run: str | Path, device: str = "auto") -> Path:
    """The same as an HTML page, with the plans as a figure: ``show.html`` in the run folder, or where one may write."""
    folder, planner = find_run(run), _planner(run, device)
    pictures = []
    if planner is not None and planner.statistics.maze is not None:
        plans = {str(planner.config.model.norm): family_plans(planner, num_plans=NUM_PLANS)}
        caption = "Six plans for the first task of each family, from cell center to cell center."
        figure = plans_figure(planner.statistics.maze, plans)
        pictures.append(Picture("plans.svg", caption, content=figure_bytes(figure)))
    written = page([_section(folder, pictures)])
    try:
        write_atomically(folder.path / "show.html", written)
        return folder.path / "show.html"
    except OSError:  # a shipped planner may lie where nobody writes
        target = Path(tempfile.mkdtemp()) / "show.html"
        write_atomically(target, written)
        return target


def _planner(run: str | Path, device: str) -> Planner | None:
    """The planner, if there is a checkpoint, and a maze to draw its plans on."""
    folder = find_run(run)
    drawable = folder.checkpoints() and folder.statistics().maze is not None
    return Planner.from_run(run, device=device) if drawable else None


def _sampling(how: DiffusionConfig) -> str:
    """How the run draws its plans."""
    if how.train_steps == 1:
        return "one network evaluation per plan, without noise"
    words = [how.sampler, f"{how.sampling_steps} steps per plan, each a network evaluation"]
    if how.resample:
        low, high = how.resample_levels
        words.append(f"{how.resample} times more between {low:g} and {high:g} of the noise levels")
    if how.temperature != 1:
        words.append(f"temperature {how.temperature:g}")
    return ", ".join(words)


def _section(folder: RunFolder, pictures: list[Picture] | None = None) -> Section:
    config, known = folder.config(), folder.statistics()
    facts = run_facts(folder) | (network_facts(folder) if folder.checkpoints() else {})
    facts |= {
        "environment": known.environment,
        "training split": f"{known.episodes:,} episodes, {known.windows:,} windows",
        "sampling": _sampling(config.diffusion),
    }
    if known.maze is not None:
        facts["data's step"] = f"{known.median_step_m:.3f} m median, {known.longest_step_m:.3f} m longest"
    curves = _curves(folder)
    return Section(
        "Run",
        _state(folder),
        pictures=pictures or [],
        tables=[
            Table(["what", "value"], [[name, value] for name, value in facts.items() if value != "–"]),
            *([Table(["measure", "first", "curve", "last"], curves, "Curves")] if curves else []),
        ],
        facts=origin_facts(folder.provenance()),
        folder=folder.path,
    )


def _state(folder: RunFolder) -> str:
    kept = folder.checkpoints()
    step = int(kept[-1].name.removeprefix("step_")) if kept else 0
    return f"{'Finished' if folder.done else 'Not finished'}, last checkpoint at step {step:,}."


def _curves(folder: RunFolder) -> list[list[str]]:
    """Per measure its first value, a bar for each part of the training, its last value."""
    lines, metrics = [], folder.metrics()
    for name in CURVES:
        if values := [row[name] for row in metrics if row.get(name) is not None]:
            parts = [float(np.mean(part)) for part in np.array_split(values, min(CURVE_COLUMNS, len(values)))]
            low, span = min(parts), (max(parts) - min(parts)) or 1.0
            bars = "".join(BARS[round((part - low) / span * (len(BARS) - 1))] for part in parts)
            lines.append([name.replace("_", " "), f"{values[0]:.4g}", bars, f"{values[-1]:.4g}"])
    return lines


def _plans_text(planner: Planner) -> str:
    """Of the first task of each family the plans' validity, and the first plan on the map."""
    maze = planner.statistics.maze_for("a picture of plans")
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
    rows, columns = (maze.xy_to_place(goal_too) * [CELL_ROWS, CELL_COLUMNS]).T
    places = zip(
        np.clip(rows.astype(int), 0, len(wide) - 1), np.clip(columns.astype(int), 0, len(wide[0]) - 1), strict=True
    )
    for place, mark in zip(places, ["o"] * len(plan_HX) + ["G", "S"], strict=True):
        wide[place] = mark
    return "\n".join("".join(row).rstrip() for row in wide)
