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
from groundwork.section import Picture, Section, counted
from groundwork.style import legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table, measured
from norm_study.stitching.cells import FactorRun
from norm_study.stitching.grid import Budget, answers_in
from norm_study.stitching.summary import countable, interval, study_cell
from planner.config import Config
from planner.norms import NORM_TABLE, NormKind
from planner.renamed import RENAMED

UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Changed:
    """What one change makes of the grid's settings.

    Attributes:
        title: what a reader calls it.
        norms: which get it.
        apply: the grid's settings → its own.
    """

    title: str
    norms: tuple[NormKind, ...]
    apply: Callable[[Config], Config]


def _of_model(**values: Any) -> Callable[[Config], Config]:
    return lambda base: replace(base, model=replace(base.model, **values))


POOLED: tuple[NormKind, ...] = ("group",)
BOTH: tuple[NormKind, ...] = ("group", "channel")
CHANGES: dict[str, Changed] = {
    UNCHANGED: Changed("as in the grid", (), lambda base: base),
    "steps-x4": Changed("4 times the steps", (*BOTH, "none", "rms"), lambda base: replace(base, steps=4 * base.steps)),
    "groups-1": Changed("1 group", POOLED, _of_model(norm_groups=1)),
    "groups-4": Changed("4 groups", POOLED, _of_model(norm_groups=4)),
    "groups-32": Changed("32 groups", POOLED, _of_model(norm_groups=32)),
    "noise": Changed(
        "noise predicted", BOTH, lambda base: replace(base, diffusion=replace(base.diffusion, prediction="noise"))
    ),
    "width-x2": Changed("twice the width", BOTH, lambda base: _of_model(dim=2 * base.model.dim)(base)),
    "steps-x10": Changed("10 times the steps", BOTH, lambda base: replace(base, steps=10 * base.steps)),
    "conditioned": Changed("conditioned norm", (*BOTH, "rms", "dyt"), _of_model(norm_conditioned=True)),
}
"""Every change by the name that the command has for it, the ones that decide first."""
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
        return FactorRun(self.norm, "zeros", "half", self.seed).config(CHANGES[self.change].apply(base), {})


Found = list[tuple[Chance, dict[str, Any]]]
"""Finished runs with their ``rows`` and ``facts``."""


def chances_of(norms: Sequence[str], changes: Sequence[str], seeds: int) -> list[Chance]:
    """What the suite trains, the ones that decide first."""
    return [
        Chance(name, norm, seed)
        for name, change in CHANGES.items()
        for norm in change.norms
        for seed in range(seeds)
        if name in changes and norm in norms
    ]


def chance_question(chance: Chance, budget: Budget) -> dict[str, Any]:
    """What a stored answer must have been asked; the budget is the grid's, before anything is changed."""
    return {"change": chance.change, "config": chance.config(budget.base), "measured": budget.measured}


def chances_in(out: Path) -> Answers:
    """The store of the suite's measured runs."""
    return Answers(out / "chances", RENAMED, _label, compressed=True)


def _label(question: Any) -> str:
    config = question["config"]
    return Chance(question["change"], config["model"]["norm"], config["seed"]).name


def found_chances(chances: Sequence[Chance], out: Path, budget: Budget) -> Found:
    """What is stored of these, behind the same norms and seeds with nothing changed, as far as the grid has them."""
    store, grid = chances_in(out), answers_in(out)
    norms = dict.fromkeys(chance.norm for chance in chances)
    plain = [Chance(UNCHANGED, norm, seed) for norm in norms for seed in range(1 + max(c.seed for c in chances))]
    found = [(one, grid.find({"config": one.config(budget.base), "measured": budget.measured})) for one in plain]
    found += [(one, store.find(chance_question(one, budget))) for one in chances]
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
    """Change and norm, unchanged first, in the order of :data:`CHANGES`."""
    there = {(chance.change, chance.norm) for chance, _ in found}
    return [(change, norm) for change in CHANGES for norm in NORM_TABLE if (change, norm) in there]


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
        lines.append([CHANGES[cell[0]].title, cell[1], str(len(_own(found, cell))), measured(losses, ".4f"), *values])
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
    figure = Figure(figsize=(max(2.2, 0.6 * len(changes)) * len(multiples) + 3, 5.2), layout="constrained")
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
        axis.set_xticks(range(len(changes)), [CHANGES[change].title for change in changes], rotation=35, ha="right")
    open_axes(axes.flat)
    legend_outside(figure, axes[0, 0])
    return figure
