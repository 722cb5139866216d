"""Means with 95 % intervals: every one that a table of this project reports is made here.

Student's t over training seeds and other numbers, Wilson's over episodes that succeed or fail, Newcombe's for the
difference of two such shares, Agresti and Min's for one of pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

SEEDS_FOR_AN_INTERVAL = 3
HOW = (
    "95 % intervals, over training seeds (Student's t) where there are at least three, else over episodes; of a share "
    "the wider one of Student's over seeds and Wilson's over all episodes"
)
"""What :func:`interval_over_seeds` does, for the notes of tables."""
Values = Sequence[float] | np.ndarray


def mean_interval(values: Values, within: tuple[float, float] = (-np.inf, np.inf)) -> dict[str, Any]:
    """Mean, median and the 95 % confidence interval of the mean.

    Booleans are a share and get Wilson's interval, which keeps its width at 0 and 100 %; numbers get Student's t. One
    value has no interval: ``low`` and ``high`` are ``None``.

    Args:
        values: (N,) booleans, or numbers, of which NaN are left out.
        within: where an interval of numbers ends at the latest.

    Returns:
        ``{"mean", "median", "low", "high", "n"}``, all ``None`` but ``n`` when nothing is left.
    """
    is_share = np.asarray(values).dtype == bool
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    n = len(kept)
    if n == 0:
        return {"mean": None, "median": None, "low": None, "high": None, "n": 0}
    if n == 1 or not is_share:
        return student_interval(kept, within)
    wilson = stats.binomtest(int(kept.sum()), n).proportion_ci(0.95, method="wilson")
    ends = {"low": float(wilson.low), "high": float(wilson.high)}
    return {"mean": float(kept.mean()), "median": float(np.median(kept)), **ends, "n": n}


def mean_intervals(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """:func:`mean_interval` over rows of each of the named measures."""
    rows = list(rows)
    return {name: mean_interval([row[name] for row in rows]) for name in names}


def student_half(values_NX: np.ndarray) -> np.ndarray:
    """Half the width of Student's 95 % interval of the means over the first axis; 0 for one value."""
    n = len(values_NX)
    return stats.t.ppf(0.975, n - 1) * stats.sem(values_NX) if n > 1 else 0 * values_NX[0]


def student_interval(values: Values, within: tuple[float, float] = (-np.inf, np.inf)) -> dict[str, Any]:
    """Mean, median and Student's 95 % interval of at least one number, whatever the numbers; one has no interval.

    Args:
        values: (N,) numbers.
        within: where the interval ends at the latest.
    """
    kept = np.asarray(values, dtype=float)
    n, mean, half = len(kept), float(kept.mean()), float(student_half(kept))
    low, high = (mean - half, mean + half) if n > 1 else (None, None)
    if low is not None and high is not None:
        low, high = max(within[0], min(within[1], low)), max(within[0], min(within[1], high))
    return {"mean": mean, "median": float(np.median(kept)), "low": low, "high": high, "n": n}


def interval_over_seeds(values_by_seed: Sequence[Sequence[float]], *, share: bool = False) -> dict[str, Any]:
    """The interval that a table of several training seeds shows.

    Over seeds (Student's t on their means) where there are at least three whose means vary, else over episodes. Of
    shares it is the wider one of Student's over seeds and Wilson's over all episodes: three seeds that happen to agree
    know no more than their episodes do.

    Args:
        values_by_seed: per seed the values of its episodes.
        share: whether the values are shares, whose interval ends at 0 and 1.

    Returns:
        As :func:`mean_interval`, and ``over``: "seeds" or "episodes".
    """
    everything = [value for values in values_by_seed for value in values]
    means = [float(np.mean(values)) for values in values_by_seed]
    pooled = {**mean_interval(everything), "over": "episodes"}
    if not _vary(means):
        return pooled
    over_seeds = {**student_interval(means, (0.0, 1.0) if share else (-np.inf, np.inf)), "over": "seeds"}
    ends = _wider(over_seeds, pooled) if _yes_or_no(everything) else over_seeds
    return (
        over_seeds | {"median": float(np.median(everything))} | {key: ends[key] for key in ("low", "high", "n", "over")}
    )


def difference_over_seeds(
    differences: Sequence[float], samples: tuple[Sequence[float], Sequence[float]], *, share: bool = False
) -> dict[str, Any]:
    """A mean difference with its interval, over seeds or episodes by the rule of :func:`interval_over_seeds`.

    Args:
        differences: one per training seed.
        samples: the episodes behind both sides, of all seeds.
        share: the values are 0 or 1; the interval ends at −1 and 1.
    """
    over_episodes = _difference_over_episodes(samples, share)
    if not _vary(differences):
        return over_episodes
    over_seeds = {**student_interval(differences, (-1.0, 1.0) if share else (-np.inf, np.inf)), "over": "seeds"}
    ends = _wider(over_seeds, over_episodes) if share and all(map(_yes_or_no, samples)) else over_seeds
    return over_seeds | {key: ends[key] for key in ("low", "high", "n", "over")}


def _wider(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return other if other["low"] is not None and other["high"] - other["low"] > one["high"] - one["low"] else one


def _yes_or_no(values: Values) -> bool:
    return np.asarray(values).dtype == bool


def paired_difference(ours: Sequence[bool], reference: Sequence[bool]) -> dict[str, float]:
    """Difference of two shares over the same episodes with its 95 % interval.

    Half an episode is added to each of the four outcomes, as Agresti & Min (2005) advise, so that the interval keeps
    its width where no episode differs.

    Args:
        ours: (N,) outcomes.
        reference: (N,) outcomes of the same episodes.
    """
    one, other = np.asarray(ours, dtype=bool), np.asarray(reference, dtype=bool)
    gained, lost, n = (one & ~other).sum() + 0.5, (~one & other).sum() + 0.5, len(one) + 2
    center = (gained - lost) / n
    half = 1.96 * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return {"mean": float(one.mean() - other.mean()), "low": float(center - half), "high": float(center + half)}


def _vary(by_seed: Sequence[float]) -> bool:
    """Whether there are seeds enough, and their spread says something."""
    return len(by_seed) >= SEEDS_FOR_AN_INTERVAL and len(set(by_seed)) > 1


def _difference_over_episodes(samples: Sequence[Sequence[float]], share: bool) -> dict[str, Any]:
    """Difference of the means of two independent samples: Newcombe's 95 % interval for shares, else the normal one."""
    n = min(len(values) for values in samples)
    if n == 0:
        return {**mean_interval([]), "over": "episodes"}
    mean = float(np.mean(samples[0]) - np.mean(samples[1]))
    result = {"mean": mean, "median": mean, "low": None, "high": None, "n": n, "over": "episodes"}
    if n == 1:
        return result
    one, other = (mean_interval(values) if share else _normal(values) for values in samples)
    below = np.hypot(one["mean"] - one["low"], other["high"] - other["mean"])
    above = np.hypot(one["high"] - one["mean"], other["mean"] - other["low"])
    return result | {"low": mean - float(below), "high": mean + float(above)}


def _normal(values: Sequence[float]) -> dict[str, float]:
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}
