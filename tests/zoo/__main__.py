"""Counts of right, wrong and not measured over the zoo and over planted leaks.

cd tests && python -m zoo --planted 200 --seed 0
"""

from __future__ import annotations

import argparse
from collections import Counter

from zoo.answers import RIGHT, Answer, of_planted, of_specimen
from zoo.networks import SPECIMENS
from zoo.planted import planted


def _show(one: Answer, counts: Counter[str], always: bool) -> None:
    counts[one.outcome] += 1
    if always or one.outcome != RIGHT:
        reason = "" if one.outcome == RIGHT else f" | {one.reason}"
        print(f"{one.outcome} | {one.name} | {one.truth} | {one.answer} | {one.seconds:.1f} s{reason}", flush=True)


def _total(title: str, counts: Counter[str]) -> None:
    print(
        f"{title}: {counts['right']} right, {counts['wrong']} wrong, {counts['not measured']} not measured", flush=True
    )


def main() -> None:
    """Prints a row per network of the zoo and per planted leak that was not answered rightly, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", type=int, default=200, help="how many planted leaks")
    parser.add_argument("--seed", type=int, default=0, help="of the planted leaks")
    parser.add_argument("--rows", action="store_true", help="print every planted leak")
    given = parser.parse_args()
    print("outcome | network | truth | answer | time")
    counts: Counter[str] = Counter()
    for specimen in SPECIMENS.values():
        _show(of_specimen(specimen), counts, True)
    _total("zoo", counts)
    leaks: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for leak in planted(given.planted, given.seed):
        for one, counts in zip(of_planted(leak), (leaks, without), strict=True):
            _show(one, counts, given.rows)
    _total("planted leaks", leaks)
    _total("the same networks without", without)


if __name__ == "__main__":
    main()
