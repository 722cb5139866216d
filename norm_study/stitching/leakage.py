"""Leakage of the stitching study's trained planners, beside what they make of held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.files import save_figure
from groundwork.intervals import interval_over_seeds, student_interval
from groundwork.style import STYLE
from norm_study.audit.command import planner_inputs
from norm_study.audit.findings import AuditReport
from norm_study.audit.leakage import audit
from norm_study.stitching.figures import LEGEND
from norm_study.stitching.grid import FactorRun, stored_runs
from norm_study.stitching.measurement import countable
from norm_study.stitching.settings import Grid, LeakageSettings
from planner.norms import NORM_TABLE
from planner.plan import pick_device
from planner.training.run import RunFolder

LINEAR_BELOW = 1e-4


def run_leakage(settings: LeakageSettings, grid: Grid, device_name: str = "auto") -> dict[str, Any]:
    """Audits the stored runs; draws the figure if ``settings.out`` says where.

    Raises:
        UserError: no finished run, or none measured at the asked multiple.
    """
    stored = stored_runs(settings.stitching, grid)
    if not stored:
        raise UserError(f"stitching = {settings.stitching} holds no finished run; norm-study stitch makes them")
    device, rows = pick_device(device_name), []
    for run, result in tqdm(stored, desc="audits", unit="run"):
        valid = [row["plan_valid"] for row in countable(result["rows"], split="held_out", multiple=settings.multiple)]
        if valid:
            rows.append(leakage_row(run, settings.runs_folder / run.name, valid, settings, device))
    if not rows:
        raise UserError(f"multiple = {settings.multiple} was not measured in {settings.stitching}")
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            figure = scatter(rows, settings.multiple)
            save_figure(figure, settings.out / "leakage.png", dpi=160)
            save_figure(figure, settings.out / "leakage.svg", metadata={"Date": None})
    return {
        "config": {name: getattr(settings, name) for name in ("multiple", "times", "seed")},
        "rows": rows,
        "summary": summarize(rows),
    }


def leakage_row(
    run: FactorRun, folder: Path, valid: Sequence[float], settings: LeakageSettings, device: torch.device
) -> dict[str, Any]:
    """One planner: what its norms leak, and what its plans are worth."""
    horizon = RunFolder(folder).config().data.horizon
    network, inputs = planner_inputs(folder, length=settings.multiple * horizon, seed=settings.seed, device=device)
    report: AuditReport = audit(
        network, inputs, times=settings.times, attribution=False, dtype=torch.float64, seed=settings.seed
    )
    leakage, moved = report.leakage, [m.value for m in report.finite if m.value is not None]
    return {
        "run": run.name,
        "norm": run.norm,
        "padding": run.padding,
        "field": run.field,
        "seed": run.seed,
        "length": settings.multiple * horizon,
        "receptive_field": list(report.receptive_field),
        "leakage": None if leakage is None else leakage.value,
        "standard_error": None if leakage is None else leakage.standard_error,
        "jacobian_change": report.jacobian_change.value,
        "movement": float(np.mean(moved)) if moved else None,
        "leaking_modules": len(report.leaking_modules),
        "held_out_valid": float(np.mean(valid)),
        "held_out_plans": len(valid),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per norm the mean leakage and validity with 95 % intervals over seeds, each the mean over its cells.

    Where the validity of all seeds agrees, its interval is over plans, as everywhere in the stitching study.
    """
    summary = {}
    for norm in dict.fromkeys(row["norm"] for row in rows):
        own = [row for row in rows if row["norm"] == norm and row["leakage"] is not None]
        by_seed = [[row for row in own if row["seed"] == seed] for seed in sorted({row["seed"] for row in own})]
        if by_seed:
            names = ("leakage", "jacobian_change", "movement")
            summary[norm] = {
                name: student_interval([np.mean([row[name] for row in one]) for one in by_seed]) for name in names
            }
            plans = [[valid for row in one for valid in _plans(row)] for one in by_seed]
            summary[norm]["held_out_valid"] = interval_over_seeds(plans, share=True)
    return summary


def _plans(row: dict[str, Any]) -> list[float]:
    """One number per held-out plan of a run: 1 if it was valid."""
    valid = round(row["held_out_valid"] * row["held_out_plans"])
    return [1.0] * valid + [0.0] * (row["held_out_plans"] - valid)


def scatter(rows: Sequence[dict[str, Any]], multiple: int) -> Figure:
    """Leakage against validity, one point per trained planner."""
    figure = Figure(figsize=(6.4, 4.0))
    ax = figure.subplots()
    for norm in LEGEND:
        own = [row for row in rows if row["norm"] == norm and row["leakage"] is not None]
        if own:
            ax.errorbar(
                [row["leakage"] for row in own],
                [100 * row["held_out_valid"] for row in own],
                xerr=[row["standard_error"] or 0 for row in own],
                fmt=NORM_TABLE[norm].marker,
                color=NORM_TABLE[norm].color,
                ms=6,
                lw=0.8,
                alpha=0.8,
                label=norm,
            )
    ax.set_xscale("symlog", linthresh=LINEAR_BELOW)
    ax.set_xlim(left=-LINEAR_BELOW / 5)
    ax.set(
        xlabel="leakage (share of the Jacobian's energy)",
        ylim=(-3, 103),
        ylabel=f"valid plans on held-out tasks, %\n({multiple} × the training horizon)",
    )
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
