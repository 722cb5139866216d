"""The dose: what plans become as GroupNorm's statistics widen from one planned point to the whole plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from groundwork.files import save_figure, write_atomically
from groundwork.intervals import student_interval
from groundwork.section import Picture, Section, counted
from groundwork.style import BLUE, GRAY, ORANGE, legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table, measured
from norm_study.stitching.cells import FactorRun, Reach
from norm_study.stitching.effects import chosen_rows
from norm_study.stitching.grid import Stored
from norm_study.stitching.summary import interval, study_cell
from planner.config import Config, ModelConfig
from planner.unet import TemporalUNet

WHOLE_PLAN = 160
"""Where figures put the norm over the whole plan."""
DIMENSIONS = 6
"""Of a trajectory's point, position, velocity and action; they change no reach."""
SHARED = ModelConfig.norm_groups
"""The window that has as many points as there are groups: it belongs to both lines."""
PROBED = 4096
"""Planned points of the network whose reach is measured: more than windows of 68 points can carry."""
CAPTION = (
    "Plans, leakage at twice the training horizon (share of the Jacobian's energy beyond the convolutions' reach) and "
    "training loss against the window of GroupNorm's statistics; the "
    "last place is the whole plan. Control: as many groups as the window has points, so that every statistic is over "
    "the same count of numbers. Intervals: 95 % over training seeds."
)


def cells_of(stored: Stored) -> list[FactorRun]:
    """The cells that are there, by reach, control and window, each as its run of seed 0."""
    cells = {replace(run, seed=0) for run, _ in stored}
    return sorted(cells, key=lambda cell: (cell.reach, _is_control(cell), place(cell)))


def _is_control(cell: FactorRun) -> bool:
    return cell.norm == "channel" or cell.control


def place(cell: FactorRun) -> int:
    """The window in planned points; ``channel`` is the control's at one, ``group`` beyond all."""
    return cell.window or {"group": WHOLE_PLAN, "channel": 1}[cell.norm]


@cache
def whole_reach(cell: FactorRun, model: ModelConfig) -> int:
    """How many inputs to the left of it an output depends on, through convolutions and norms, in an untrained network.

    Args:
        cell: which norm and reach.
        model: of the study's planners.
    """
    torch.manual_seed(0)
    network = TemporalUNet(DIMENSIONS, **vars(cell.config(Config(model=model), {}).model)).double()
    plan_BDT = torch.randn(1, DIMENSIONS, PROBED, dtype=torch.float64, requires_grad=True)
    at = PROBED // 2
    (gradient,) = torch.autograd.grad(network(plan_BDT, 0)[..., at].sum(), plan_BDT)
    return at - int(gradient.abs().amax((0, 1)).nonzero()[0])


def write_dose(stored: Stored, audits: Sequence[Mapping[str, Any]], asked: int, out: Path, command: str) -> Path:
    """Writes table, section and figure; returns the table's path.

    Args:
        stored: the finished runs.
        audits: rows of :func:`norm_study.stitching.leakage.run_leakage` of the same runs.
        asked: how many runs the suite has.
        out: the folder.
        command: what made them, for the page.
    """
    save_figure(dose_figure(stored, audits), out / "dose.png", dpi=150)
    section = Section(
        "Dose",
        "Plans against the window over which GroupNorm takes its statistics.",
        [f"{len(stored)} of {counted(asked, 'run')} are stored."],
        tables=[dose_table(stored, audits)],
        pictures=[Picture("dose.png", CAPTION)],
        commands=[command] if command else [],
    )
    write_atomically(out / "dose.md", section.write(out, "dose").markdown())
    return out / "dose.md"


def _rows(stored: Stored, cell: FactorRun, split: str, multiple: int) -> list[dict[str, Any]]:
    return chosen_rows(stored, lambda run: replace(run, seed=0) == cell, split=split, multiple=multiple)


def _losses(stored: Stored, cell: FactorRun) -> dict[str, Any]:
    return student_interval(
        [result["facts"][0]["final_loss"] for run, result in stored if replace(run, seed=0) == cell]
    )


def _leakage(stored: Stored, audits: Sequence[Mapping[str, Any]], cell: FactorRun) -> dict[str, Any] | None:
    names = {run.name for run, _ in stored if replace(run, seed=0) == cell}
    found = [row["beyond_convolutions"] for row in audits if row["run"] in names]
    found = [value for value in found if value is not None]
    return student_interval(found, (0, 1)) if found else None


def dose_table(stored: Stored, audits: Sequence[Mapping[str, Any]]) -> Table:
    """One line per cell."""
    multiples = sorted({row["multiple"] for _, result in stored for row in result["rows"]})
    asked = [(split, multiple) for split in ("held_out", "demonstrated") for multiple in multiples]
    lines: list[list[Cell]] = []
    for cell in cells_of(stored):
        leaks = _leakage(stored, audits, cell)
        window = "whole plan" if cell.norm == "group" else str(place(cell))
        lines.append(
            [
                cell.reach,
                window,
                str(place(cell) if _is_control(cell) else ModelConfig.norm_groups),
                "whole plan" if cell.norm == "group" else str(whole_reach(cell, ModelConfig())),
                str(sum(replace(run, seed=0) == cell for run, _ in stored)),
                *(study_cell(interval(_rows(stored, cell, *which), "plan_valid"), "plan_valid") for which in asked),
                measured(leaks, ".1f", " %") if leaks else "–",
                measured(_losses(stored, cell), ".4f"),
            ]
        )
    valid = [f"{split} valid {multiple}×" for split, multiple in asked]
    return Table(["reach", "window", "groups", "whole reach", "seeds", *valid, "leakage", "training loss"], lines)


Panel = tuple[str, int] | Literal["leakage", "loss"]
"""Valid plans of a split at a multiple of the training horizon, or what the audit or the training says."""
LINES = {
    False: {"color": ORANGE, "marker": "s", "label": "8 groups"},
    True: {"color": BLUE, "marker": "o", "label": "as many groups as points (control)", "ls": "--"},
}


def dose_figure(stored: Stored, audits: Sequence[Mapping[str, Any]]) -> Figure:
    """Held-out and demonstrated validity, leakage and loss against the window; a column per reach."""
    cells = cells_of(stored)
    reaches: list[Reach] = list(dict.fromkeys(cell.reach for cell in cells))
    multiples = sorted({row["multiple"] for _, result in stored for row in result["rows"]})
    panels: list[Panel] = [(split, at) for at in multiples for split in ("held_out", "demonstrated")]
    panels += ["leakage", "loss"]
    figure = Figure(figsize=(3.6 * len(reaches) + 1, 1.5 * len(panels) + 1), layout="constrained")
    axes = figure.subplots(len(panels), len(reaches), squeeze=False, sharex=True, sharey="row")
    for column, reach in enumerate(reaches):
        for panel, axis in zip(panels, axes[:, column], strict=True):
            for control, look in LINES.items():
                own = [cell for cell in cells if cell.reach == reach and _is_control(cell) == control]
                own += [cell for cell in cells if control and (cell.reach, cell.window) == (reach, SHARED)]
                _draw(axis, panel, sorted(own, key=place), stored, audits, look)
        axes[0, column].set_title(REACH_TITLES[reach])
        _mark_places(axes[-1, column], sorted({place(cell) for cell in cells}))
    for panel, axis in zip(panels, axes[:, 0], strict=True):
        axis.set_ylabel(
            f"{panel[0].replace('_', ' ')},\nvalid at {panel[1]}× (%)" if isinstance(panel, tuple) else LABELS[panel]
        )
    open_axes(axes.flat)
    legend_outside(figure, axes[0, 0], "outside upper center", ncols=2)
    return figure


LABELS = {"leakage": "leakage (%)", "loss": "training loss\n(1/1000)"}
REACH_TITLES: dict[Reach, str] = {
    "quarter": "convolutions reach 18 points",
    "half": "convolutions reach 32 points",
    "whole": "convolutions reach 78 points",
}


def _draw(
    axis: Axes,
    panel: Panel,
    cells: Sequence[FactorRun],
    stored: Stored,
    audits: Sequence[Mapping[str, Any]],
    look: dict[str, Any],
) -> None:
    """One line of one panel."""
    if panel == "loss":  # drawn in thousandths: the intervals' drawing takes shares in per cent
        found = [(cell, {key: _scaled(value) for key, value in _losses(stored, cell).items()}) for cell in cells]
    elif panel == "leakage":
        found = [(cell, leaks) for cell in cells if (leaks := _leakage(stored, audits, cell))]
    else:
        found = [(cell, interval(_rows(stored, cell, *panel), "plan_valid")) for cell in cells]
    whole = [cell for cell, _ in found if cell.norm == "group"]
    if found:
        plot_intervals(axis, [place(cell) for cell, _ in found], [values for _, values in found], **look)
    if isinstance(panel, tuple):
        axis.set_ylim(-4, 104)
    if whole:
        axis.axvspan(WHOLE_PLAN / 1.35, WHOLE_PLAN * 1.35, color=GRAY, alpha=0.12, lw=0)


def _scaled(loss: float | None) -> float | None:
    return None if loss is None else 10 * loss


def _mark_places(axis: Axes, places: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(places, ["plan" if at == WHOLE_PLAN else str(at) for at in places])
    axis.minorticks_off()
    axis.set_xlabel("window of the statistics (planned points)")
