"""One audit, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from groundwork.errors import UserError
from norm_study.audit.attribution import Attribution, Finding
from norm_study.audit.findings import AuditReport, ModuleReport, Movement
from norm_study.audit.influence import Estimate, Rows
from norm_study.audit.local_forms import LocalForm
from norm_study.audit.measuring import Measurements, hull
from norm_study.audit.recording import record, shortest_time
from norm_study.audit.subject import Arguments, Subject, stretched
from norm_study.audit.verdict import decide, rounding

MOST_PHASES = 256


class NetworkFails(UserError):
    """The network raises an exception on its inputs.

    Attributes:
        reason: the exception's, in one line.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def within(name: str, other: str) -> bool:
    """Whether a module lies inside another, by their names; the network itself is named with nothing."""
    return name != other and (other == "" or name.startswith(other + "."))


class Session:
    """One audit, step by step.

    Args:
        subject: the network.
        inputs: its arguments, one tuple per input.
        notes: what the reader must know; more is added.
        settings: of :class:`norm_study.audit.measuring.Measurements`.
    """

    def __init__(self, subject: Subject, inputs: list[Arguments], notes: list[str], settings: dict[str, Any]):
        self.subject, self.notes = subject, notes
        self.cost: dict[str, float] = {}
        self._clock = time.perf_counter()
        with torch.no_grad():
            output = self._first_run(inputs[0])
        self.output_length, self.output_rows = output.shape[subject.output_time_dim], output.numel()
        self.threshold = rounding(output.dtype)
        self.measured = Measurements(subject, inputs, self.output_length, **settings)
        self.measured.inputs = [self._telling(i, arguments) for i, arguments in enumerate(inputs)]

    def _first_run(self, arguments: Arguments) -> Tensor:
        try:
            output = self.subject(arguments)
        except UserError:
            raise
        except Exception as error:  # whatever a foreign network raises
            shapes = [list(value.shape) for value in arguments if isinstance(value, Tensor)]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            message = f"the network fails on inputs of shapes {shapes} in {arguments[0].dtype}: {reason}"
            raise NetworkFails(message, reason) from error
        if not -output.ndim <= self.subject.output_time_dim < output.ndim:
            dim = self.subject.output_time_dim
            raise UserError(f"output_time_dim = {dim}: the output of shape {list(output.shape)} has no such axis")
        if not torch.isfinite(output).all():
            raise UserError("the network's output is not finite on these inputs")
        return output

    def _telling(self, which: int, arguments: Arguments) -> Arguments:
        """The arguments, or redrawn ones where the given ones are constant or leave every gradient zero."""
        if all(self.subject.is_constant(arguments, i) for i in self.subject.timed(arguments)):
            reason = "is constant over time"
        elif not self.measured.heard(arguments):
            reason = "has no gradient of any output"
        else:
            return arguments
        redrawn = self.subject.redraw(arguments, torch.Generator().manual_seed(self.subject.seed))
        if self.measured.heard(redrawn):
            self.notes.append(f"input {which} {reason}: measured on one drawn from a normal distribution instead")
            return redrawn
        return arguments

    def _timeless(self) -> bool:
        """Whether the output's axis does not grow with the input."""
        dim = self.subject.output_time_dim
        try:
            with torch.no_grad():
                longer = self.subject(stretched(self.subject, self.measured.inputs[0], "time"))
        except Exception:  # a network of one length; the recording has noted it
            return False
        if longer.shape[dim] != self.output_length:
            return False
        self.notes.append(
            f"axis {dim} of the output does not grow with the input: is it time? (output_time_dim names another)"
        )
        return True

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.cost[f"seconds_{name}"], self._clock = now - self._clock, now

    def report(self, attribution: bool, settings: dict[str, Any]) -> AuditReport:
        """All measurements."""
        measured = self.measured
        calls = record(self.subject, measured.inputs[0], self.notes)
        phases = min(MOST_PHASES, -(-self.output_length // shortest_time(calls, self.output_length)))
        timeless = self._timeless()
        attributed = Attribution(self.subject.module, calls, measured.seed, measured.tolerance)
        findings = attributed.in_order()
        self.notes += attributed.notes
        forms = [found.form for found in findings if found.form is not None]
        hears_everything = measured.hears_everything(forms, phases)
        self._lap("verdicts")
        frozen = measured.affordable(forms)
        if len(frozen) < len(forms):
            self.notes.append(
                "the frozen map leaves modules that mix by design as they are, and no module's own leakage is given: "
                "making them local would take too long"
            )
        maps = measured.rows(active=frozen)
        self._lap("maps")
        interval = measured.receptive_field(maps if frozen == forms else None, forms, phases)
        self._lap("receptive_field")
        interval, leakage, finite = self._beyond(interval, maps, attributed.findings[""] if not forms else None)
        self._note(interval, maps, leakage)
        self._lap("finite")
        modules = self._modules(findings, forms, interval, leakage, attribution and frozen == forms)
        self._lap("attribution")
        verdict, reason = decide(
            leakage,
            finite,
            modules,
            depends=bool(maps.full.any()),
            hears_everything=hears_everything,
            timeless=timeless,
            untested="" not in attributed.findings or "" in attributed.untested,
            threshold=self.threshold,
        )
        products = self.output_rows // self.output_length if measured.exact else measured.projections
        rows = sum(map(len, measured.times)) * products
        self.cost["share_of_jacobian_rows"] = rows / (self.output_rows * len(measured.inputs))
        settings |= {"shapes": [list(x.shape) for x in measured.inputs[0] if isinstance(x, Tensor)]}
        change = maps.jacobian_change()
        return AuditReport(
            verdict, reason, leakage, change, interval, modules, finite, maps, self.notes, self.cost, settings
        )

    def _beyond(
        self, interval: tuple[int, int], maps: Rows, whole: Finding | None
    ) -> tuple[tuple[int, int], Estimate | None, list[Movement]]:
        """Leakage and movement, with the receptive field widened by what reaches an output without a gradient.

        Args:
            interval: the receptive field by gradients.
            maps: of the network.
            whole: what was found about the network itself, where nothing in it mixes.
        """
        finite = self.measured.finite(interval)
        if whole is not None and any((m.value or 0) > self.threshold for m in finite):
            wider = hull(interval, whole.reach)
            if wider != interval:
                self.notes.append(f"beyond {interval}, the receptive field is reached without gradients")
                interval, finite = wider, self.measured.finite(wider)
        return interval, maps.leakage(*interval), finite

    def _note(self, interval: tuple[int, int], maps: Rows, leakage: Estimate | None) -> None:
        length, outside = self.subject.length(self.measured.inputs[0]), maps.outside(*interval).any(1)
        if not outside.any():
            self.notes.append(
                f"no leakage is given: an input of {length} steps lies within the receptive field of every measured "
                f"output, which reaches at least {interval[0]} steps to the left and {interval[1]} to the right; "
                "take a longer input"
            )
        elif leakage is None:
            self.notes.append("no leakage is given: the Jacobian is zero")
        elif (share := float(outside.mean())) < 0.5:
            self.notes.append(f"only {100 * share:.0f} % of the output times have inputs outside their receptive field")

    def _modules(
        self,
        findings: Sequence[Finding],
        forms: Sequence[LocalForm],
        interval: tuple[int, int],
        leakage: Estimate | None,
        attribution: bool,
    ) -> list[ModuleReport]:
        """A row per module; a local one leaks nothing alone, and without it all remains."""
        whole = None if leakage is None else leakage.value
        wanted = attribution and whole is not None
        names = [found.name for found in findings if found.form is not None]
        without = self.measured.contributions(forms, (), interval) if wanted else {}
        # what lies inside another module that mixes cannot be active while that one is local
        apart = [i for i, name in enumerate(names) if not any(within(name, other) for other in names)]
        active = self.measured.contributions([forms[i] for i in apart], forms, interval) if wanted else {}
        rows: list[ModuleReport] = []
        parts: dict[str, tuple[float | None, float | None]]
        parts = {name: (None, without.get(i)) for i, name in enumerate(names)}
        for i, which in enumerate(apart):
            parts[names[which]] = (active.get(i), without.get(which))
        for found in findings:
            alone, remains = parts.get(found.name, (None, None) if whole is None else (0.0, whole))
            design = found.form is not None and found.form.by_design
            name = ".".join(part for part in found.name.split(".") if part != "_orig_mod")
            rows.append(ModuleReport(name, found.type, found.verdict, found.mixes_batch, alone, remains, design))
        return rows
