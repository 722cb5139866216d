"""What each factor of the stitching grid does, everything else equal, and how much of the outcome it explains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import product
from typing import Any

import numpy as np

from groundwork.intervals import difference_over_seeds, student_interval
from norm_study.stitching.grid import FactorRun, Stored
from norm_study.stitching.summary import MEASURES, Rows, by_run, countable

FACTORS = ("norm", "padding", "reach")
REFERENCE = {"norm": "group", "padding": "zeros", "reach": "half"}
"""The level of each factor that the others are held against."""

Pair = tuple[FactorRun, FactorRun]
"""Two runs that differ in one factor: the level that is asked about, and the reference."""


def chosen_rows(
    stored: Stored, keep: Callable[[FactorRun], bool], *, split: str | None = None, multiple: int | None = None
) -> Rows:
    """The countable rows of the runs that ``keep`` accepts, of one split and multiple if named."""
    return [
        row for run, result in stored if keep(run) for row in countable(result["rows"], split=split, multiple=multiple)
    ]


def multiples_of(stored: Stored) -> list[int]:
    """The multiples of the training horizon that were measured."""
    return sorted({row["multiple"] for _, result in stored for row in result["rows"]})


def effects(stored: Stored, measure: str = "plan_valid", split: str = "held_out") -> list[dict[str, Any]]:
    """Effect of each level of each factor, everything else equal.

    Over all cells; of padding and reach also within each norm, of a norm also at the reference padding and reach.

    Each run is paired with the run that differs from it in this factor alone (same seed); pairs are averaged within
    a seed, and the interval is that of :func:`groundwork.intervals.difference_over_seeds`.

    Returns:
        Entries ``{"factor", "level", "against", "within", "multiple", "cells", "mean", "low", "high", "n", "over"}``;
        ``within`` is ``all``, or says which of the cells.
    """
    found = []
    for multiple in multiples_of(stored):
        values = _episodes(stored, measure, split, multiple)
        for factor, against in REFERENCE.items():
            for level in [level for level in _levels(values, factor) if level != against]:
                pairs = _pairs(values, factor, level, against)
                for within, own in _subsets(factor, pairs).items():
                    about = {"factor": factor, "level": level, "against": against, "within": within}
                    found.append({**about, "multiple": multiple, **_effect(own, values, measure)})
    return found


def _subsets(factor: str, pairs: list[Pair]) -> dict[str, list[Pair]]:
    """All pairs, and those of each norm, or of the reference cell, where that is not all of them."""
    parts: dict[str, list[Pair]] = {}
    for pair in pairs:
        run = pair[0]
        parts.setdefault(f"{run.padding}, {run.reach}" if factor == "norm" else run.norm, []).append(pair)
    if len(parts) == 1:
        parts = {}
    elif factor == "norm":
        reference = f"{REFERENCE['padding']}, {REFERENCE['reach']}"
        parts = {name: own for name, own in parts.items() if name == reference}
    return {"all": pairs, **parts} if pairs else {}


def explained(stored: Stored, measure: str = "plan_valid", split: str = "held_out") -> list[dict[str, Any]]:
    """Share of the variance between cells that each factor explains alone (η²), and all their interactions together.

    The sums of squares of a balanced analysis of variance, seed by seed, over the norms that were run at every padding
    and receptive field. Where not two norms were, padding and reach are looked at one by one, the other at its
    reference. Intervals are Student's over the seeds, cut to 0 … 1.

    Returns:
        Entries ``{"multiple", "norms", "paddings", "reaches"}`` with the interval of ``interactions`` and of each
        factor of several levels; none where all cells of a seed are equal.
    """
    found = []
    for multiple in multiples_of(stored):
        means = {run: float(np.mean(values)) for run, values in _episodes(stored, measure, split, multiple).items()}
        whole = _levels(means, "padding"), _levels(means, "reach")
        one_by_one = (whole[0], [REFERENCE["reach"]]), ([REFERENCE["padding"]], whole[1])
        for paddings, reaches in [whole] if _complete_norms(means, *whole) else one_by_one:
            levels = _complete_norms(means, paddings, reaches), paddings, reaches
            several = [name for name, values in zip(FACTORS, levels, strict=True) if len(values) > 1]
            if len(several) < 2:
                continue
            shares = [_shares(_cells(means, *levels, seed)) for seed in _levels(means, "seed")]
            if all(shares):
                about = {"multiple": multiple, "norms": levels[0], "paddings": paddings, "reaches": reaches}
                names = (*several, "interactions")
                found.append(about | {n: student_interval([share[n] for share in shares], (0.0, 1.0)) for n in names})
    return found


def _cells(
    means: Mapping[FactorRun, float], norms: list[Any], paddings: list[Any], reaches: list[Any], seed: int
) -> np.ndarray:
    """The outcome of each (norm, padding, reach) at one seed."""
    cells = [means[FactorRun(*place, seed)] for place in product(norms, paddings, reaches)]
    return np.reshape(cells, (len(norms), len(paddings), len(reaches)))


def _complete_norms(runs: Collection[FactorRun], paddings: list[Any], reaches: list[Any]) -> list[Any]:
    """The norms with all of these cells at every seed, if they are two or more."""
    places = list(product(paddings, reaches, _levels(runs, "seed")))
    norms = [norm for norm in _levels(runs, "norm") if all(FactorRun(norm, *place) in runs for place in places)]
    return norms if len(norms) > 1 else []


def _levels(runs: Collection[FactorRun], factor: str) -> list[Any]:
    return list(dict.fromkeys(getattr(run, factor) for run in runs))


def _shares(cells_NPF: np.ndarray) -> dict[str, float]:
    """η² of each factor over the cells of one seed; empty where all cells are equal."""
    deviations = cells_NPF - cells_NPF.mean()
    total = (deviations**2).sum()
    if total == 0:
        return {}
    shares = {}
    for axis, factor in enumerate(FACTORS):
        others = tuple(other for other in range(3) if other != axis)
        level_means = deviations.mean(axis=others)
        shares[factor] = float((level_means**2).sum() * deviations.size / level_means.size / total)
    return {**shares, "interactions": 1 - sum(shares.values())}


def _episodes(stored: Stored, measure: str, split: str, multiple: int) -> dict[FactorRun, list[float]]:
    return {
        run: episodes
        for run, result in stored
        for rows in [chosen_rows([(run, result)], lambda _: True, split=split, multiple=multiple)]
        for episodes in by_run(rows, measure).values()
    }


def _effect(pairs: list[Pair], values: dict[FactorRun, list[float]], measure: str) -> dict[str, Any]:
    seeds = sorted({run.seed for run, _ in pairs})
    gaps = {pair: float(np.mean(values[pair[0]]) - np.mean(values[pair[1]])) for pair in pairs}
    per_seed = [float(np.mean([gaps[pair] for pair in pairs if pair[0].seed == seed])) for seed in seeds]
    one, other = ([value for pair in pairs for value in values[pair[side]]] for side in (0, 1))
    return {
        "cells": len(pairs) // len(seeds),
        **difference_over_seeds(per_seed, (one, other), share=MEASURES[measure].share),
    }


def _pairs(runs: Collection[FactorRun], factor: str, level: str, against: str) -> list[Pair]:
    """The runs at ``level`` of ``factor``, each with the one at ``against`` that equals it in everything else."""
    partners = {_without(run, factor): run for run in runs if getattr(run, factor) == against}
    return [
        (run, partners[_without(run, factor)])
        for run in runs
        if getattr(run, factor) == level and _without(run, factor) in partners
    ]


def _without(run: FactorRun, factor: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in vars(run).items() if name != factor)
