"""Counts of right, wrong and not measured over the zoo and over planted leaks.

cd tests && python -m zoo --planted 200 --seed 0
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable

from zoo.answers import RIGHT, Answer, of_planted, of_specimen
from zoo.networks import SPECIMENS
from zoo.planted import planted


def _print(title: str, answers: Iterable[Answer], every: bool) -> None:
    counts: Counter[str] = Counter()
    for one in answers:
        counts[one.outcome] += 1
        if every or one.outcome != RIGHT:
            reason = "" if one.outcome == RIGHT else f" | {one.reason}"
            print(f"{one.outcome} | {one.name} | {one.truth} | {one.answer} | {one.seconds:.1f} s{reason}", flush=True)
    print(f"{title}: {counts['right']} right, {counts['wrong']} wrong, {counts['not measured']} not measured\n")


def main() -> None:
    """Prints a row per network of the zoo and per planted leak that was not answered rightly, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", type=int, default=200, help="how many planted leaks")
    parser.add_argument("--seed", type=int, default=0, help="of the planted leaks")
    parser.add_argument("--rows", action="store_true", help="print every planted leak")
    given = parser.parse_args()
    print("outcome | network | truth | answer | time")
    _print("zoo", map(of_specimen, SPECIMENS.values()), every=True)
    pairs = [(leak, list(of_planted(leak))) for leak in planted(given.planted, given.seed)]
    _print("planted leaks", (answers[0] for _, answers in pairs), given.rows)
    _print("the same networks without", (answers[1] for _, answers in pairs), given.rows)


if __name__ == "__main__":
    main()
