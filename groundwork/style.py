"""How figures look: colors that the color-blind tell apart (Okabe and Ito's), sizes, frames and legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Colors of what has none of its own, in the order of a legend."""

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "norm-study",
    "figure.constrained_layout.use": True,
}
"""Matplotlib's settings for figures in a page's text; the salt gives equal drawings equal bytes."""


def open_axes(axes: Iterable[Axes]) -> None:
    """Takes the frame's upper and right side away."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


def legend_outside(figure: Figure, axis: Axes, place: Any = "outside right center", **options: Any) -> None:
    """One legend for all panels, of what ``axis`` shows, where it covers none of them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc=place, frameon=False, **options)


def plot_intervals(
    axis: Axes, places: Sequence[float] | np.ndarray, cells: Sequence[Mapping[str, Any]], **options: Any
) -> None:
    """Shares in per cent with their intervals, as points joined by a line; a share without one has none drawn.

    Args:
        axis: where to.
        places: along x, one per cell.
        cells: ``{"mean", "low", "high"}`` each.
        options: of ``errorbar``.
    """
    means, low, high = (100 * np.array([cell[key] for cell in cells], dtype=float) for key in ("mean", "low", "high"))
    ends = np.clip([means - low, high - means], 0, None)
    axis.errorbar(places, means, ends, **{"ms": 5, "capsize": 2} | options)
