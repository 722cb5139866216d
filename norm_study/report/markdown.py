"""Reads back the Markdown that this project writes: headings, paragraphs and tables of one line per row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

_MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<b>\1</b>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: the heading above it.
        head: titles of the columns.
        rows: cells; one that ends in ``[low, high]`` is a mean with its interval.
        note: what to know before reading it.
        grouped: whether rows that begin alike belong together.
    """

    title: str
    head: list[str]
    rows: list[list[str | Markup]]
    note: str | Markup = ""
    grouped: bool = False


def inline(text: str) -> str | Markup:
    """Code, bold and emphasis as HTML; text without any stays text."""
    marked = str(escape(text))
    for pattern, replacement in _MARKS:
        marked = pattern.sub(replacement, marked)
    return Markup(marked) if "</" in marked else text


def read_tables(text: str) -> Iterator[Table]:
    """The tables of a text, each with the heading above it."""
    title = ""
    for block in _blocks(text):
        if block.startswith("#"):
            title = block.lstrip("# ")
        elif block.startswith("|"):
            head, _, *body = (_cells(line) for line in block.splitlines())
            rows = [[inline(cell) for cell in row] for row in body]
            first = [row[0] for row in rows]
            if rows:
                yield Table(title, head, rows, grouped=len(set(first)) < len(first))


def without_constants(table: Table, names: Collection[str]) -> Table:
    """The table without those of the named columns that say the same in every row; a note says it once."""
    constant = [
        at for at, title in enumerate(table.head) if title in names and len({str(row[at]) for row in table.rows}) == 1
    ]
    kept = [at for at in range(len(table.head)) if at not in constant]
    said = ", ".join(f"{table.head[at]} {table.rows[0][at]}" for at in constant)
    rows = [[row[at] for at in kept] for row in table.rows]
    return replace(
        table, head=[table.head[at] for at in kept], rows=rows, note=f"In every row: {said}." if said else ""
    )


def read_introduction(text: str) -> str:
    """The paragraphs before the first heading or table, without the command."""
    found: list[str] = []
    for block in _blocks(text):
        if block.startswith(("#", "|")):
            break
        if not block.startswith("Command:"):
            found.append(" ".join(block.split()))
    return " ".join(found)


def read_command(text: str) -> str:
    """What stands behind ``Command:`` in a text, or nothing."""
    found = re.search(r"^Command: `([^`]+)`", text, re.MULTILINE)
    return found.group(1) if found else ""


def _blocks(text: str) -> list[str]:
    return [block.strip() for block in re.split(r"\n\s*\n", text.strip())]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
