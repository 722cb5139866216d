"""f0 = Phi(sqrt(gamma) delta), delta ~ N(0, 1): the law of an untrained network's guesses, held against them.

*Where You Place the Norm Matters*: over the data, the difference of a network's two outputs is taken as Gaussian
with a mean of its own and a variance common to all networks; over initialisations the mean is Gaussian around
zero. gamma is the variance of the mean over initialisations divided by the mean of the variance over data. It
comes from these moments and is never fitted.

A point's scale, the length of the activation that the output layer reads, moves its two outputs alike and changes no
guess, but it enters both moments. The scaled gamma takes the moments of outputs over scale; nothing is fitted there
either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy import stats

Verdict = Literal["neutral", "prejudiced", "deeply prejudiced"]
NEUTRAL_BELOW, DEEP_FROM = 0.05, 1.0
PILED_UP = 0.95
RESAMPLES = 400
UPPER_QUARTILE = float(stats.norm.ppf(0.75))
SMALLEST_GAMMA = 1e-12  # a norm that takes away the mean leaves exactly none; the theory's curve is then a step


def verdict(gamma: float) -> Verdict:
    """Neutral below 0.05, deeply prejudiced from 1."""
    if gamma < NEUTRAL_BELOW:
        return "neutral"
    return "prejudiced" if gamma < DEEP_FROM else "deeply prejudiced"


def gamma_of(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Gamma from (..., I) means and standard deviations over data of the output difference, over the last axis."""
    return mean.var(axis=-1, ddof=1) / (deviation**2).mean(axis=-1)


def theory_cdf(f0: np.ndarray, gamma: float | np.ndarray) -> np.ndarray:
    """P(share <= f0) where the share is Phi(sqrt(gamma) delta)."""
    return stats.norm.cdf(stats.norm.ppf(f0) / np.sqrt(np.maximum(gamma, SMALLEST_GAMMA)))


def theory_median(gamma: float) -> float:
    """The median of max(f0, 1 - f0)."""
    return float(stats.norm.cdf(math.sqrt(gamma) * UPPER_QUARTILE))


def distances(f0: np.ndarray, gamma: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """How far measured shares lie from the theory's law.

    Shares are multiples of 1/points, so the two distribution functions are compared half way between
    neighbouring multiples: rounding alone makes no distance.

    Args:
        f0: (R, I) shares.
        gamma: (R,).
        points: N.

    Returns:
        (R,) Kolmogorov-Smirnov distances, and (R,) Wasserstein distances, in units of f0.
    """
    counts = np.rint(f0 * points).astype(int) + (points + 1) * np.arange(len(f0))[:, None]
    histogram = np.bincount(counts.ravel(), minlength=len(f0) * (points + 1)).reshape(len(f0), -1)
    measured = histogram.cumsum(axis=1)[:, :-1] / f0.shape[1]
    apart = np.abs(measured - theory_cdf((np.arange(points) + 0.5) / points, gamma[:, None]))
    return apart.max(axis=1), apart.mean(axis=1)


def summarize_shares(measured: Mapping[str, np.ndarray], points: int, classes: int = 2) -> dict[str, Any]:
    """The distribution of one kind of network's guesses.

    Args:
        measured: (I,) arrays: ``f0``, the share of the data in class 0; ``max_fraction``, that of the most
            frequent class; ``mean`` and ``deviation`` over data of the difference of the first two outputs;
            ``scaled_mean`` and ``scaled_deviation`` of that difference over its scale.
        points: N.
        classes: K; the theory's law of f0 is that of two, so with more only gamma and the shares are given.

    Returns:
        Medians, gamma, verdict and distances; ``*_low`` and ``*_high`` bound 95 % bootstrap intervals over
        initialisations. ``ks_floor`` is what the distance would be on average if the theory were exact.
        ``own_ks`` compares f0 with Phi(mean / deviation) of each network for itself: what is missed when only
        the Gaussian shape over data is assumed. ``variance_variation`` is the coefficient of variation over
        networks of the variance over data, which the theory takes as 0. ``scaled_*`` are the theory's with the
        scaled gamma.
    """
    draws = np.random.default_rng(0).integers(len(measured["f0"]), size=(RESAMPLES, len(measured["f0"])))
    max_fraction = measured["max_fraction"]
    found: dict[str, Any] = {
        "median_max_fraction": float(np.median(max_fraction)),
        "p_over_95": float((max_fraction > PILED_UP).mean()),
        "ks_floor": 0.8687 / math.sqrt(len(draws[0])),
        "inits": len(draws[0]),
    }
    resampled = {
        "median_max_fraction": np.median(max_fraction[draws], axis=1),
        "p_over_95": (max_fraction[draws] > PILED_UP).mean(axis=1),
    }
    for prefix in ("", "scaled_"):
        fits, fits_resampled = _against_theory(measured, prefix, draws, points)
        kept = {name for name in fits if classes == 2 or name == f"{prefix}gamma"}
        found |= {name: value for name, value in fits.items() if name in kept}
        resampled |= {name: values for name, values in fits_resampled.items() if name in kept}
    found["verdict"] = verdict(found["gamma"])
    for name, values in resampled.items():
        found[f"{name}_low"], found[f"{name}_high"] = (float(q) for q in np.quantile(values, (0.025, 0.975)))
    return found


def _against_theory(
    measured: Mapping[str, np.ndarray], prefix: str, draws: np.ndarray, points: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The theory's measures under ``prefix``, and those of bootstrap samples."""
    f0, mean, deviation = measured["f0"], measured[f"{prefix}mean"], measured[f"{prefix}deviation"]
    gamma = float(gamma_of(mean, deviation))
    ks, wasserstein = distances(f0[None], np.array([gamma]), points)
    own = np.rint(stats.norm.cdf(mean / np.maximum(deviation, 1e-30)) * points) / points
    variance = deviation**2
    found = {
        "gamma": gamma,
        "theory_median": theory_median(gamma),
        "ks": float(ks[0]),
        "wasserstein": float(wasserstein[0]),
        "own_ks": float(stats.ks_2samp(np.rint(f0 * points) / points, own, method="asymp").statistic),
        "variance_variation": float(variance.std() / variance.mean()),
    }
    gammas = gamma_of(mean[draws], deviation[draws])
    ks_resampled, wasserstein_resampled = distances(f0[draws], gammas, points)
    resampled = {"gamma": gammas, "ks": ks_resampled, "wasserstein": wasserstein_resampled}
    return (
        {f"{prefix}{name}": value for name, value in found.items()},
        {f"{prefix}{name}": values for name, values in resampled.items()},
    )
