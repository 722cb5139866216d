"""Training runs as one section of a report: settings, curves laid over each other, stored rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from groundwork.errors import UserError
from groundwork.intervals import mean_interval
from groundwork.page import figure_bytes
from groundwork.section import Picture, Section, command_text, counted, listed, origin_facts, read_stored
from groundwork.style import PALETTE, STYLE
from groundwork.tables import Table
from planner.comparison.run_facts import LAST_ROWS, norm_label, run_facts
from planner.config import Config
from planner.measures import MEASURES, held
from planner.norms import in_legend_order
from planner.training.run import RunFolder

LOSS = f"Loss: mean of the last {LAST_ROWS} logged rows."


def runs_section(runs: Sequence[RunFolder]) -> Section:
    """All runs of a report.

    Raises:
        UserError: a damaged run.
    """
    configs = [run.config() for run in runs]
    origins = [_origin(run.path) for run in runs]
    try:
        facts = [run_facts(run) for run in runs]
        tables = [Table(list(facts[0]), [list(one.values()) for one in facts], "Runs", LOSS)]
        rollouts = _rollouts(runs, configs)
        metrics = [run.metrics() for run in runs]
        pictures = [_curves(configs, metrics)] if any(metrics) else []
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"a run of {', '.join(str(run.path) for run in runs)} cannot be read ({error!r})") from error
    told = [origin_facts(origin) for origin in origins]
    shared = {
        name: listed([one[name] for one in told if name in one])
        for name in dict.fromkeys(name for one in told for name in one)
        if name not in ("seed", "commit")
    }
    done = sum(run.done for run in runs)
    return Section(
        "Training",
        f"{counted(len(runs), 'run')}, {done} finished; norms {listed([norm_label(config) for config in configs])}.",
        [
            "A lower training loss does not make a better planner. Part of it is information about the whole "
            "trajectory, which a planner that composes pieces should not have."
        ],
        tables=[*tables, *([rollouts] if rollouts else [])],
        pictures=pictures,
        facts=shared,
        commands=[text for origin in origins if (text := command_text(origin))],
        folder=runs[0].path.resolve().parent if len(runs) > 1 else runs[0].path,
    )


def _origin(path: Path) -> dict[str, Any]:
    file = path / "provenance.json"
    return read_stored(file) if file.is_file() else {}


def _curves(configs: Sequence[Config], metrics: Sequence[Sequence[dict[str, Any]]]) -> Picture:
    """Training and validation loss against steps, a color per norm, a line per run."""
    norms = in_legend_order({norm_label(config) for config in configs})
    names = [
        name
        for name in ("loss", "validation_loss")
        if any(row.get(name) is not None for rows in metrics for row in rows)
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1 * len(names), 3.4))
        axes = figure.subplots(1, len(names), squeeze=False, sharex=True, sharey=True)[0]
        for axis, name in zip(axes, names, strict=True):
            for config, rows in zip(configs, metrics, strict=True):
                points = [(row["step"], row[name]) for row in rows if _drawable(row.get(name))]
                color = PALETTE[norms.index(norm_label(config)) % len(PALETTE)]
                axis.plot(
                    *np.array(points).reshape(-1, 2).T,
                    color=color,
                    lw=1.1,
                    alpha=0.8,
                    marker="o" if len(points) < 12 else "",
                    ms=3,
                )
            axis.set(xlabel="optimizer steps", yscale="log", title=name.replace("_", " "))
        axes[0].set_ylabel("loss")
        lines = [
            mpl.lines.Line2D([], [], color=PALETTE[at % len(PALETTE)], label=norm) for at, norm in enumerate(norms)
        ]
        figure.legend(handles=lines, loc="outside upper center", ncols=min(len(norms), 5))
        content = figure_bytes(figure)
    return Picture("curves.svg", "Training curves: a line per run, a color per norm.", content=content)


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _rollouts(runs: Sequence[RunFolder], configs: Sequence[Config]) -> Table | None:
    """Stored rollouts: a row per run, question and split."""
    kept = [
        (run, config, read_stored(file))
        for run, config in zip(runs, configs, strict=True)
        for file in sorted((run.path / "rollouts").glob("*.json"))
    ]
    names = [name for name in held(row for *_, answer in kept for row in answer["rows"]) if MEASURES[name].column]
    rows = []
    for run, config, answer in kept:
        for split in dict.fromkeys(row["split"] for row in answer["rows"]):
            episodes = [row for row in answer["rows"] if row["split"] == split]
            cells = [MEASURES[name].cell(mean_interval([row.get(name) for row in episodes])) for name in names]
            points = answer["question"]["settings"].get("horizon") or config.data.horizon
            about = [run.path.resolve().name, norm_label(config), split.replace("_", " "), str(points)]
            rows.append([*about, *cells, str(len(episodes))])
    if not rows:
        return None
    head = ["run", "norm", "tasks", "points", *names, "episodes"]
    return Table(head, rows, "Rollouts", "Means with 95 % intervals over episodes.")
