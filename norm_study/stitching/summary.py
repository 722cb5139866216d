"""What the rows of the stitching study come to: its measures, their intervals, and the compositionality gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from groundwork.errors import UserError
from groundwork.intervals import difference_over_seeds, interval_over_seeds
from groundwork.tables import Cell, measured
from planner import measures
from planner.measures import LONGEST_VALID_STEP, Measure

Rows = list[dict[str, Any]]

FLAWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "jumps": lambda row: row["longest_step"] > LONGEST_VALID_STEP,
    "through_wall": lambda row: not row["plan_valid"] and row["longest_step"] <= LONGEST_VALID_STEP,
}
"""Why a plan is not valid, out of its row: a step is too long, or all are short and lead through a wall."""

MEASURES: dict[str, Measure] = {
    **{name: measure for name, measure in measures.MEASURES.items() if measure.known_with is None},
    "jumps": Measure("jump", "plan", "lower", share=True),
    "through_wall": Measure("through a wall, no jump", "plan", "lower", share=True),
    "novelty_whole": Measure("distance to the nearest training window", "plan", None, unit=" m"),
    "novelty_piece": Measure("distance of the farthest piece to the nearest", "plan", None, unit=" m"),
    "single_valid": Measure("valid plans, one drawn", "plan", "higher", share=True),
    "any_valid": Measure("a valid plan among N", "plan", "higher", share=True),
    "single_success": Measure("success, one drawn", "execution", "higher", share=True),
    "best_success": Measure("success of the best of N", "execution", "higher", share=True),
    "routes": Measure("routes among N plans", "plan", None),
    "valid_routes": Measure("routes among the valid ones", "plan", "higher"),
}
"""A rollout's measures, and those that the study adds to its rows."""
GAP_MEASURES = ("success", "plan_valid", "longest_step", "end_gap", "tracking_error")
"""Those whose gap between demonstrated and held-out tasks is shown."""


def study_cell(interval: Mapping[str, Any], measure: str, percent: str = " %") -> Cell:
    """A mean with its interval as the study's tables show it: shares in whole per cent (differences: points)."""
    return measured(interval, ".0f", percent) if MEASURES[measure].share else measured(interval)


def summarize(rows: Rows) -> dict[str, Any]:
    """Means with 95 % intervals over the countable rows of each split, and the compositionality gap between them.

    Returns:
        ``{"demonstrated", "held_out", "gap", "by_horizon"}``: the first three at the smallest multiple in
        ``rows``, each measure → ``{mean, low, high, n, over}``; ``by_horizon["1"]`` and so on repeats them for each
        multiple. The interval is over training seeds where there are at least three, else over episodes. The gap
        is demonstrated minus held out.
    """
    if not rows:
        raise UserError("nothing was measured")
    by_horizon = {str(multiple): _splits(rows, multiple) for multiple in sorted({row["multiple"] for row in rows})}
    return {**next(iter(by_horizon.values())), "by_horizon": by_horizon}


def countable(rows: Rows, *, split: str | None = None, multiple: int | None = None) -> Rows:
    """The rows of tasks that can be done at their horizon, of one split and multiple if named."""
    return [
        row
        for row in rows
        if row["countable"] and split in (None, row["split"]) and multiple in (None, row["multiple"])
    ]


def _splits(rows: Rows, multiple: int) -> dict[str, Any]:
    demonstrated, held_out = (countable(rows, split=split, multiple=multiple) for split in ("demonstrated", "held_out"))
    return {
        "demonstrated": {name: interval(demonstrated, name) for name in MEASURES},
        "held_out": {name: interval(held_out, name) for name in MEASURES},
        "gap": {name: difference(demonstrated, held_out, name) for name in GAP_MEASURES},
    }


def by_run(rows: Rows, name: str, of: str = "run") -> dict[Any, list[float]]:
    """The values of a measure by training run, or by another entry of the rows; rows without it are left out."""
    values: dict[Any, list[float]] = {}
    taken = FLAWS.get(name, lambda row: row.get(name))
    for row in rows:
        if (value := taken(row)) is not None:
            values.setdefault(row[of], []).append(value)
    return values


def interval(rows: Rows, name: str) -> dict[str, Any]:
    """Mean and interval of a measure: over training seeds where there are at least three, else over episodes."""
    return interval_over_seeds(list(by_run(rows, name).values()), share=MEASURES[name].share)


def difference(ours: Rows, reference: Rows, name: str, of: str = "run") -> dict[str, Any]:
    """A measure's mean difference with its interval, paired by training run, or by another entry of the rows."""
    first, second = by_run(ours, name, of), by_run(reference, name, of)
    differences = [float(np.mean(first[run]) - np.mean(second[run])) for run in first if run in second]
    one, other = ([value for values in found.values() for value in values] for found in (first, second))
    return difference_over_seeds(differences, (one, other), share=MEASURES[name].share)
