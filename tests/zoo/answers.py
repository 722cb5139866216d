"""What the audit says about the zoo, held against the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from norm_study.audit import audit
from norm_study.audit.findings import AuditReport
from zoo.fields import reach
from zoo.networks import Specimen
from zoo.planted import Planted

RIGHT, WRONG, NOT_MEASURED = "right", "wrong", "not measured"


@dataclass(frozen=True)
class Answer:
    """One network's row.

    Attributes:
        name: of the network.
        outcome: ``right``, ``wrong``, or ``not measured`` where the truth was something else.
        truth: verdict, blame and reach.
        answer: the audit's.
        reason: the audit's own words.
        seconds: that it took.
    """

    name: str
    outcome: str
    truth: str
    answer: str
    reason: str
    seconds: float


def _words(verdict: str, named: set[str], field: tuple[int, int] | None) -> str:
    return " ".join([verdict, *sorted(name or "the network itself" for name in named), str(field or "")]).strip()


def _audited(network: nn.Module, inputs: Sequence[torch.Tensor], dim: int) -> tuple[AuditReport, float]:
    began = time.perf_counter()
    dims = [dim, *[None] * (len(inputs) - 1)]
    report = audit(network, tuple(inputs), time_dims=dims, attribution=False, times=16)
    return report, time.perf_counter() - began


def _answer(name: str, right: bool, truth: str, report: AuditReport, seconds: float) -> Answer:
    named = {module.name for module in report.leaking_modules}
    outcome = RIGHT if right else NOT_MEASURED if report.verdict == NOT_MEASURED else WRONG
    said = _words(report.verdict, named, report.receptive_field)
    return Answer(name, outcome, truth, said, "; ".join([report.reason, *report.notes]), seconds)


def of_specimen(specimen: Specimen) -> Answer:
    """The audit of a network of the zoo: verdict, blame and, where something is local, the reach have to be right."""
    network, inputs = specimen.network(), specimen.inputs()
    with torch.no_grad():
        outputs = specimen.network()(*inputs).shape[specimen.dim]
    field = reach(specimen.field, outputs, specimen.shape[specimen.dim])
    report, seconds = _audited(network, inputs, specimen.dim)
    named = {module.name for module in report.leaking_modules}
    expected = {specimen.verdict}
    if specimen.verdict == NOT_MEASURED and report.notes:  # at other weights, or another input, if that is said
        expected.add(specimen.otherwise)
    exact = report.verdict in (NOT_MEASURED, "global") or report.receptive_field == field
    right = report.verdict in expected and named == specimen.blamed() and exact
    return _answer(specimen.name, right, _words(specimen.verdict, specimen.blamed(), field), report, seconds)


def of_planted(leak: Planted) -> Iterator[Answer]:
    """The audit of a network with a leak, which has to name it and nothing else, and of the same without."""
    name = f"{leak.index}: {leak.kind} in {leak.family}, strength {leak.strength:.0e}, moves {leak.moved:.0e}"
    report, seconds = _audited(leak.network, leak.inputs, leak.dim)
    named = {module.name for module in report.leaking_modules}
    right = report.verdict in ("leaks", "global") and named == {leak.name}
    yield _answer(name, right, _words("leaks", {leak.name}, None), report, seconds)
    report, seconds = _audited(leak.without, leak.inputs, leak.dim)
    right = report.verdict == "local" and not report.leaking_modules and report.receptive_field == leak.reach()
    yield _answer(f"{leak.index} without", right, _words("local", set(), leak.reach()), report, seconds)
