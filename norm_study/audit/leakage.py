"""The leak audit: how much of what a network's output hears comes from beyond its receptive field, and by which layer.

    report = audit(network, (trajectory, level), time_dims=-1)
    report.leakage.value, report.receptive_field, [m.name for m in report.modules if m.verdict != "local"]

Definitions: *leakage* is the energy of the Jacobian outside the receptive field over its whole energy; the *receptive
field* is where the Jacobian is not zero once every module that mixes time is made local; the *norm-borne share* is
‖J_full − J_conv‖² / ‖J_full‖². Letters: N output times, S input times, T output times of the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from groundwork.errors import UserError
from norm_study.audit.attribution import Attribution, Finding
from norm_study.audit.findings import AuditReport, ModuleReport, Movement
from norm_study.audit.influence import (
    Estimate,
    Rows,
    influence_rows,
    joined,
    phase_times,
    reach_of,
    sampled_times,
)
from norm_study.audit.local_forms import LocalForm
from norm_study.audit.movement import finite_movement
from norm_study.audit.recording import record, shortest_time, stretched_arguments
from norm_study.audit.subject import Arguments, Subject, borrowed, check_arguments

MOST_PHASES = 256


def audit(
    module: nn.Module,
    inputs: Any,
    *,
    time_dims: int | Sequence[int | None] = -1,
    output_time_dim: int | None = None,
    times: int = 32,
    projections: int = 2,
    exact: bool = False,
    dtype: torch.dtype | None = torch.float64,
    training: bool | None = None,
    attribution: bool = True,
    redraws: int = 4,
    tolerance: float = 0.0,
    seed: int = 0,
) -> AuditReport:
    """Measures what a network leaks through time, and which modules do it.

    The module comes back as it was: parameters, buffers, mode, ``requires_grad``, hooks, random generators.

    Args:
        module: any network; its output is the first floating-point tensor that it returns.
        inputs: its arguments as a tuple, the sequence first (a lone tensor will do); or a list of such tuples, of
            equal shapes, to measure over several inputs, at several noise levels for instance.
        time_dims: the time axis of the first argument; or one entry per argument, ``None`` where there is no time.
        output_time_dim: the time axis of the output; by default that of the first argument.
        times: output times measured, one at random in each of as many equal stretches.
        projections: random sign vectors per output time.
        exact: every output channel instead of random projections.
        dtype: what the network is converted to while it is measured; ``None`` keeps its own.
        training: the mode that is audited; ``None`` keeps the module's own.
        attribution: whether to measure each mixing module's own leakage too.
        redraws: further random inputs that the receptive field is hulled over, since a ReLU that is off hides some.
        tolerance: influences up to this share of the largest count as none. Leave it at 0 unless convolutions are
            computed through transforms, whose rounding reaches everywhere.
        seed: of projections, output times, redrawn inputs and the network's own randomness.

    Raises:
        UserError: arguments without the time axis they should have, or a network that fails on them.
    """
    if times < 1 or projections < 1 or redraws < 0:
        raise UserError(f"times = {times} and projections = {projections} must be at least 1, redraws = {redraws} 0")
    settings = {"module": type(module).__name__, "times": times, "projections": projections, "exact": exact}
    settings |= {"dtype": None if dtype is None else str(dtype).removeprefix("torch."), "training": training}
    settings |= {"redraws": redraws, "tolerance": tolerance, "seed": seed}
    checked = [check_arguments(one, time_dims, dtype) for one in (inputs if isinstance(inputs, list) else [inputs])]
    if not checked:
        raise UserError("inputs is an empty list")
    given, dims = [one for one, _ in checked], checked[0][1]
    assert dims[0] is not None
    with borrowed(module, dtype, training):
        subject = Subject(module, dims, dims[0] if output_time_dim is None else output_time_dim, seed)
        session = _Session(subject, given, times, projections, exact, redraws, tolerance, seed)
        return session.report(attribution, settings)


def within(name: str, other: str) -> bool:
    """Whether a module lies inside another, by their names; the network itself is named with nothing."""
    return name != other and (other == "" or name.startswith(other + "."))


class _Session:
    """One audit, step by step."""

    def __init__(
        self,
        subject: Subject,
        inputs: list[Arguments],
        times: int,
        projections: int,
        exact: bool,
        redraws: int,
        tolerance: float,
        seed: int,
    ):
        self.subject, self.inputs, self.exact, self.tolerance = subject, inputs, exact, tolerance
        self.projections, self.redraws, self.seed = projections, redraws, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.notes: list[str] = []
        self.cost: dict[str, float] = {}
        self._clock = time.perf_counter()
        with torch.no_grad():
            output = self._first_run()
        self.output_length = output.shape[subject.output_time_dim]
        self.output_rows = output.numel()
        self.times = [sampled_times(self.output_length, times, self.generator) for _ in inputs]

    def _first_run(self) -> torch.Tensor:
        arguments = self.inputs[0]
        try:
            output = self.subject(arguments)
        except UserError:
            raise
        except Exception as error:  # whatever a foreign network raises
            shapes = [list(value.shape) for value in arguments if isinstance(value, torch.Tensor)]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise UserError(
                f"the network fails on inputs of shapes {shapes} in {arguments[0].dtype}: {reason}"
            ) from error
        if not -output.ndim <= self.subject.output_time_dim < output.ndim:
            dim = self.subject.output_time_dim
            raise UserError(f"output_time_dim = {dim}: the output of shape {list(output.shape)} has no such axis")
        if not torch.isfinite(output).all():
            raise UserError("the network's output is not finite on these inputs")
        return output

    def _check_output_axis(self) -> None:
        """Notes an output whose axis does not grow with the input."""
        dim = self.subject.output_time_dim
        try:
            with torch.no_grad():
                longer = self.subject(stretched_arguments(self.subject, self.inputs[0], "time"))
        except Exception:  # a network of one length; the recording has noted it
            return
        if longer.shape[dim] == self.output_length:
            self.notes.append(
                f"axis {dim} of the output does not grow with the input: is it time? (output_time_dim names another)"
            )

    def _signs(self) -> torch.Generator:
        """Of the projections: the same ones for every map, so that maps differ by the modules alone."""
        return torch.Generator().manual_seed(self.seed + 1)

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.cost[f"seconds_{name}"], self._clock = now - self._clock, now

    def report(self, attribution: bool, settings: dict[str, Any]) -> AuditReport:
        """All measurements."""
        calls = record(self.subject, self.inputs[0], self.notes)
        phases = min(MOST_PHASES, -(-self.output_length // shortest_time(calls, self.output_length)))
        self._check_output_axis()
        attributed = Attribution(self.subject.module, calls, self.seed, self.tolerance)
        findings = attributed.in_order()
        self.notes += attributed.notes
        forms = [found.form for found in findings if found.form is not None]
        self._lap("verdicts")
        maps = joined(
            [
                influence_rows(
                    self.subject,
                    one,
                    times,
                    self._signs(),
                    active=forms,
                    projections=self.projections,
                    exact=self.exact,
                )
                for one, times in zip(self.inputs, self.times, strict=True)
            ]
        )
        self._lap("maps")
        interval = self._receptive_field(maps, forms, phases)
        self._lap("receptive_field")
        leakage = maps.leakage(*interval)
        self._note(interval, maps, leakage)
        modules = self._modules(findings, forms, interval, leakage, attribution)
        self._lap("attribution")
        finite = self._finite(interval)
        self._lap("finite")
        products = self.output_rows // self.output_length if self.exact else self.projections
        rows = sum(map(len, self.times)) * products
        self.cost["share_of_jacobian_rows"] = rows / (self.output_rows * len(self.inputs))
        settings |= {"shapes": [list(x.shape) for x in self.inputs[0] if isinstance(x, torch.Tensor)]}
        return AuditReport(leakage, maps.norm_borne(), interval, modules, finite, maps, self.notes, self.cost, settings)

    def _receptive_field(self, maps: Rows, forms: Sequence[LocalForm], phases: int) -> tuple[int, int]:
        """The hull over the sampled times and over every phase of the strides, on all inputs and redrawn ones."""
        reaches = [reach_of(maps, self.tolerance)]
        redrawn = [self.subject.redraw(self.inputs[i % len(self.inputs)], self.generator) for i in range(self.redraws)]
        for arguments in [*self.inputs, *redrawn]:
            rows = influence_rows(
                self.subject,
                arguments,
                phase_times(self.output_length, phases),
                self.generator,
                local=forms,
                projections=1,
                compare=False,
            )
            reaches.append(reach_of(rows, self.tolerance))
        left, right = np.max(reaches, 0).tolist()
        return left, right

    def _note(self, interval: tuple[int, int], maps: Rows, leakage: Estimate | None) -> None:
        length = self.subject.length(self.inputs[0])
        if leakage is None:
            self.notes.append(
                f"no leakage is given: an input of {length} steps lies within the receptive field of every measured "
                f"output, which reaches at least {interval[0]} steps to the left and {interval[1]} to the right; "
                "take a longer input"
            )
        elif (share := float(maps.outside(*interval).any(1).mean())) < 0.5:
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
        rows, whole = [], None if leakage is None else leakage.value
        for found in findings:
            alone, without = (None, None) if whole is None else (0.0, whole)
            if found.form is not None and whole is not None:
                alone = without = None
                if attribution:
                    inside = any(within(found.name, other.name) for other in findings if other.form is not None)
                    others = [form for form in forms if form is not found.form]
                    alone = None if inside else self._leakage(others, interval)
                    without = self._leakage([found.form], interval)
            rows.append(ModuleReport(found.name, found.type, found.verdict, found.mixes_batch, alone, without))
        return rows

    def _leakage(self, local: Sequence[LocalForm], interval: tuple[int, int]) -> float | None:
        """Leakage with some modules local."""
        parts = []
        for arguments, times in zip(self.inputs, self.times, strict=True):
            parts.append(
                influence_rows(
                    self.subject,
                    arguments,
                    times,
                    self._signs(),
                    local=local,
                    projections=self.projections,
                    exact=self.exact,
                    compare=False,
                )
            )
        estimate = joined(parts).leakage(*interval)
        return None if estimate is None else estimate.value

    def _finite(self, interval: tuple[int, int]) -> list[Movement]:
        found = []
        for i, (arguments, times) in enumerate(zip(self.inputs, self.times, strict=True)):
            moved = finite_movement(
                self.subject, arguments, interval, times, lambda one: self.subject.redraw(one, self.generator)
            )
            found.append(Movement(i, *((None, None) if moved is None else (moved.value, moved.standard_error))))
        return found
