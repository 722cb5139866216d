"""Equal chances: does longer training, another width, prediction or group count change what a norm leaves of stitching?

One setting at a time is changed from those of the grid, where everything else stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from groundwork.answers import Answers
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import student_interval
from groundwork.jobs import Executor, run_jobs
from groundwork.section import Picture, Section, counted
from groundwork.style import legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table, measured
from norm_study.stitching.cells import Change, FactorRun
from norm_study.stitching.grid import Budget, answers_in, measured_after
from norm_study.stitching.summary import countable, interval, study_cell
from planner.config import Config
from planner.norms import NORM_TABLE, NormKind
from planner.renamed import RENAMED

UNCHANGED = "as in the grid"
CHANGES: dict[Change, Callable[[Config], Config]] = {
    "steps-x4": lambda base: replace(base, steps=4 * base.steps),
    "steps-x10": lambda base: replace(base, steps=10 * base.steps),
    "width-x2": lambda base: replace(base, model=replace(base.model, dim=2 * base.model.dim)),
    "noise": lambda base: replace(base, diffusion=replace(base.diffusion, prediction="noise")),
    "groups-1": lambda base: replace(base, model=replace(base.model, norm_groups=1)),
    "groups-4": lambda base: replace(base, model=replace(base.model, norm_groups=4)),
    "groups-32": lambda base: replace(base, model=replace(base.model, norm_groups=32)),
}
"""What one change makes of the settings of the grid."""
ASKED: list[tuple[Change, tuple[NormKind, ...]]] = [
    ("steps-x4", ("group", "channel")),
    ("groups-1", ("group",)),
    ("groups-4", ("group",)),
    ("groups-32", ("group",)),
    ("noise", ("group", "channel")),
    ("width-x2", ("group", "channel")),
    ("steps-x4", ("none", "rms")),
    ("steps-x10", ("group", "channel")),
]
"""Which norms get which change, the ones that decide first."""
TITLES: dict[str, str] = {
    UNCHANGED: UNCHANGED,
    "steps-x4": "4 times the steps",
    "steps-x10": "10 times the steps",
    "width-x2": "twice the width",
    "noise": "noise predicted",
    "groups-1": "1 group",
    "groups-4": "4 groups",
    "groups-32": "32 groups",
}
SPLITS = ("held_out", "demonstrated")
CAPTION = (
    "Valid plans with one setting changed. Intervals: 95 %, over training seeds where there are three, else over "
    "episodes."
)
LOSSES = (
    "Intervals as in the figure; of losses Student's over seeds. Where noise is predicted, the loss is that of the "
    "noise, and compares with no other."
)


@dataclass(frozen=True)
class Chance:
    """A planner of the grid's reference cell with one setting changed, at one training seed."""

    change: str
    norm: NormKind
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder and its rows."""
        return f"{self.norm}-{self.change}-seed{self.seed}"

    def config(self, base: Config) -> Config:
        """Its settings."""
        changed = base if self.change == UNCHANGED else CHANGES[self.change](base)  # type: ignore[index]
        config = FactorRun(self.norm, "zeros", "half", self.seed).config(changed, {})
        config.model.check()
        return config


Found = list[tuple[Chance, dict[str, Any]]]
"""Finished runs with their ``rows`` and ``facts``."""


def chances_of(norms: Sequence[str], changes: Sequence[str], seeds: int) -> list[Chance]:
    """What the suite trains, the ones that decide first."""
    return [
        Chance(change, norm, seed)
        for change, its in ASKED
        for norm in its
        for seed in range(seeds)
        if change in changes and norm in norms
    ]


def _question(chance: Chance, budget: Budget) -> dict[str, Any]:
    return {"change": chance.change, "config": chance.config(budget.base), "measured": budget.measured}


def _store(out: Path) -> Answers:
    return Answers(out / "chances", RENAMED, _label, compressed=True)


def _label(question: Any) -> str:
    config = question["config"]
    return Chance(question["change"], config["model"]["norm"], config["seed"]).name


def run_chances(
    chances: Sequence[Chance], out: Path, budget: Budget, executor: Executor, runs_folder: Path, device: str
) -> None:
    """Trains and measures what is not yet finished.

    Args:
        chances: what is changed for which norm, at which seed.
        out: rows go to ``out/chances``.
        budget: the grid's, before anything is changed.
        executor: where the runs are trained and measured.
        runs_folder: where run folders are kept.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: a run failed; the others are finished first.
    """
    store = _store(out)
    asked = [(_question(chance, budget), runs_folder / chance.name) for chance in chances]
    jobs = [job for question, folder in asked for job in measured_after(store, question, folder, device)]
    run_jobs(jobs, executor, "equal chances")


def found_chances(chances: Sequence[Chance], out: Path, budget: Budget) -> Found:
    """What is stored of these, behind the same norms and seeds with nothing changed, as far as the grid has them."""
    store, grid = _store(out), answers_in(out)
    norms = dict.fromkeys(chance.norm for chance in chances)
    plain = [Chance(UNCHANGED, norm, seed) for norm in norms for seed in range(1 + max(c.seed for c in chances))]
    found = [(one, grid.find({"config": one.config(budget.base), "measured": budget.measured})) for one in plain]
    found += [(one, store.find(_question(one, budget))) for one in chances]
    return [(one, answer) for one, answer in found if answer is not None]


def write_chances(found: Found, asked: int, out: Path, command: str) -> Path:
    """Writes table, section and figure; returns the table's path."""
    save_figure(chances_figure(found), out / "chances.png", dpi=150)
    changed = sum(chance.change != UNCHANGED for chance, _ in found)
    section = Section(
        "Equal chances",
        "Plans of the grid's reference cell with one setting changed.",
        [f"{changed} of {counted(asked, 'run')} are stored."],
        tables=[chances_table(found)],
        pictures=[Picture("chances.png", CAPTION)],
        notes=[LOSSES],
        commands=[command] if command else [],
    )
    write_atomically(out / "chances.md", section.write(out, "chances").markdown())
    return out / "chances.md"


def _cells(found: Found) -> list[tuple[str, NormKind]]:
    """Change and norm, unchanged first, in the order of :data:`TITLES`."""
    there = {(chance.change, chance.norm) for chance, _ in found}
    return [(change, norm) for change in TITLES for norm in NORM_TABLE if (change, norm) in there]


def _own(found: Found, cell: tuple[str, NormKind]) -> list[dict[str, Any]]:
    return [answer for chance, answer in found if (chance.change, chance.norm) == cell]


def _interval(found: Found, cell: tuple[str, NormKind], split: str, multiple: int, name: str) -> Mapping[str, Any]:
    rows = [row for answer in _own(found, cell) for row in countable(answer["rows"], split=split, multiple=multiple)]
    return interval(rows, name)


def _multiples(found: Found) -> list[int]:
    return sorted({row["multiple"] for _, answer in found for row in answer["rows"]})


def chances_table(found: Found) -> Table:
    """One line per change and norm."""
    columns = [
        (split, multiple, name)
        for split, name in (*((split, "plan_valid") for split in SPLITS), ("held_out", "success"))
        for multiple in _multiples(found)
    ]
    lines: list[list[Cell]] = []
    for cell in _cells(found):
        losses = student_interval([answer["facts"][0]["final_loss"] for answer in _own(found, cell)])
        values = [study_cell(_interval(found, cell, *column), column[-1]) for column in columns]
        lines.append([TITLES[cell[0]], cell[1], str(len(_own(found, cell))), measured(losses, ".4f"), *values])
    names = [
        f"{split.replace('_', '-')} {'valid' if name == 'plan_valid' else name} {multiple}×"
        for split, multiple, name in columns
    ]
    return Table(["changed", "norm", "seeds", "training loss", *names], lines)


def chances_figure(found: Found) -> Figure:
    """Valid plans by change: a row per split, a column per multiple of the horizon, norms by their own looks."""
    multiples, cells = _multiples(found), _cells(found)
    changes = list(dict.fromkeys(change for change, _ in cells))
    norms = [norm for norm in NORM_TABLE if any(norm == its for _, its in cells)]
    figure = Figure(figsize=(0.6 * len(changes) * len(multiples) + 3, 5.2), layout="constrained")
    axes = figure.subplots(len(SPLITS), len(multiples), squeeze=False, sharex=True, sharey=True)
    for row, split in zip(axes, SPLITS, strict=True):
        for axis, multiple in zip(row, multiples, strict=True):
            for at, norm in enumerate(norms):
                own = [cell for cell in cells if cell[1] == norm]
                places = np.array([changes.index(change) for change, _ in own]) + 0.18 * (at - (len(norms) - 1) / 2)
                values = [_interval(found, cell, split, multiple, "plan_valid") for cell in own]
                look = {"color": NORM_TABLE[norm].color, "marker": NORM_TABLE[norm].marker, "ls": "none"}
                plot_intervals(axis, places, values, label=norm, **look)
            axis.set(ylim=(-4, 104), xlim=(-0.6, len(changes) - 0.4))
        row[0].set_ylabel(f"{split.replace('_', ' ')},\nvalid plans (%)")
    for axis, multiple in zip(axes[0], multiples, strict=True):
        axis.set_title(f"{multiple}× training horizon")
    for axis in axes[-1]:
        axis.set_xticks(range(len(changes)), [TITLES[change] for change in changes], rotation=35, ha="right")
    open_axes(axes.flat)
    legend_outside(figure, axes[0, 0])
    return figure
