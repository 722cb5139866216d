"""Is an ASCII picture a maze: rectangular, closed, connected? If not, where."""

from __future__ import annotations

from typing import NoReturn

from groundwork.errors import UserError

NEIGHBOUR_OFFSETS: tuple[tuple[int, int], ...] = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""(rows down, columns right) of the four neighbours of a cell."""

LARGEST_SIDE = 100


def check_rows(name: str, rows: tuple[str, ...]) -> None:
    """Refuses a picture that is no maze.

    Args:
        name: of the map, for the message.
        rows: ``#`` is wall, ``.`` is free, top row first.

    Raises:
        UserError: empty, too large, not rectangular, unknown characters, a hole in the outer wall, fewer than
            two free cells, or free cells that cannot be reached; with the row and column of the first one.
    """
    _check_shape(name, rows)
    free = [(row, column) for row, line in enumerate(rows) for column, cell in enumerate(line) if cell == "."]
    for row, column in free:
        if row in (0, len(rows) - 1) or column in (0, len(rows[0]) - 1):
            _refuse(name, row, column, "a hole in the outer wall; the map must be closed")
    if len(free) < 2:
        row, column = free[0] if free else (0, 0)
        _refuse(name, row, column, f"{len(free)} free cells in the map; a maze needs at least 2")
    reached, frontier = {free[0]}, [free[0]]
    while frontier:
        row, column = frontier.pop()
        around = {(row + down, column + right) for down, right in NEIGHBOUR_OFFSETS}
        new = {cell for cell in around - reached if rows[cell[0]][cell[1]] == "."}
        reached |= new
        frontier.extend(new)
    for row, column in free:
        if (row, column) not in reached:
            _refuse(name, row, column, f"no way leads here from {free[0]}; the map must be connected")


def _check_shape(name: str, rows: tuple[str, ...]) -> None:
    if not rows or not rows[0]:
        _refuse(name, 0, 0, "the map is empty; allowed: rows of # and . cells")
    if max(len(rows), len(rows[0])) > LARGEST_SIDE:
        _refuse(name, 0, 0, f"{len(rows)} rows of {len(rows[0])}; allowed: at most {LARGEST_SIDE} each way")
    for index, row in enumerate(rows):
        for column, character in enumerate(row):
            if character not in "#.":
                problem = f"unknown character {character!r}; allowed: # for wall, . or blank for free"
                _refuse(name, index, column, problem)
        if len(row) != len(rows[0]):
            shorter = min(len(row), len(rows[0]))
            _refuse(name, index, shorter, f"the row has {len(row)} cells where row 0 has {len(rows[0])}")


def _refuse(name: str, row: int, column: int, problem: str) -> NoReturn:
    raise UserError(f"map {name}: row {row}, column {column} (counted from 0): {problem}")
