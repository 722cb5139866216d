"""The stitching study as a section, out of its stored rows: one factor at a time, intervals over training seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundwork.files import write_atomically
from groundwork.intervals import HOW
from groundwork.section import Picture, Section, counted, listed, row_facts
from groundwork.tables import Cell, Table, interval_text, measured, number
from norm_study.stitching.cells import FactorRun, Reach
from norm_study.stitching.effects import FACTORS, chosen_rows, effects, explained, multiples_of
from norm_study.stitching.figures import FIGURES, base_cell, draw_study
from norm_study.stitching.grid import Stored
from norm_study.stitching.summary import FLAWS, GAP_MEASURES, MEASURES, interval, study_cell, summarize

TABLE_MEASURES = (
    "success",
    "plan_valid",
    *FLAWS,
    "longest_step",
    "end_gap",
    "single_valid",
    "any_valid",
    "single_success",
    "best_success",
)
LONGEST_SENTENCE = 8
TWO_BY_TWO = (
    ("instance", "yes", "yes"),
    ("channel", "yes", "no"),
    ("packnorm_isolated", "no", "yes"),
    ("instance_isolated", "no", "no"),
    ("group", "yes", "yes"),
    ("none", "yes", "no"),
)
"""(norm, convolutions cross the middle, norm crosses the middle)."""


def cells_of(stored: Stored) -> list[tuple[str, str, Reach]]:
    """The (norm, padding, reach) of the stored runs, in their order."""
    return list(dict.fromkeys((run.norm, run.padding, run.reach) for run, _ in stored))


def factor_table(stored: Stored) -> Table:
    """One line per cell, multiple and split."""
    lines = []
    for cell in cells_of(stored):
        for multiple in multiples_of(stored):
            for split in ("demonstrated", "held_out"):
                rows = chosen_rows(stored, _is(*cell), split=split, multiple=multiple)
                if not rows:
                    continue
                cells = [study_cell(interval(rows, name), name) for name in TABLE_MEASURES]
                seeds = str(len({row["run"] for row in rows}))
                lines.append([*cell, f"{multiple}×", split.replace("_", " "), seeds, *cells])
    columns = ["norm", "padding", "reach", "horizon", "split", "seeds", *TABLE_MEASURES]
    return Table(columns, lines, "Every cell", f"Means with {HOW}.")


def _is(norm: str, padding: str, reach: str) -> Callable[[FactorRun], bool]:
    return lambda run: (run.norm, run.padding, run.reach) == (norm, padding, reach)


def family_table(stored: Stored) -> Table:
    """Success and validity by family of tasks, where only the norm differs: on which tasks success hides a bad plan."""
    lines = []
    for run in {run.norm: run for run, _ in base_cell(stored)}.values():
        for multiple in multiples_of(stored):
            rows = chosen_rows(stored, _is(run.norm, run.padding, run.reach), multiple=multiple)
            for family in dict.fromkeys(row["family"] for row in rows):
                own = [row for row in rows if row["family"] == family]
                cells = [study_cell(interval(own, name), name) for name in ("success", "plan_valid", "wall_contact")]
                lines.append([run.norm, f"{multiple}×", family, own[0]["split"].replace("_", " "), *cells])
    columns = ["norm", "horizon", "family", "split", "success", "plan_valid", MEASURES["wall_contact"].label]
    return Table(columns, lines, "By family of tasks")


def gap_table(stored: Stored) -> Table:
    """Demonstrated minus held out, per cell and multiple."""
    lines = []
    for cell in cells_of(stored):
        rows = chosen_rows(stored, _is(*cell))
        if not rows:
            continue
        summary = summarize(rows)
        for multiple, splits in summary["by_horizon"].items():
            gaps = [study_cell(splits["gap"][name], name, " points") for name in GAP_MEASURES]
            lines.append([*cell, f"{multiple}×", *gaps])
    columns = ["norm", "padding", "reach", "horizon", *GAP_MEASURES]
    return Table(columns, lines, "Compositionality gap (demonstrated minus held out)")


def effects_table(validity: Sequence[Mapping[str, Any]], successes: Sequence[Mapping[str, Any]]) -> Table:
    """:func:`norm_study.stitching.effects.effects` on held-out validity and on success."""
    lines = []
    for valid, success in zip(validity, successes, strict=True):
        which = [f"{valid['level']} against {valid['against']}", valid["within"], f"{valid['multiple']}×"]
        counts = [str(valid["cells"]), f"{valid['n']} {valid['over']}"]
        effect = [study_cell(valid, "plan_valid", " points"), study_cell(success, "success", " points")]
        lines.append([valid["factor"], *which, *counts, *effect])
    about = ["factor", "level against", "within", "horizon", "cells", "validity over"]
    return Table([*about, "held-out validity", "held-out success"], lines, "Effect of each factor")


def explained_table(stored: Stored) -> Table:
    """:func:`norm_study.stitching.effects.explained` on held-out validity and success."""
    names = [*FACTORS, "interactions"]
    lines = []
    for what, measure in (("validity", "plan_valid"), ("success", "success")):
        for entry in explained(stored, measure):
            levels = [", ".join(entry[name]) for name in ("norms", "paddings", "reaches")]
            cells = [measured(entry[name], ".0f", " %") if name in entry else "–" for name in names]
            lines.append([what, f"{entry['multiple']}×", *levels, *cells])
    columns = ["held-out", "horizon", "norms", "paddings", "reaches", *names]
    return Table(columns, lines, "Share of the variance between cells")


def two_by_two(stored: Stored) -> Table:
    """Convolution path × norm path, at the first padding and reach."""
    measures = ("success", "plan_valid", "longest_step")
    head = [f"{split} {name}" for split in ("demonstrated", "held-out") for name in measures]
    lines = []
    first = cells_of(stored)[0]
    for norm, convolutions, by_norm in TWO_BY_TWO:
        for multiple in multiples_of(stored):
            cells: list[Cell] = []
            for split in ("demonstrated", "held_out"):
                rows = chosen_rows(stored, _is(norm, *first[1:]), split=split, multiple=multiple)
                cells += [study_cell(interval(rows, name), name) if rows else "–" for name in measures]
            if any(cell != "–" for cell in cells):
                lines.append([norm, convolutions, by_norm, f"{multiple}×", *cells])
    columns = ["norm", "convolutions cross", "norm crosses", "horizon", *head]
    return Table(columns, lines, "Convolution path and norm path")


def facts_table(stored: Stored) -> Table:
    """Size, speed and steadiness of each cell's training."""
    names = ("parameters", "steps_per_second", "final_loss", "largest_mean_gradient")
    lines = []
    for cell in cells_of(stored):
        facts = [result["facts"][0] for run, result in stored if _is(*cell)(run)]
        means = [sum(fact[name] for fact in facts) / len(facts) for name in names]
        reach = f"−{facts[0]['reach'][0]} … +{facts[0]['reach'][1]}"
        lines.append([*cell, reach, f"{means[0]:,.0f}", *map(number, means[1:])])
    return Table(["norm", "padding", "reach", "points", *names], lines, "Size, speed, steadiness")


def write_study(stored: Stored, asked: int, out: Path, command: str) -> Path:
    """Writes the section (``section.json``, ``tables.md``), numbers (``summary.json``) and figures.

    Args:
        stored: the finished runs, at least one.
        asked: how many the grid has.
        out: the folder to write to.
        command: what made them, for the page.

    Returns:
        The path of the tables.
    """
    cells = {"-".join(cell): summarize(rows) for cell in cells_of(stored) if (rows := chosen_rows(stored, _is(*cell)))}
    summary = {"effects": effects(stored), "explained": explained(stored), "cells": cells}
    section = study_section(stored, summary, f"{len(stored)} of {asked} runs of this grid are stored", command)
    write_atomically(out / "summary.json", json.dumps(summary, allow_nan=False) + "\n")
    draw_study(stored, out)
    section.write(out)
    write_atomically(out / "tables.md", section.markdown())
    return out / "tables.md"


def study_section(stored: Stored, summary: Mapping[str, Any], how_many: str, command: str) -> Section:
    """What a study found.

    Args:
        stored: its finished runs, at least one.
        summary: what ``summary.json`` holds.
        how_many: runs there are, as the beginning of a sentence.
        command: that made it, or nothing.
    """
    seconds = sum(result["facts"][0]["training_seconds"] + result["config"]["seconds"] for _, result in stored)
    tables = [
        effects_table(summary["effects"], effects(stored, "success")),
        *([explained_table(stored)] if summary["explained"] else []),
        factor_table(stored),
        family_table(stored),
        gap_table(stored),
        two_by_two(stored),
        facts_table(stored),
    ]
    facts = row_facts([result["config"] for _, result in stored], [result["config"]["seed"] for _, result in stored])
    return Section(
        "Stitching",
        f"{counted(len(summary['cells']), 'cell')}. Valid plans on held-out tasks: {_headline(summary['cells'])}.",
        [
            f"{how_many}; training and measuring took {seconds / 60:.0f} minutes, one run after another. Best of N "
            "(*any valid*, *best success*) is measured on fewer episodes; *single* is one plan on the same ones."
        ],
        tables=tables,
        pictures=[Picture(f"{name}.png", caption) for name, (_, caption) in FIGURES.items()],
        facts={
            **{name.replace("seeds", "rollout seeds"): value for name, value in facts.items()},
            "runs": listed([run.name for run, _ in stored]),
        },
        commands=[command] if command else [],
        data=["summary.json"],
    )


def _headline(cells: Mapping[str, Any]) -> str:
    """Validity on held-out tasks at the longest horizon, cell by cell as far as one sentence carries."""
    only_norms = len({name.partition("-")[2] for name in cells}) == 1
    shown = []
    for name, splits in list(cells.items())[:LONGEST_SENTENCE]:
        multiple, last = list(splits["by_horizon"].items())[-1]
        norm = name.partition("-")[0] if only_norms else name
        shown.append(f"{norm} {interval_text(last['held_out']['plan_valid'], '.0f', ' %')} at {multiple}×")
    return "; ".join(shown) + ("; …" if len(cells) > LONGEST_SENTENCE else "")
