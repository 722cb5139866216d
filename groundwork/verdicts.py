"""Claims as data: a sentence, the number that decides it and the rule; and the verdict that rows give.

A claim is *supported* when the whole 95 % interval over seeds keeps the rule, *not supported* when the whole
interval breaks it, and *undecided* otherwise, also when fewer than two seeds are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from groundwork.intervals import mean_interval

Verdict = Literal["supported", "not supported", "undecided", "not run"]
Measure = Callable[[Any], list[float]]
"""From what was found to one value per seed."""


class Number(NamedTuple):
    """What decides a claim.

    Attributes:
        name: what is measured, per seed.
        measure: from what a part of the study found to one value per seed.
        within: what the number can be; its interval ends there at the latest.
    """

    name: str
    measure: Measure
    within: tuple[float, float] = (-np.inf, np.inf)


class Rule(NamedTuple):
    """How a claim is decided.

    Attributes:
        number: what is measured.
        part: the part of the study that it is measured on.
        sense: on which side of ``threshold`` the interval has to lie.
        threshold: the interval may touch it.
    """

    number: Number
    part: str
    sense: Literal["at most", "at least"]
    threshold: float

    def __str__(self) -> str:
        """The rule in words."""
        return f"{self.sense} {self.threshold:g}"


class Claim(NamedTuple):
    """One claim.

    Attributes:
        sentence: what is claimed.
        source: where it is claimed, or what kind of control it is.
        rule: how it is decided.
    """

    sentence: str
    source: str
    rule: Rule


def decide(rule: Rule, values: list[float]) -> tuple[Verdict, dict[str, Any]]:
    """The verdict on one claim by its rule, and the interval that gave it."""
    interval = mean_interval(values, rule.number.within)
    low, high = interval["low"], interval["high"]
    if low is None:
        return ("undecided" if values else "not run"), interval
    if rule.sense == "at least":
        low, high = -high, -low
    threshold = rule.threshold if rule.sense == "at most" else -rule.threshold
    return ("supported" if high <= threshold else "not supported" if low > threshold else "undecided"), interval


def judge(claim: Claim, found: Any, seeds: Sequence[int], *, borrowed: bool = False) -> dict[str, Any]:
    """A claim's entry in a section: its words, its number and its verdict.

    Args:
        claim: what is claimed.
        found: what its part of the study found, or nothing.
        seeds: that were run.
        borrowed: whether the rows are those of a fuller run.
    """
    rule = claim.rule
    values = rule.number.measure(found) if found else []
    verdict, interval = decide(rule, values)
    about = {"sentence": claim.sentence, "source": claim.source, "number": rule.number.name, "rule": str(rule)}
    told = {"part": rule.part, "verdict": verdict, "interval": interval, "values": values}
    return {**about, **told, "seeds": list(seeds), "from_full_rows": borrowed}
