"""Means with 95 % intervals, as every table of this project reports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

SEEDS_FOR_AN_INTERVAL = 3


def mean_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean, median and the 95 % confidence interval of the mean.

    Booleans are a share and get Wilson's interval, which keeps its width at 0 and 100 %; numbers get Student's t. One
    value has no interval: ``low`` and ``high`` are ``None``.

    Args:
        values: (N,) booleans, or numbers, of which NaN are left out.

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
        return student_interval(kept)
    wilson = stats.binomtest(int(kept.sum()), n).proportion_ci(0.95, method="wilson")
    ends = {"low": float(wilson.low), "high": float(wilson.high)}
    return {"mean": float(kept.mean()), "median": float(np.median(kept)), **ends, "n": n}


def student_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean, median and Student's 95 % interval of at least one number, whatever the numbers; one has no interval."""
    kept = np.asarray(values, dtype=float)
    n, mean = len(kept), float(kept.mean())
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(kept)) if n > 1 else None
    ends = {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    return {"mean": mean, "median": float(np.median(kept)), **ends, "n": n}


def interval_over_seeds(values_by_seed: Sequence[Sequence[float]], *, share: bool = False) -> dict[str, Any]:
    """The interval that a table of several training seeds shows.

    Over seeds (Student's t on their means) where there are at least three, else over episodes. Where the means of all
    seeds agree, seeds do not vary, and only the number of episodes bounds what is known.

    Args:
        values_by_seed: per seed the values of its episodes.
        share: whether the values are shares, whose interval ends at 0 and 1.

    Returns:
        As :func:`mean_interval`, and ``over``: "seeds" or "episodes".
    """
    everything = [value for values in values_by_seed for value in values]
    means = [float(np.mean(values)) for values in values_by_seed]
    if len(means) < SEEDS_FOR_AN_INTERVAL or len(set(means)) == 1:
        return {**mean_interval(everything), "over": "episodes"}
    over_seeds = student_interval(means)
    if share:
        over_seeds |= {"low": max(0.0, over_seeds["low"]), "high": min(1.0, over_seeds["high"])}
    return {**over_seeds, "median": float(np.median(everything)), "over": "seeds"}
