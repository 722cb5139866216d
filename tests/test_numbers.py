"""Numbers in the pages: what a block of text says of results stands in the generated files that its marker names.

A block with a share or an interval in it begins with a comment that a reader of the page does not see:
``<!-- numbers: stitching/tables.md -->`` names generated files, relative to docs, which other tests make anew from the
committed rows. ``<!-- measured by COMMAND: 12 %, 3 [2, 4] -->`` gives what has no rows, such as timings, trials and
constants, with the command or the source behind it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page.name != "api.md")]
NUMBER = r"[-−]?\d[\d,]*(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER})(?: %| m| ×| points| ms)?\**(?: [a-z]+)? \[({NUMBER}), ({NUMBER})\]")
SHARE = re.compile(rf"({NUMBER}) %")
SOURCES = re.compile(r"<!-- numbers: (.+?) -->", re.DOTALL)
WITHOUT_ROWS = re.compile(r"<!-- measured by (.+?) -->", re.DOTALL)
LEVEL = re.compile(r"95 %\s+intervals?")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

Found = tuple[str, ...]
"""A share, or a mean with its interval, as digits."""


def digits(text: str) -> str:
    return text.replace("−", "-").replace(",", "")


def told(text: str) -> list[Found]:
    """The shares and intervals in a text, in its order."""
    text = LEVEL.sub("", text)
    intervals = [tuple(map(digits, match)) for match in INTERVAL.findall(text)]
    return intervals + [(digits(match),) for match in SHARE.findall(INTERVAL.sub("", text))]


def rounded(value: float, places: int) -> str:
    """A number as it is written to so many places."""
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if not float(text) else text


@cache
def known(path: Path) -> list[tuple[float, ...]]:
    """Every interval and number of a generated file; of one with rows and a summary, of the summary."""
    if path.suffix == ".md":
        text = path.read_text()
        return [tuple(map(float, one)) for one in told(text)] + [
            (float(digits(one)),) for one in re.findall(NUMBER, text)
        ]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    stored = json.loads(data)
    return list(_numbers(stored.get("summary", stored) if isinstance(stored, dict) else stored))


def _numbers(value: Any) -> Iterator[tuple[float, ...]]:
    """Means with their intervals, numbers, and the numbers in texts."""
    if isinstance(value, dict):
        if all(isinstance(value.get(name), int | float) for name in ("mean", "low", "high")):
            yield (value["mean"], value["low"], value["high"])
        for entry in value.values():
            yield from _numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, str):
        yield from (tuple(map(float, one)) for one in told(value))
    elif isinstance(value, int | float):
        yield (float(value),)


@cache
def readings(path: Path, places: tuple[int, ...]) -> set[Found]:
    """What a file holds, rounded to so many places: as such, in per cent, and a difference the other way round.

    A number that was rounded before, to five at its end, may be read either way.
    """
    entries = {entry if len(places) > 1 else entry[:1] for entry in known(path) if len(entry) >= len(places)}
    if len(places) > 1:
        entries |= {(-mean, -high, -low) for mean, low, high in entries}
    return {
        tuple(
            rounded(factor * value * (1 + side * 1e-9), at)
            for value, at, side in zip(entry, places, sides, strict=True)
        )
        for entry in entries
        for factor in (1, 100)
        for sides in product((-1, 1), repeat=len(places))
    }


def is_there(one: Found, path: Path) -> bool:
    """Whether a file holds it, a share as such or in per cent."""
    places = tuple(len(number.partition(".")[2]) for number in one)
    asked = tuple(rounded(float(number), at) for number, at in zip(one, places, strict=True))
    return asked in readings(path, places)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Comments and text of each block that tells a share or an interval."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    parts = [("".join(COMMENT.findall(part)), COMMENT.sub("", part)) for part in re.split(r"\n\s*\n", text)]
    return [(comments, body) for comments, body in parts if told(body)]


def unfounded(comments: str, body: str, root: Path) -> list[Found]:
    """The shares and intervals of a block that are neither in the files that it names nor said to have no rows."""
    said = {one for note in WITHOUT_ROWS.findall(comments) for one in told(note)}
    paths = [root / name for names in SOURCES.findall(comments) for name in names.split()]
    return [one for one in told(body) if one not in said and not any(is_there(one, path) for path in paths)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_share_and_interval_of_a_page_stands_in_the_files_that_its_block_names(page):
    for comments, body in blocks(page):
        assert not (lacking := unfounded(comments, body, DOCS)), f"{lacking} in: {body.strip()[:200]}"


def test_a_wrong_or_unmarked_number_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    (tmp_path / "tables.md").write_text("| group | 35 % [25, 46] | 0.0042 | -9 points [-13, -5] |\n")
    marked = "<!-- numbers: tables.md -->\n"
    page.write_text(
        f"{marked}`group` 35 % [25, 46], 9 [5, 13] less.\n\n{marked}36 % [25, 46], 12 %.\n\n35 % [25, 46]\n"
    )
    assert [unfounded(*block, tmp_path) for block in blocks(page)] == [
        [],
        [("36", "25", "46"), ("12",)],
        [("35", "25", "46")],
    ]
    page.write_text(f"{marked}<!-- measured by planner bench: 12 % -->\n`group` 35 % [25, 46], 12 % and 13 %.\n")
    assert [unfounded(*block, tmp_path) for block in blocks(page)] == [[("13",)]]


def test_numbers_of_rows_are_read_as_shares_and_in_per_cent(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"valid": {"mean": 0.351, "low": 0.249, "high": 0.4561}}))
    assert is_there(("35", "25", "46"), tmp_path / "rows.json")
    assert is_there(("0.35", "0.25", "0.46"), tmp_path / "rows.json")
    assert not is_there(("35", "26", "46"), tmp_path / "rows.json")
