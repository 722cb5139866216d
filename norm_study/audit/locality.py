"""Whether one module mixes along an axis, tested on the arguments that it gets inside its network.

A few neighbouring steps of its input are changed. If the stretch of its output that changes with them grows when the
input is made longer, the module mixes; a convolution's does not, however large its kernel, once the input is longer
than that. The stretch of the input that has a gradient is looked at in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from norm_study.audit.local_forms import LocalForm, made_local
from norm_study.audit.recording import Axes, Call
from norm_study.audit.subject import aligned, is_real, longer

Spans = dict[tuple[int, int], tuple[int, int, int]]  # (leaf, axis) to first and last index that changed, and size
PLACE = 5 / 16  # of the length: neither an end nor the middle, which a flip maps onto itself
FAR = 6  # deviations that the window is moved by at least, beyond what may be the largest or smallest of all
JITTER = 0.01  # share by which copies of an input differ
GROWTH = 1 / 8  # of the growth of the output: what mixes one way grows by PLACE of it, less what it forgets


class LocalityTest:
    """One module's recorded call, at its own length and longer, along the axis that is tested."""

    def __init__(self, call: Call, axes: Axes, seed: int):
        self.call, self.axes, self.seed = call, axes, seed
        self.size = min(leaf.shape[d] for leaf, dims in zip(call.leaves, axes, strict=True) for d in dims)
        self.window = min(8, max(1, self.size // 4))
        self._unmoved: dict[int, list[Tensor]] = {}

    def lengthened(self, times: int) -> list[Any]:
        """The recorded arguments, ``times`` as long; copies differ a little, since no median moves among ties."""
        leaves, generator = list(self.call.leaves), torch.Generator().manual_seed(self.seed)
        for i, dims in enumerate(self.axes):
            for dim in dims:
                size, leaves[i] = leaves[i].shape[dim], longer(leaves[i], dim, times)
                if times > 1 and is_real(leaves[i]):
                    factors = 1 + JITTER * torch.randn(size * times, generator=generator, dtype=torch.float64)
                    factors[:size] = 1
                    leaves[i] = leaves[i] * factors.to(leaves[i]).view(-1, *[1] * (leaves[i].ndim - 1 - dim))
        return leaves

    def moved(self, times: int, start: int) -> list[Any]:
        """The longer arguments, with a window of every real tensor changed that begins at index ``start``.

        All but the last go the same way, since a median does not move where as many go up as down.
        """
        leaves, generator = self.lengthened(times), torch.Generator().manual_seed(self.seed)
        for i, dims in enumerate(self.axes):
            if not dims or not is_real(leaves[i]) or not torch.isfinite(leaves[i]).all():
                continue
            scale = float(leaves[i].std(correction=0)) or 1.0
            for dim in dims:
                size = leaves[i].shape[dim]
                first = min(size - 1, max(0, aligned(start, self.size * times, size)))
                part = leaves[i].narrow(dim, first, min(self.window, size - first))
                noise = torch.randn(part.shape, generator=generator, dtype=torch.float64)
                ways = noise.narrow(dim, 0, 1).sign() * torch.ones_like(noise)
                if part.shape[dim] > 1:
                    ways.narrow(dim, -1, 1).neg_()
                part += (scale * ways * (FAR + noise.abs())).to(part)
        return leaves

    def unmoved(self, times: int) -> list[Tensor]:
        """The outputs for the longer arguments as they are."""
        if times not in self._unmoved:
            with torch.no_grad():
                self._unmoved[times] = self.call.run(self.lengthened(times), self.seed)
        return self._unmoved[times]

    def changes(self, times: int, start: int) -> list[Tensor]:
        """By how much each output changes with the window."""
        with torch.no_grad():
            after = self.call.run(self.moved(times, start), self.seed)
        return [(a - b).abs() for a, b in zip(after, self.unmoved(times), strict=True)]

    @cached_property
    def output_axes(self) -> Axes:
        """Per output the axes that grow with the input."""
        pairs = zip(self.unmoved(1), self.unmoved(2), strict=True)
        return [tuple(d for d in range(a.ndim) if b.shape[d] > a.shape[d]) for a, b in pairs]

    def start(self, size: int) -> int:
        """Where the window begins."""
        return int(PLACE * (size - self.window))

    def changed_outputs(self, times: int) -> Spans:
        """Where outputs change when the input's window does."""
        return _spans(self.changes(times, self.start(self.size * times)), self.output_axes)

    def heard_inputs(self, times: int, blamed: Sequence[LocalForm], tolerance: float) -> Spans:
        """Where inputs have a gradient from the output's window, with the blamed modules inside made local."""
        leaves = self.lengthened(times)
        real = [i for i, dims in enumerate(self.axes) if dims and is_real(leaves[i])]
        for i in real:
            leaves[i] = leaves[i].detach().requires_grad_()
        with torch.enable_grad(), made_local(blamed, pattern=True):
            outputs = self.call.run(leaves, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        parts, cotangents = [], []
        for output, dims in zip(outputs, self.output_axes, strict=True):
            if output.requires_grad:
                part = output
                for dim in dims:
                    part = part.narrow(dim, self.start(part.shape[dim]), min(self.window, part.shape[dim]))
                parts.append(part)
                cotangents.append(torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part))
        if not parts:
            return {}
        given = [leaves[i] for i in real]
        gradients = torch.autograd.grad(parts, given, cotangents, allow_unused=True)
        values = [torch.zeros_like(x) if g is None else g.abs() for g, x in zip(gradients, given, strict=True)]
        return _spans(values, [self.axes[i] for i in real], tolerance)

    def pools(self) -> bool:
        """Whether one number of an output without the axis hears both ends of the input."""
        ends = [self.changes(1, start) for start in (0, self.size - self.window)]
        return any(bool((_changed(a) & _changed(b)).any()) for a, b in zip(*ends, strict=True))

    def crosses(self) -> bool:
        """Whether one end of the output hears the other of the input; for modules that accept one length only."""
        axes: Axes = [tuple(d for d in range(v.ndim) if v.shape[d] == self.size) for v in self.changes(1, 0)]
        first = _spans(self.changes(1, 0), axes)
        last = _spans(self.changes(1, self.size - self.window), axes)
        return any(hi == size - 1 for _, hi, size in first.values()) or any(
            lo == 0 and hi >= 0 for lo, hi, _ in last.values()
        )


def _changed(values: Tensor, tolerance: float | None = None) -> Tensor:
    """Which entries are above a share of the largest, by default more than the rounding of a difference."""
    largest = values.max() if values.numel() else values.new_zeros(())
    return values > (torch.finfo(values.dtype).eps ** 0.75 if tolerance is None else tolerance) * largest


def _spans(values: Sequence[Tensor], axes: Axes, tolerance: float | None = None) -> Spans:
    spans: Spans = {}
    for i, (value, dims) in enumerate(zip(values, axes, strict=True)):
        for dim in dims:
            where = _changed(value.movedim(dim, 0).reshape(value.shape[dim], -1), tolerance).any(1).nonzero()[:, 0]
            ends = (int(where[0]), int(where[-1])) if len(where) else (0, -1)
            spans[i, dim] = (*ends, value.shape[dim])
    return spans


def _grew(before: Spans, after: Spans) -> bool:
    """Whether any span, with the place of the window, has grown."""

    def width(low: int, high: int, size: int) -> int:
        place = int(PLACE * size)
        return max(high, place) - min(low, place) if low <= high else 0

    def excess(key: tuple[int, int]) -> float:
        return width(*after[key]) - width(*before[key]) - GROWTH * (after[key][2] - before[key][2])

    return any(excess(key) > 0 for key in before)


def growth(spans_at: Callable[[int], Spans], cap: int) -> tuple[bool, Spans, int]:
    """Doubles the length until the span stops growing or the length passes ``cap``.

    Returns:
        Whether it still grew, the last spans, and how many times the recorded length they were taken at.
    """
    times, before = 1, spans_at(1)
    while True:
        times *= 2
        after = spans_at(times)
        if not _grew(before, after):
            return False, after, times
        if max(size for _, _, size in after.values()) >= cap:
            return True, after, times
        before = after


def reach_of_changes(test: LocalityTest, spans: Spans, times: int) -> tuple[int, int]:
    """How far a local module hears, in steps of its input, from where its output changed."""
    low, high, size = next(iter(spans.values()))
    if high < low:
        return 0, 0
    length = test.size * times
    start, slack = test.start(length), max(0, -(-length // size) - 1)
    left = aligned(high, size, length) + slack - (start + test.window - 1)
    return max(0, left), max(0, start - aligned(low, size, length))
