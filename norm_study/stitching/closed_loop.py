"""``norm-study closed-loop``: do more evaluations, many candidates or replanning hide what a norm does to plans?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from groundwork.answers import Answers
from groundwork.errors import UserError
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import student_interval
from groundwork.jobs import Job, run_jobs
from groundwork.options import part_of
from groundwork.program import Compute, command_line
from groundwork.section import Picture, Section
from groundwork.style import legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table, measured
from norm_study.stitching.measurement import check_held_out
from norm_study.stitching.settings import ClosedLoopOptions, ClosedLoopSettings, Way
from norm_study.stitching.summary import MEASURES, Rows, countable, difference, interval, study_cell
from planner.norms import NORM_TABLE
from planner.plan import Planner
from planner.renamed import RENAMED
from planner.rollout import RolloutSettings, can_be_done, choose_tasks, rollout
from planner.training.find import find_run, find_seeds

SHOWN = ("success", "plan_valid", "last_plan_valid")
POINTS = " points"
CAPTION = (
    "Held-out tasks: success, valid first plans, and valid last plans where plans are drawn anew. Intervals: 95 %, "
    "over training seeds where there are three."
)
NOTE = (
    "*Few evaluations*: DDIM. *Best of N*: the shortest valid plan of N is followed, which takes the map to choose. "
    "*Steps N times again*: each sampling step between two noise levels is taken again from its result, noised back. "
    "*Every N steps*: the rest of the plan is drawn anew after so many environment steps, cold from pure noise or warm "
    "from the last plan, as long as enough points are left. {} Milliseconds are those of all plans of an "
    "episode, drawn in batches, on cores that other work may have shared."
)
TO_ONE_PLAN = "*To one plan*: the difference to the same planners with one plan."
TO_GROUP = (
    "*To one plan*, *to group*: the difference to the same planners with one plan, and to those of `group` with the "
    "same seeds."
)
AT_TEMPERATURE = "temperature "
COOL = (
    "*Temperature*: the standard deviation of all noise that sampling draws; in the other modes the run's own, else 1."
)


def modes(settings: ClosedLoopSettings) -> dict[str, RolloutSettings]:
    """How plans are drawn and followed, by what a reader calls it."""
    plain = RolloutSettings(episodes=settings.episodes, seed=settings.seed)
    few = replace(plain, sampler="ddim", sampling_steps=settings.sampling_steps)
    again = replace(plain, sampler="ddpm", resample=settings.resample, resample_levels=settings.resample_levels)
    cold = {f"every {every} steps": replace(few, replan_every=every) for every in settings.every}
    found: dict[Way, dict[str, RolloutSettings]] = {
        "few": {"few evaluations": few},
        "best": {f"best of {settings.best_of}": replace(few, best_of=settings.best_of)},
        "again": {f"steps {settings.resample} times again": again},
        "cold": {f"{mode}, cold": asked for mode, asked in cold.items()},
        "cool": {f"{AT_TEMPERATURE}{settings.temperature:g}": replace(plain, temperature=settings.temperature)},
        "warm": {f"{mode}, warm": replace(asked, replan_warm=settings.warm) for mode, asked in cold.items()},
    }
    asked = {"one plan": plain}
    for way in found:
        asked |= found[way] if way in settings.ways else {}
    return asked


def closed_loop(options: ClosedLoopOptions, compute: Compute) -> None:
    """Rolls every run out in every mode, and writes rows, table and figure.

    Raises:
        UserError: no runs, one twice, or one whose map has no held-out task that can be done.
    """
    if not options.runs:
        raise UserError("closed-loop needs RUN …")
    for folder in find_seeds(options.runs):
        check_held_out(folder, options.multiples)
        for asked_of_all in modes(part_of(ClosedLoopSettings, options)).values():
            folder.config().diffusion.drawn_as(asked_of_all)  # what a run cannot do is refused before any is rolled out
    settings, store = part_of(ClosedLoopSettings, options), Answers(options.out / "rows", RENAMED, _label, True)
    asked = []
    jobs: list[Job] = []
    for run in options.runs:
        about = {"name": Path(run).name, "run": find_run(run).config()}
        asked.append({"closed_loop": settings, **about})
        jobs.append(store.job(asked[-1], partial(_measured, run, settings, compute.device)))
    run_jobs(jobs, options.run_in(options.out), "closed loop")
    rows = [row for question in asked for row in store[question]["rows"]]
    order = [mode for mode in modes(settings) if any(row["mode"] == mode for row in rows)]
    for maze in _mazes(rows):
        save_figure(loop_figure(_of(rows, maze), order), options.out / f"{maze}.png", dpi=150)
    section = loop_section(rows, order, command_line())
    write_atomically(options.out / "tables.md", section.write(options.out, "closed_loop").markdown())
    print(options.out / "tables.md")


def _label(question: Any) -> str:
    return question["name"]


def _measured(run: str, settings: ClosedLoopSettings, device: str) -> dict[str, Rows]:
    return {"rows": loop_rows(run, settings, device)}


def loop_rows(run: str | Path, settings: ClosedLoopSettings, device: str = "auto") -> Rows:
    """Episodes of one trained planner in every mode.

    Args:
        run: a finished run folder, or a shipped planner.
        settings: what to roll out.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        Those of :func:`planner.rollout.rollout` with ``mode``, ``multiple`` and ``countable``.

    Raises:
        UserError: no such run, or its environment is no maze.
    """
    planner = Planner.from_run(run, device=device)
    maze = planner.statistics.maze_for(f"closed-loop of {run}")
    tasks = choose_tasks(maze, ("demonstrated", "held_out"))
    about = {"run": Path(run).name, "norm": planner.config.model.norm, "run_seed": planner.config.seed}
    rows: Rows = []
    for multiple in settings.multiples:
        horizon = multiple * planner.config.data.horizon
        fits = {task.name: can_be_done(maze, task, horizon, planner.statistics.median_step_m) for task in tasks}
        for mode, asked in modes(settings).items():
            done = rollout(planner, tasks, replace(asked, horizon=horizon))
            place = {**about, "maze": maze.name, "mode": mode, "multiple": multiple}
            rows += [{**place, "countable": fits[row["task"]], **row} for row in done.rows]
    return rows


def _mazes(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["maze"] for row in rows))


def _of(rows: Rows, maze: str) -> Rows:
    return [row for row in rows if row["maze"] == maze]


def _norms(rows: Rows) -> list[str]:
    return [norm for norm in NORM_TABLE if any(row["norm"] == norm for row in rows)]


def _beside_group(rows: Rows) -> bool:
    """Whether there is ``group``, and another norm to hold against it."""
    return {"group"} < set(_norms(rows))


def loop_section(rows: Rows, order: Sequence[str], command: str = "") -> Section:
    """Tables and figures, a pair for each maze."""
    return Section(
        "Closed loop",
        "Planners followed in one go, from few or more evaluations, from many candidates, and with replanning.",
        tables=[loop_table(_of(rows, maze), order, maze) for maze in _mazes(rows)],
        pictures=[Picture(f"{maze}.png", f"{maze}. {CAPTION}") for maze in _mazes(rows)],
        notes=[
            NOTE.format(TO_GROUP if _beside_group(rows) else TO_ONE_PLAN),
            *([COOL] if any(mode.startswith(AT_TEMPERATURE) for mode in order) else []),
        ],
        commands=[command] if command else [],
    )


def _cell(rows: Rows, norm: str, mode: str, multiple: int, measure: str) -> dict[str, Any]:
    return interval(_held_out(rows, norm, mode, multiple), measure)


def _held_out(rows: Rows, norm: str, mode: str, multiple: int) -> Rows:
    chosen = countable(rows, split="held_out", multiple=multiple)
    return [row for row in chosen if (row["norm"], row["mode"]) == (norm, mode)]


def loop_table(rows: Rows, order: Sequence[str], maze: str) -> Table:
    """One line per multiple, norm and mode, of the held-out tasks that can be done."""
    lines: list[list[Cell]] = []
    beside_group = _beside_group(rows)
    for multiple in sorted({row["multiple"] for row in rows}):
        for norm in _norms(rows):
            for mode in order:
                own = _held_out(rows, norm, mode, multiple)
                if not own:
                    continue
                plain, group = (_held_out(rows, *of, multiple) for of in ((norm, order[0]), ("group", mode)))
                success, valid, last = (interval(own, measure) for measure in SHOWN)
                spent = _spent_ms(
                    [row for row in rows if (row["norm"], row["mode"], row["multiple"]) == (norm, mode, multiple)]
                )
                lines.append(
                    [
                        f"{multiple}×",
                        norm,
                        mode,
                        study_cell(success, SHOWN[0]),
                        "–" if mode == order[0] else study_cell(difference(own, plain, SHOWN[0]), SHOWN[0], POINTS),
                        *([_to_group(norm, own, group)] if beside_group else []),
                        study_cell(valid, SHOWN[1]),
                        "–" if mode == order[0] else study_cell(difference(own, plain, SHOWN[1]), SHOWN[1], POINTS),
                        study_cell(last, SHOWN[2]) if last["n"] else "–",
                        f"{success['n']} {success['over']}",
                        measured(student_interval(spent, (0, math.inf)), ".0f", " ms"),
                    ]
                )
    to_group = ["to group"] if beside_group else []
    columns = ["success", "to one plan", *to_group, "valid plans", "to one plan", "last plan valid", "n", "planning"]
    return Table(["horizon", "norm", "mode", *columns], lines, f"{maze}, held-out tasks")


def _to_group(norm: str, own: Rows, group: Rows) -> Cell:
    """The difference in success to ``group`` in the same mode and with the same seeds."""
    if norm == "group":
        return "–"
    return study_cell(difference(own, group, SHOWN[0], of="run_seed"), SHOWN[0], POINTS)


def _spent_ms(rows: Rows) -> list[float]:
    """The mean time of planning of each run."""
    by_run: dict[str, list[float]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row["planning_ms"])
    return [float(np.mean(times)) for times in by_run.values()]


def loop_figure(rows: Rows, order: Sequence[str]) -> Figure:
    """A column per multiple, a row per measure; modes along the axis, norms by their own looks."""
    multiples = sorted({row["multiple"] for row in rows if row["countable"] and row["split"] == "held_out"})
    shown = [measure for measure in SHOWN if any(measure in row for row in rows)]
    figure = Figure(
        figsize=(max(2.2, 0.42 * len(order)) * len(multiples) + 1.4, 2.2 * len(shown)), layout="constrained"
    )
    axes = figure.subplots(len(shown), len(multiples), squeeze=False, sharex=True, sharey=True)
    norms = _norms(rows)
    for column, multiple in enumerate(multiples):
        for axis, measure in zip(axes[:, column], shown, strict=True):
            for at, norm in enumerate(norms):
                cells = [_cell(rows, norm, mode, multiple, measure) for mode in order]
                there = [place for place, cell in enumerate(cells) if cell["n"]]
                places = np.array(there) + min(0.2, 0.8 / len(norms)) * (at - (len(norms) - 1) / 2)
                look = {"color": NORM_TABLE[norm].color, "marker": NORM_TABLE[norm].marker, "ls": "none", "label": norm}
                plot_intervals(axis, places, [cells[place] for place in there], **look)
            axis.set(ylim=(-4, 104))
        axes[0, column].set_title(f"{multiple}× training horizon")
        axes[-1, column].set_xticks(range(len(order)), order, rotation=35, ha="right")
    for axis, measure in zip(axes[:, 0], shown, strict=True):
        axis.set_ylabel(f"{MEASURES[measure].label} (%)")
    open_axes(axes.flat)
    legend_outside(figure, axes[0, 0])
    return figure
