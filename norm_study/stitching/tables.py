"""The stitching study's tables out of its stored rows: one factor at a time, intervals over training seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundwork.files import write_atomically
from groundwork.tables import interval_text, markdown_table
from norm_study.stitching.effects import FACTORS, chosen_rows, effects, explained, multiples_of
from norm_study.stitching.figures import base_cell, draw_study
from norm_study.stitching.grid import Stored
from norm_study.stitching.measurement import (
    FLAWS,
    GAP_MEASURES,
    SHARES,
    interval,
    summarize,
)
from norm_study.stitching.settings import FactorRun, Field

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
TWO_BY_TWO = (
    ("instance", "yes", "yes"),
    ("channel", "yes", "no"),
    ("packnorm_isolated", "no", "yes"),
    ("instance_isolated", "no", "no"),
    ("group", "yes", "yes"),
    ("none", "yes", "no"),
)
"""(norm, convolutions cross the middle, norm crosses the middle)."""


def cell_text(cell: Mapping[str, Any], measure: str) -> str:
    """A mean with its interval; shares in per cent."""
    return interval_text(cell, ".0f", " %") if measure in SHARES else interval_text(cell)


def cells_of(stored: Stored) -> list[tuple[str, str, Field]]:
    """The (norm, padding, field) of the stored runs, in their order."""
    return list(dict.fromkeys((run.norm, run.padding, run.field) for run, _ in stored))


def factor_table(stored: Stored) -> str:
    """One line per cell, multiple and split."""
    lines = []
    for cell in cells_of(stored):
        for multiple in multiples_of(stored):
            for split in ("demonstrated", "held_out"):
                rows = chosen_rows(stored, _is(*cell), split=split, multiple=multiple)
                if not rows:
                    continue
                cells = [cell_text(interval(rows, name), name) for name in TABLE_MEASURES]
                seeds = str(len({row["run"] for row in rows}))
                lines.append([*cell, f"{multiple}×", split.replace("_", " "), seeds, *cells])
    return markdown_table(["norm", "padding", "field", "horizon", "split", "seeds", *TABLE_MEASURES], lines)


def _is(norm: str, padding: str, field: str) -> Callable[[FactorRun], bool]:
    return lambda run: (run.norm, run.padding, run.field) == (norm, padding, field)


def family_table(stored: Stored) -> str:
    """Success and validity by family of tasks, where only the norm differs: on which tasks success hides a bad plan."""
    lines = []
    for run in {run.norm: run for run, _ in base_cell(stored)}.values():
        for multiple in multiples_of(stored):
            rows = chosen_rows(stored, _is(run.norm, run.padding, run.field), multiple=multiple)
            for family in dict.fromkeys(row["family"] for row in rows):
                own = [row for row in rows if row["family"] == family]
                cells = [cell_text(interval(own, name), name) for name in ("success", "plan_valid", "wall_contact")]
                lines.append([run.norm, f"{multiple}×", family, own[0]["split"].replace("_", " "), *cells])
    titles = ["norm", "horizon", "family", "split", "success", "plan_valid", "time in wall contact"]
    return markdown_table(titles, lines)


def gap_table(stored: Stored) -> str:
    """Demonstrated minus held out, per cell and multiple."""
    lines = []
    for cell in cells_of(stored):
        rows = chosen_rows(stored, _is(*cell))
        if not rows:
            continue
        summary = summarize(rows)
        for multiple, splits in summary["by_horizon"].items():
            gaps = [_signed(splits["gap"][name], name) for name in GAP_MEASURES]
            lines.append([*cell, f"{multiple}×", *gaps])
    return markdown_table(["norm", "padding", "field", "horizon", *GAP_MEASURES], lines)


def _signed(cell: Mapping[str, Any], measure: str) -> str:
    return cell_text(cell, measure).replace(" %", " points")


def effects_table(validity: Sequence[Mapping[str, Any]], successes: Sequence[Mapping[str, Any]]) -> str:
    """:func:`norm_study.stitching.effects.effects` on held-out validity and on success as Markdown."""
    lines = []
    for valid, success in zip(validity, successes, strict=True):
        about = [
            valid["factor"],
            f"{valid['level']} against {valid['against']}",
            valid["within"],
            f"{valid['multiple']}×",
        ]
        counts = [str(valid["cells"]), f"{valid['n']} {valid['over']}"]
        lines.append([*about, *counts, _signed(valid, "plan_valid"), _signed(success, "success")])
    titles = [
        "factor",
        "level against",
        "within",
        "horizon",
        "cells",
        "validity over",
        "held-out validity",
        "held-out success",
    ]
    return markdown_table(titles, lines)


def explained_table(stored: Stored) -> str:
    """:func:`norm_study.stitching.effects.explained` on held-out validity and success as Markdown."""
    names = [*FACTORS, "interactions"]
    lines = []
    for what, measure in (("validity", "plan_valid"), ("success", "success")):
        for entry in explained(stored, measure):
            levels = [", ".join(entry[name]) for name in ("norms", "paddings", "fields")]
            cells = [interval_text(entry[name], ".0f", " %") if name in entry else "–" for name in names]
            lines.append([what, f"{entry['multiple']}×", *levels, *cells])
    return markdown_table(["held-out", "horizon", "norms", "paddings", "fields", *names], lines)


def two_by_two(stored: Stored) -> str:
    """Convolution path × norm path, at the first padding and field."""
    measures = ("success", "plan_valid", "longest_step")
    head = [f"{split} {name}" for split in ("demonstrated", "held-out") for name in measures]
    lines = []
    first = cells_of(stored)[0]
    for norm, convolutions, by_norm in TWO_BY_TWO:
        for multiple in multiples_of(stored):
            cells = []
            for split in ("demonstrated", "held_out"):
                rows = chosen_rows(stored, _is(norm, *first[1:]), split=split, multiple=multiple)
                cells += [cell_text(interval(rows, name), name) if rows else "–" for name in measures]
            if set(cells) != {"–"}:
                lines.append([norm, convolutions, by_norm, f"{multiple}×", *cells])
    return markdown_table(["norm", "convolutions cross", "norm crosses", "horizon", *head], lines)


def facts_table(stored: Stored) -> str:
    """Size, speed and steadiness of each cell's training."""
    names = ("parameters", "steps_per_second", "final_loss", "largest_mean_gradient")
    lines = []
    for cell in cells_of(stored):
        facts = [result["facts"][0] for run, result in stored if _is(*cell)(run)]
        means = [sum(fact[name] for fact in facts) / len(facts) for name in names]
        reach = f"−{facts[0]['reach'][0]} … +{facts[0]['reach'][1]}"
        numbers = [f"{means[0]:,.0f}", *(f"{mean:.3g}" for mean in means[1:])]
        lines.append([*cell, reach, *numbers])
    return markdown_table(["norm", "padding", "field", "reach", *names], lines)


def write_study(stored: Stored, asked: int, out: Path, command: str) -> Path:
    """Tables (``tables.md``), numbers (``summary.json``) and figures.

    Args:
        stored: the finished runs, at least one.
        asked: how many the grid has.
        out: the folder to write to.
        command: what made them, for the page.

    Returns:
        The path of the tables.
    """
    seconds = [result["facts"][0]["training_seconds"] + result["config"]["seconds"] for _, result in stored]
    on_validity, shares = effects(stored), explained(stored)
    parts = [
        f"Command: `{command}`\n\n{len(stored)} of {asked} runs of this grid are stored; "
        f"training and measuring took {sum(seconds) / 60:.0f} minutes, one run after another. Best of N (*any "
        "valid*, *best success*) is measured on fewer episodes; *single* is one plan on the same ones.",
        "## Effect of each factor\n\n" + effects_table(on_validity, effects(stored, "success")),
        *(["## Share of the variance between cells\n\n" + explained_table(stored)] if shares else []),
        "## Every cell\n\n" + factor_table(stored),
        "## By family of tasks\n\n" + family_table(stored),
        "## Compositionality gap (demonstrated minus held out)\n\n" + gap_table(stored),
        "## Convolution path and norm path\n\n" + two_by_two(stored),
        "## Size, speed, steadiness\n\n" + facts_table(stored),
    ]
    write_atomically(out / "tables.md", "\n\n".join(parts) + "\n")
    summary = {
        "effects": on_validity,
        "explained": shares,
        "cells": {
            "-".join(cell): summarize(rows) for cell in cells_of(stored) if (rows := chosen_rows(stored, _is(*cell)))
        },
    }
    write_atomically(out / "summary.json", json.dumps(summary, allow_nan=False) + "\n")
    draw_study(stored, out)
    return out / "tables.md"
