"""What one audit measures, on all its inputs: maps, receptive field, movement, each module's part."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from norm_study.audit.contributions import contributions
from norm_study.audit.findings import Movement
from norm_study.audit.influence import Rows, influence_rows, joined, phase_times, reach_of, sampled_times
from norm_study.audit.local_forms import LocalForm
from norm_study.audit.movement import finite_movement
from norm_study.audit.subject import Arguments, Subject

MOST_ROWS = 50_000


def hull(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The narrowest interval that holds both."""
    return max(one[0], other[0]), max(one[1], other[1])


class Measurements:
    """What one audit measures; the arguments are those of :func:`norm_study.audit.audit`."""

    def __init__(
        self,
        subject: Subject,
        inputs: list[Arguments],
        output_length: int,
        *,
        times: int,
        projections: int,
        exact: bool,
        redraws: int,
        tolerance: float,
        seed: int,
    ):
        self.subject, self.inputs, self.output_length = subject, inputs, output_length
        self.projections, self.exact, self.redraws, self.tolerance = projections, exact, redraws, tolerance
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)
        self.times = [sampled_times(output_length, times, self.generator) for _ in inputs]

    def signs(self) -> torch.Generator:
        """Of the projections: the same ones for every map, so that maps differ by the modules alone."""
        return torch.Generator().manual_seed(self.seed + 1)

    def heard(self, arguments: Arguments) -> bool:
        """Whether any output has a gradient of the arguments' sequences."""
        leaves, output = self.subject.with_gradients(arguments)
        if not output.requires_grad:
            return False
        signs = torch.randn(output.shape, generator=self.signs(), dtype=torch.float64).to(output)
        gradients = torch.autograd.grad(output, leaves, signs, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    def hears_everything(self, forms: Sequence[LocalForm], phases: int) -> bool:
        """Whether, with statistics constant, the last output hears the first input, or the first the last."""
        if not any(form.by_design for form in forms):
            return False
        statistics = [form for form in forms if not form.by_design]
        phases = max(1, min(phases, self.output_length // 8, self.subject.length(self.inputs[0]) // 8))
        ends = [*range(phases), *range(self.output_length - phases, self.output_length)]
        rows = influence_rows(
            self.subject, self.inputs[0], ends, self.signs(), local=statistics, projections=1, compare=False
        )
        heard = rows.full.max(1) > 0
        return bool(heard[:phases, -phases:].any() or heard[phases:, :phases].any())

    def affordable(self, forms: list[LocalForm]) -> list[LocalForm]:
        """The forms for the frozen maps: those of modules that mix by design only where they are not too slow."""
        products = sum(map(len, self.times)) * self.projections * sum(form.rows for form in forms if form.by_design)
        return forms if products <= MOST_ROWS else [form for form in forms if not form.by_design]

    def rows(self, *, active: Sequence[LocalForm] | None = None, local: Sequence[LocalForm] = ()) -> Rows:
        """The maps of all inputs: with ``active``, beside those where these are made local."""
        parts = []
        for arguments, times in zip(self.inputs, self.times, strict=True):
            parts.append(
                influence_rows(
                    self.subject,
                    arguments,
                    times,
                    self.signs(),
                    active=active or (),
                    local=local,
                    projections=self.projections,
                    exact=self.exact,
                    compare=active is not None,
                )
            )
        return joined(parts)

    def receptive_field(self, maps: Rows | None, forms: Sequence[LocalForm], phases: int) -> tuple[int, int]:
        """The hull over the sampled times and over every phase of the strides, on all inputs and redrawn ones.

        Redrawing ends when two in a row have added nothing.
        """
        reach = (0, 0) if maps is None else reach_of(maps, self.tolerance)
        redrawn = (self.subject.redraw(self.inputs[i % len(self.inputs)], self.generator) for i in range(self.redraws))
        idle = -len(self.inputs)
        for arguments in [*self.inputs, *redrawn]:
            rows = influence_rows(
                self.subject,
                arguments,
                phase_times(self.output_length, phases),
                self.generator,
                local=forms,
                projections=1,
                compare=False,
                pattern=True,
            )
            before, reach = reach, hull(reach, reach_of(rows, self.tolerance))
            idle = idle + 1 if reach == before or idle < 0 else 0
            if idle == 2:
                break
        return reach

    def contributions(
        self, forms: Sequence[LocalForm], local: Sequence[LocalForm], interval: tuple[int, int]
    ) -> dict[int, float]:
        """Leakage with each module alone in its other form, see :mod:`norm_study.audit.contributions`."""
        found = [
            contributions(
                self.subject,
                arguments,
                times,
                self.signs(),
                forms=forms,
                local=local,
                projections=self.projections,
                exact=self.exact,
            )
            for arguments, times in zip(self.inputs, self.times, strict=True)
        ]
        leakage = {}
        for i, form in enumerate(forms):
            if all(i in rows for rows in found):
                maps = joined([rows[i] for rows in found])
            else:  # called several times: a pass of its own
                others = [other for other in local if other is not form]
                maps = self.rows(local=others if form in local else [form])
            estimate = maps.leakage(*interval)
            leakage[i] = 0.0 if estimate is None else estimate.value
        return leakage

    def finite(self, interval: tuple[int, int]) -> list[Movement]:
        """The finite test on every input."""
        found = []
        for i, (arguments, times) in enumerate(zip(self.inputs, self.times, strict=True)):
            moved = finite_movement(
                self.subject, arguments, interval, times, lambda one: self.subject.redraw(one, self.generator)
            )
            found.append(Movement(i, *((None, None) if moved is None else (moved.value, moved.standard_error))))
        return found
