"""Markdown tables, and how a mean with its interval is written in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def interval_text(cell: Mapping[str, Any], form: str = ".2f", unit: str = "") -> str:
    """A mean with its interval, as ``1.20 m [1.00, 1.40]``.

    Args:
        cell: ``{"mean", "low", "high"}``; without a mean it is "–", without ends the mean alone.
        form: format of the numbers.
        unit: behind the mean; with `` %`` the numbers are shares, and written in per cent.
    """
    if cell["mean"] is None:
        return "–"
    scale = 100 if unit == " %" else 1
    text = f"{scale * cell['mean']:{form}}{unit}"
    if cell["low"] is None:
        return text
    return f"{text} [{scale * cell['low']:{form}}, {scale * cell['high']:{form}}]"


def number(value: float | None) -> str:
    """Three significant digits, or a dash for none."""
    return "–" if value is None else f"{value:.3g}"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, a line per row; underscores in titles become blanks."""
    head = "| " + " | ".join(title.replace("_", " ") for title in titles) + " |"
    return "\n".join([head, "|---" * len(titles) + "|", *("| " + " | ".join(row) + " |" for row in rows)])
