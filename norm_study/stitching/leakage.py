"""Leakage of the stitching study's trained planners, beside what they make of held-out tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from groundwork.answers import Answers
from groundwork.errors import UserError
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import interval_over_seeds, student_interval
from groundwork.jobs import Executor, Job, run_jobs
from groundwork.options import part_of
from groundwork.section import Picture, Section, counted
from groundwork.style import STYLE
from groundwork.tables import Cell, Table, measured
from norm_study.audit.command import planner_inputs
from norm_study.audit.findings import AuditReport
from norm_study.audit.leakage import audit
from norm_study.stitching.grid import FactorRun, Stored, stored_runs
from norm_study.stitching.settings import AuditedPlans, LeakageSettings
from norm_study.stitching.summary import countable
from planner.device import pick_device
from planner.norms import LEGEND, NORM_TABLE
from planner.renamed import RENAMED
from planner.training.run import RunFolder

LINEAR_BELOW = 1e-4
CAPTION = (
    "Leakage, the share of the Jacobian's energy from beyond the frozen network's receptive field, against valid plans "
    "on held-out tasks; a point is one trained planner. Bars: standard errors of the leakage."
)


def run_leakage(
    settings: LeakageSettings,
    runs: Sequence[FactorRun],
    executor: Executor,
    device_name: str,
    training: Callable[[FactorRun], Job] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Audits the stored runs that are not audited yet; writes section, table and figure to ``settings.out``, if any.

    Args:
        settings: what is asked, and where the runs are.
        runs: which of them.
        executor: where they are audited.
        device_name: ``auto``, ``cpu`` or ``cuda``.
        training: makes the planner of a run whose folder is no longer there.
        command: what made it, for the page.

    Raises:
        UserError: no finished run, or none measured at the asked multiple.
    """
    stored = stored_runs(settings.stitching, runs)
    if not stored:
        raise UserError(f"stitching = {settings.stitching} holds no finished run; norm-study stitch makes them")
    store, asked = _store(settings), part_of(AuditedPlans, settings)
    jobs: list[Job] = []
    for run, question, _ in _measured(settings, stored):
        trained = training(run) if training and store.find(question) is None else None
        work = partial(_audited, run, settings.runs_folder / run.name, asked, pick_device(device_name))
        jobs += [*([trained] if trained else []), store.job(question, work, trained.name if trained else None)]
    run_jobs(jobs, executor, "audits")
    rows = stored_audits(settings, stored)
    if not rows:
        raise UserError(f"multiple = {settings.multiple} was not measured in {settings.stitching}")
    summary = summarize(rows)
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        section = leakage_section(summary, len(rows), settings.multiple, command).write(settings.out, "leakage")
        write_atomically(settings.out / "leakage.md", section.markdown())
        with mpl.rc_context(STYLE):
            figure = scatter(rows, settings.multiple)
            save_figure(figure, settings.out / "leakage.png", dpi=160)
            save_figure(figure, settings.out / "leakage.svg", metadata={"Date": None})
    return {"config": asdict(asked), "rows": rows, "summary": summary}


def leakage_section(summary: Mapping[str, Any], planners: int, multiple: int, command: str) -> Section:
    """Leakage per norm beside the share of valid plans, as data.

    Args:
        summary: of :func:`summarize`.
        planners: how many were audited.
        multiple: of the training horizon, the length of plans.
        command: what made it; empty: not told.
    """
    lines: list[list[Cell]] = [
        [
            norm,
            measured(summary[norm]["leakage"], ".1f", " %"),
            *(
                measured(summary[norm][name], ".3g") if name in summary[norm] else "–"
                for name in ("jacobian_change", "movement")
            ),
            measured(summary[norm]["held_out_valid"], ".0f", " %"),
        ]
        for norm in LEGEND
        if norm in summary
    ]
    columns = ["norm", "leakage", "change of the Jacobian", "movement", f"held-out plans valid, {multiple}×"]
    return Section(
        "Leakage of trained planners",
        "What norms leak, beside what their planners make of tasks that nobody demonstrated.",
        [f"{counted(planners, 'planner')} on their own plans at {multiple} × the training horizon."],
        tables=[Table(columns, lines)],
        pictures=[Picture("leakage.png", CAPTION)],
        commands=[command] if command else [],
    )


def stored_audits(settings: LeakageSettings, stored: Stored) -> list[dict[str, Any]]:
    """What is stored of the audits of these runs, each with the share of its held-out plans that is valid."""
    store = _store(settings)
    found = [(store.find(question), about) for _, question, about in _measured(settings, stored)]
    return [answer["row"] | about for answer, about in found if answer is not None]


def _store(settings: LeakageSettings) -> Answers:
    others = [settings.out] if settings.out is not None else []
    return Answers(settings.stitching / "leakage", RENAMED, _label, others=others)


def _label(question: Any) -> str:
    return question["run"]


def _measured(settings: LeakageSettings, stored: Stored) -> Iterator[tuple[FactorRun, dict[str, Any], dict[str, Any]]]:
    """Each run that was measured at the asked multiple, the question of its audit, and what its row says besides."""
    for run, result in stored:
        chosen = countable(result["rows"], split="held_out", multiple=settings.multiple)
        if valid := [row["plan_valid"] for row in chosen]:
            steps = result["facts"][0]["steps"]
            question = {"leakage": part_of(AuditedPlans, settings), "run": run.name, "steps": steps}
            yield run, question, {"held_out_valid": float(np.mean(valid)), "held_out_plans": len(valid)}


def _audited(run: FactorRun, folder: Path, settings: AuditedPlans, device: torch.device) -> dict[str, Any]:
    """What the norms of one planner leak."""
    horizon = RunFolder(folder).config().data.horizon
    network, inputs = planner_inputs(folder, length=settings.multiple * horizon, seed=settings.seed, device=device)
    report: AuditReport = audit(
        network, inputs, times=settings.times, attribution=False, dtype=torch.float64, seed=settings.seed
    )
    leakage, moved = report.leakage, [m.value for m in report.finite if m.value is not None]
    beyond = report.leakage_beyond(*RunFolder(folder).make_network().receptive_field())
    row = {
        "run": run.name,
        "norm": run.norm,
        "padding": run.padding,
        "reach": run.reach,
        "seed": run.seed,
        "length": settings.multiple * horizon,
        "receptive_field": list(report.receptive_field),
        "leakage": None if leakage is None else leakage.value,
        "beyond_convolutions": None if beyond is None else beyond.value,  # a sliding window widens the receptive field
        "standard_error": None if leakage is None else leakage.standard_error,
        "jacobian_change": report.jacobian_change.value,
        "movement": float(np.mean(moved)) if moved else None,
        "leaking_modules": len(report.leaking_modules),
    }
    return {"row": row}


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per norm the mean leakage and validity with 95 % intervals over seeds, each the mean over its cells.

    Where the validity of all seeds agrees, its interval is over plans, as everywhere in the stitching study.
    """
    summary = {}
    for norm in dict.fromkeys(row["norm"] for row in rows):
        own = [row for row in rows if row["norm"] == norm and row["leakage"] is not None]
        by_seed = [[row for row in own if row["seed"] == seed] for seed in sorted({row["seed"] for row in own})]
        if by_seed:
            # Rows of before the audit told how norms change the Jacobian lack that number.
            names = [name for name in ("leakage", "jacobian_change", "movement") if all(name in row for row in own)]
            summary[norm] = {
                name: student_interval([np.mean([row[name] for row in one]) for one in by_seed]) for name in names
            }
            plans = [[valid for row in one for valid in _plans(row)] for one in by_seed]
            summary[norm]["held_out_valid"] = interval_over_seeds(plans, share=True)
    return summary


def _plans(row: dict[str, Any]) -> list[bool]:
    """Of each held-out plan of a run whether it was valid."""
    valid = round(row["held_out_valid"] * row["held_out_plans"])
    return [True] * valid + [False] * (row["held_out_plans"] - valid)


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
