"""Definition 2.3: which indices of a sequence a network can tell from all others, by Welch's t-test.

Index i is localized when its predictions differ in mean from those of every other index, each pair tested at
level alpha. No correction for the number of tests: all of them must reject, which is conservative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from groundwork.errors import UserError

# Two constants closer than this, relative to their size, are the same number computed in another order.
SAME_CONSTANT = 1e-6


@dataclass(frozen=True)
class Localization:
    """Which indices of one network are localized.

    Attributes:
        localized: (L,) booleans, Definition 2.3.
    """

    localized: np.ndarray

    @property
    def distance(self) -> int:
        """The paper's localization distance: the largest min(i, L-1-i) + 1 over localized i; 0 if none."""
        return int((edge_distance(len(self.localized)) * self.localized).max())

    @property
    def share(self) -> float:
        """The share of all indices that is localized."""
        return float(self.localized.mean())

    @property
    def unbroken_distance(self) -> int:
        """The largest d such that every index with min(i, L-1-i) < d is localized."""
        missed = edge_distance(len(self.localized))[~self.localized]
        return int(missed.min()) - 1 if len(missed) else (len(self.localized) + 1) // 2

    def indices(self) -> list[int]:
        """The localized indices, ascending."""
        return [int(i) for i in np.flatnonzero(self.localized)]

    def as_row(self) -> dict[str, Any]:
        """The measures under the names that every result of this package uses."""
        return {
            "localization_distance": self.distance,
            "localized_share": self.share,
            "unbroken_distance": self.unbroken_distance,
            "localized": self.indices(),
        }


def edge_distance(length: int) -> np.ndarray:
    """(L,) how far each index is from the nearer end, the end itself counted as 1."""
    index = np.arange(length)
    return np.minimum(index, length - 1 - index) + 1


def pairwise_p_values(predictions: np.ndarray) -> np.ndarray:
    """Welch's test of equal means for every pair of indices.

    Args:
        predictions: (N, L), N >= 2 predictions per index.

    Returns:
        (L, L) two-sided p-values. A pair of which neither varies has no t statistic: p is 1 where the two
        constants agree to within :data:`SAME_CONSTANT` and 0 where they do not. If one of the two varies,
        the test is the usual one, with the degrees of freedom of the one that does.
    """
    predictions = np.asarray(predictions, dtype=np.float64)
    count = len(predictions)
    mean, deviation = predictions.mean(axis=0), predictions.std(axis=0, ddof=1)
    scale = np.maximum(1.0, np.abs(mean))
    deviation = np.where(deviation <= 1e-12 * scale, 0.0, deviation)  # rounding of a constant's mean
    with np.errstate(divide="ignore", invalid="ignore"):
        test = stats.ttest_ind_from_stats(
            mean[:, None], deviation[:, None], count, mean[None], deviation[None], count, equal_var=False
        )
    p_values = np.asarray(test.pvalue)
    neither_varies = (deviation[:, None] == 0) & (deviation[None] == 0)
    same = np.abs(mean[:, None] - mean[None]) <= SAME_CONSTANT * np.maximum(scale[:, None], scale[None])
    return np.where(neither_varies, np.where(same, 1.0, 0.0), p_values)


def localize(predictions: np.ndarray, alpha: float = 0.01) -> Localization:
    """Applies Definition 2.3.

    Args:
        predictions: (N, L) predictions of one network on N fresh inputs.
        alpha: level of each single test.

    Raises:
        UserError: fewer than two predictions, numbers that are not finite, or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha = {alpha} must lie between 0 and 1")
    if predictions.ndim != 2 or len(predictions) < 2:
        raise UserError(f"predictions of shape {predictions.shape} must be (N, L) with N of at least 2")
    if not np.isfinite(predictions).all():
        raise UserError("predictions contain numbers that are not finite: the network has diverged")
    p_values = pairwise_p_values(predictions)
    np.fill_diagonal(p_values, 0.0)
    return Localization(np.all(p_values < alpha, axis=1))
