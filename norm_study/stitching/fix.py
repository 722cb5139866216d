"""The fix for a trained planner whose norm leaks: exchange the norm, fine-tune, and see when stitching comes back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from groundwork.answers import Answers
from groundwork.files import save_figure, write_atomically
from groundwork.jobs import Executor, Job, run_jobs
from groundwork.section import Picture, Section
from groundwork.style import PALETTE, legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table
from norm_study.stitching.measurement import stitch_rows
from norm_study.stitching.settings import StitchSettings
from norm_study.stitching.summary import Rows, countable, interval, study_cell
from planner.config import Config
from planner.norms import NormKind
from planner.renamed import RENAMED
from planner.training.find import find_run
from planner.training.run import RunFolder
from planner.training.train import train_job

FINE_TUNING_RATE = 1e-3
HOW = "All stages but the first two are checkpoints of one training, whose learning rate falls along one cosine."
CONTROL = (
    "From scratch: the control, a network of the new norm that begins without the old weights, everything else equal."
)
EXCHANGED, SCRATCH = "exchanged", "from scratch"
LOOKS: dict[str, dict[str, Any]] = {EXCHANGED: {}, SCRATCH: {"ls": "--", "markerfacecolor": "none"}}
"""How the lines of a figure differ."""


@dataclass(frozen=True)
class Fix:
    """What is exchanged in which run, and when it is measured.

    Attributes:
        source: a finished run's folder, or the name of a shipped planner.
        to: the norm that replaces its own; weights that both have are carried over.
        steps: of fine-tuning, at a peak learning rate of 1e-3 with a cosine.
        every: steps between measurements.
        measured: settings of the measurement.
    """

    source: str
    to: NormKind
    steps: int
    every: int
    measured: StitchSettings

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{Path(self.source).name}-to-{self.to}"

    def config(self, steps: int) -> Config:
        """The settings of a fine-tuning of this many steps."""
        before = find_run(self.source).config()
        return replace(
            before,
            model=replace(before.model, norm=self.to),
            init_from=self.source,
            steps=steps,
            learning_rate=FINE_TUNING_RATE,
            evaluate_every=0,
            checkpoint_every=self.every,
            keep_checkpoints=0,
        )

    def stages(self, runs_folder: Path) -> Iterator[tuple[str, int | None, Config, Path, int]]:
        """How it began, steps spent, and the config, folder and checkpoint of the run that is measured then."""
        source, config = find_run(self.source), self.config(self.steps)
        yield EXCHANGED, None, source.config(), source.path, _step(source)
        yield EXCHANGED, 1, self.config(1), runs_folder / f"{self.name}-exchanged", 1
        for step in sorted({*range(self.every, self.steps + 1, self.every), self.steps}):
            yield EXCHANGED, step, config, runs_folder / self.name, step
            yield SCRATCH, step, replace(config, init_from=""), runs_folder / f"{self.name}-scratch", step


def _step(folder: RunFolder) -> int:
    return int(folder.checkpoint().name.removeprefix("step_"))


def fix_rows(fixes: Sequence[Fix], out: Path, executor: Executor, runs_folder: Path, device: str) -> Rows:
    """Measures runs before their norm is exchanged and again and again during the training after, with its control.

    Args:
        fixes: what is exchanged.
        out: rows of each stage are kept in ``out/fix``.
        executor: where trainings and measurements run.
        runs_folder: where the fine-tuned runs are kept; they resume.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The rows of :func:`norm_study.stitching.measurement.stitch_rows` with ``source``, ``how`` (``exchanged`` or
        ``from scratch``) and ``steps_spent``: ``None`` before the exchange, 1 right after it (one step, at a hundredth
        of the rate).

    Raises:
        UserError: no such run, or settings out of range.
    """
    store = Answers(out / "fix", RENAMED)
    jobs: dict[str, Job] = {}
    asked = []
    for fix in fixes:
        for how, spent, config, folder, step in fix.stages(runs_folder):
            question = {"config": config, "run": folder.name, "step": step, "measured": fix.measured}
            training = train_job(config, folder, device) if spent else None
            work = partial(_stage, folder, fix.measured, device, step)
            measuring = store.job(question, work, after=training.name if training else None)
            jobs |= {job.name: job for job in (training, measuring) if job}
            about = {"how": how, "steps_spent": spent, "source": Path(fix.source).name, "run_seed": config.seed}
            asked.append((question, about))
    run_jobs(list(jobs.values()), executor, "fix")
    return [row | about for question, about in asked for row in store[question]["rows"]]


def _stage(folder: Path, settings: StitchSettings, device: str, step: int) -> dict[str, Rows]:
    return {"rows": stitch_rows(folder, settings, device, step)}


def write_fix(rows: Rows, out: Path, command: str) -> Path:
    """Rows, section, table and figure of the recovery; returns the table's path."""
    write_atomically(out / "fix.json.gz", gzip.compress(json.dumps(rows).encode(), mtime=0))
    save_figure(fix_figure(rows), out / "fix.png", dpi=150)
    write_atomically(out / "fix.md", fix_section(rows, command).write(out, "fix").markdown())
    return out / "fix.md"


def fix_section(rows: Rows, command: str = "") -> Section:
    """What became of the plans."""
    return Section(
        "Fix",
        "A trained planner's norm exchanged and fine-tuned: valid plans and success against steps spent.",
        tables=[fix_table(rows)],
        pictures=[Picture("fix.png", "Valid plans against steps of fine-tuning after the norm's exchange.")],
        notes=[HOW, *([CONTROL] if any(how == SCRATCH for how, _ in _stages(rows)) else [])],
        commands=[command] if command else [],
        data=["fix.json.gz"],
    )


Stage = tuple[str, int | None]
"""How it began, and steps spent."""


def _stage_of(row: dict[str, Any]) -> Stage:
    return row.get("how", EXCHANGED), row["steps_spent"]  # rows of earlier days have no control


def _stages(rows: Rows) -> list[Stage]:
    return sorted(dict.fromkeys(map(_stage_of, rows)), key=lambda stage: (stage[0], stage[1] or 0))


def _cell(rows: Rows, stage: Stage, multiple: int, split: str, measure: str) -> dict[str, Any]:
    chosen = countable(rows, split=split, multiple=multiple)
    return interval([row for row in chosen if _stage_of(row) == stage], measure)


def fix_table(rows: Rows) -> Table:
    """Validity and success against steps spent."""
    names = {None: "before the exchange", 1: "1 (exchanged only)"}
    measures = product(
        sorted({row["multiple"] for row in rows}), ("demonstrated", "held_out"), ("plan_valid", "success")
    )
    columns = list(measures)
    lines: list[list[Cell]] = [
        [
            names.get(stage[1], str(stage[1])) + (f", {SCRATCH}" if stage[0] == SCRATCH else ""),
            *(study_cell(_cell(rows, stage, *column), column[-1]) for column in columns),
        ]
        for stage in _stages(rows)
    ]
    return Table(["steps spent", *(f"{m}× {split} {name}" for m, split, name in columns)], lines)


def fix_figure(rows: Rows) -> Figure:
    """Valid plans against steps of fine-tuning, held out and demonstrated, one panel per horizon."""
    multiples = sorted({row["multiple"] for row in rows})
    stages = [(how, spent) for how, spent in _stages(rows) if spent is not None]
    figure = Figure(figsize=(3.6 * len(multiples) + 0.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(multiples), squeeze=False, sharey=True)[0]
    for axis, multiple in zip(axes, multiples, strict=True):
        apart = max(spent for _, spent in stages) / 80  # so that the two intervals of a stage do not hide each other
        for split, color, marker, side in (
            ("held_out", PALETTE[0], "o", apart),
            ("demonstrated", PALETTE[1], "s", -apart),
        ):
            before = _cell(rows, (EXCHANGED, None), multiple, split, "plan_valid")
            if before["mean"] is None:
                continue
            label = split.replace("_", " ")
            for begun, look in LOOKS.items():
                own = [stage for stage in stages if stage[0] == begun]
                places = np.array([spent for _, spent in own]) + side
                cells = [_cell(rows, stage, multiple, split, "plan_valid") for stage in own]
                if own:
                    named = label if begun == EXCHANGED else f"{label}, {begun}"
                    plot_intervals(axis, places, cells, color=color, marker=marker, label=named, **look)
            axis.axhline(100 * before["mean"], color=color, ls=":", lw=1.2, label=f"{label}, before the exchange")
        axis.set(xlabel="optimizer steps", ylim=(-4, 104), title=f"{multiple}× training horizon")
    axes[0].set_ylabel("valid plans (%)")
    open_axes(axes)
    legend_outside(figure, axes[0], "outside upper center", ncols=2)
    return figure
