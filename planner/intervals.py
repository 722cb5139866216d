"""Means with 95 % intervals, as every table of this project reports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def mean_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean, median and the 95 % confidence interval of the mean.

    Shares (values that are all 0 or 1) get Wilson's interval, which keeps its width at 0 and 100 %; other
    values Student's t. One value has no interval: ``low`` and ``high`` are ``None``.

    Args:
        values: (N,) numbers or booleans; NaN are left out.

    Returns:
        ``{"mean", "median", "low", "high", "n"}``, all ``None`` but ``n`` when nothing is left.
    """
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    n = len(kept)
    if n == 0:
        return {"mean": None, "median": None, "low": None, "high": None, "n": 0}
    mean = float(kept.mean())
    low: float | None = None
    high: float | None = None
    if n > 1 and np.isin(kept, (0.0, 1.0)).all():
        wilson = stats.binomtest(int(kept.sum()), n).proportion_ci(0.95, method="wilson")
        low, high = float(wilson.low), float(wilson.high)
    elif n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * stats.sem(kept))
        low, high = mean - half, mean + half
    return {"mean": mean, "median": float(np.median(kept)), "low": low, "high": high, "n": n}
