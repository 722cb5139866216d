"""Tables as data, cells that are means with intervals, and how both are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Cell = str | Mapping[str, Any]
"""Text, or what :func:`measured` makes."""
SHARE_UNITS = (" %", " points")


def measured(interval: Mapping[str, Any], form: str = ".2f", unit: str = "") -> dict[str, Any]:
    """A mean with its interval as a cell.

    Args:
        interval: ``{"mean", "low", "high"}``; without a mean it is written "–", without ends the mean alone.
        form: format of the numbers.
        unit: behind the mean; with `` %`` or `` points`` the numbers are shares, written in per cent.
    """
    return {key: interval.get(key) for key in ("mean", "low", "high")} | {"form": form, "unit": unit}


def cell_text(cell: Cell) -> str:
    """A cell as one writes it, such as ``1.20 m [1.00, 1.40]``."""
    if isinstance(cell, str):
        return cell
    if cell["mean"] is None:
        return "–"
    scale, form = (100 if cell["unit"] in SHARE_UNITS else 1), cell["form"]
    text = f"{scale * cell['mean']:{form}}{cell['unit']}"
    if cell["low"] is None:
        return text
    return f"{text} [{scale * cell['low']:{form}}, {scale * cell['high']:{form}}]"


def interval_text(interval: Mapping[str, Any], form: str = ".2f", unit: str = "") -> str:
    """A mean with its interval in a sentence; see :func:`measured`."""
    return cell_text(measured(interval, form, unit))


def number(value: float | None) -> str:
    """Three significant digits, or a dash for none."""
    return "–" if value is None else f"{value:.3g}"


@dataclass(frozen=True)
class Table:
    """A table that is still numbers.

    Attributes:
        columns: their titles.
        rows: cells; rows that begin alike belong together.
        title: the heading above it.
        note: what to know before reading it.
        cards: whether each row is a card of its own on a phone.
        folded: whether a page shows it only to those who ask.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    cards: bool = False
    folded: bool = False

    @property
    def titles(self) -> list[str]:
        """What stands above each column."""
        return [column.replace("_", " ") for column in self.columns]

    def markdown(self) -> str:
        """The table as Markdown, a line per row."""
        head, *lines = (f"| {' | '.join(row)} |" for row in [self.titles, *(map(cell_text, row) for row in self.rows)])
        return "\n".join([head, "|---" * len(self.columns) + "|", *lines])

    def without_constants(self) -> Table:
        """The table without the columns of text that say the same in every row; its note says it once."""
        columns = list(zip(*self.rows, strict=True)) if len(self.rows) > 1 else []
        constant = [
            at
            for at, cells in enumerate(columns)
            if isinstance(cells[0], str) and all(cell == cells[0] for cell in cells)
        ]
        if not constant:
            return self
        said = ", ".join(f"{self.titles[at]} {self.rows[0][at]}" for at in constant)
        kept = [at for at in range(len(self.columns)) if at not in constant]
        rows = [[row[at] for at in kept] for row in self.rows]
        note = " ".join(filter(None, [self.note, f"In every row: {said}."]))
        return replace(self, columns=[self.columns[at] for at in kept], rows=rows, note=note)
