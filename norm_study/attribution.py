"""Which module mixes time beyond its kernels: each is tested on the input that it gets inside the network.

A few neighbouring steps of a module's input are changed. If the stretch of its output that changes with them grows
when the input is made longer, the module mixes time; a convolution's does not, however large its kernel, once the
input is longer than that. Blame goes to the innermost module: one that contains mixing modules is tested with those
made local, and is blamed only for what it does itself. Gradients are looked at in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from norm_study.local_forms import LocalForm, made_local
from norm_study.recording import Axes, Call, longer
from norm_study.subject import aligned, is_real

Verdict = Literal["local", "mixes time", "mixes the batch"]
Spans = dict[tuple[int, int], tuple[int, int, int]]  # (leaf, axis) to first and last index that changed, and size
GROWTH = 0.25  # of the growth of the output: a module that mixes one way only grows by half of it
LONGEST = 2**16


@dataclass(frozen=True)
class Finding:
    """What was found about one module.

    Attributes:
        name: its name in the network.
        type: its class.
        verdict: what it does itself, apart from the modules inside it.
        mixes_batch: whether one sample's output hears of another's input.
        reach: how far left and right it hears at the resolution of its input, when it is local.
        form: how to make it local, when it mixes time.
    """

    name: str
    type: str
    verdict: Verdict
    mixes_batch: bool
    reach: tuple[int, int]
    form: LocalForm | None


class _Test:
    """One module's recorded call, at its own length and longer, along the axis that is tested."""

    def __init__(self, call: Call, axes: Axes, seed: int):
        self.call, self.axes, self.seed = call, axes, seed
        self.size = min(leaf.shape[d] for leaf, dims in zip(call.leaves, axes, strict=True) for d in dims)
        self.window = min(8, max(1, self.size // 4))
        self._unmoved: dict[int, list[Tensor]] = {}

    def lengthened(self, times: int) -> list[Any]:
        """The recorded arguments, ``times`` as long."""
        leaves = list(self.call.leaves)
        for i, dims in enumerate(self.axes):
            for dim in dims:
                leaves[i] = longer(leaves[i], dim, times)
        return leaves

    def moved(self, times: int, start: int) -> list[Any]:
        """The longer arguments, with a window of every real tensor changed that begins at index ``start``."""
        leaves, generator = self.lengthened(times), torch.Generator().manual_seed(self.seed)
        for i, dims in enumerate(self.axes):
            if not dims or not is_real(leaves[i]) or not torch.isfinite(leaves[i]).all():
                continue
            scale = float(leaves[i].std(correction=0)) or 1.0
            for dim in dims:
                size = leaves[i].shape[dim]
                first = min(size - 1, max(0, aligned(start, self.size * times, size)))
                part = leaves[i].narrow(dim, first, min(self.window, size - first))
                part += scale * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
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
        """Where a window in the middle begins."""
        return (size - self.window) // 2

    def changed_outputs(self, times: int) -> Spans:
        """Where outputs change when the middle of the input does."""
        return _spans(self.changes(times, self.start(self.size * times)), self.output_axes)

    def heard_inputs(self, times: int, blamed: Sequence[LocalForm], tolerance: float) -> Spans:
        """Where inputs have a gradient from the middle of the output, with the blamed modules inside made local."""
        leaves = self.lengthened(times)
        real = [i for i, dims in enumerate(self.axes) if dims and is_real(leaves[i])]
        for i in real:
            leaves[i] = leaves[i].detach().requires_grad_()
        with torch.enable_grad(), made_local(blamed):
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
    def growth(key: tuple[int, int]) -> float:
        (low, high, size), (new_low, new_high, new_size) = before[key], after[key]
        return (new_high - new_low) - (high - low) - GROWTH * (new_size - size)

    return any(growth(key) > 0 for key in before)


def _growth(spans_at: Callable[[int], Spans], cap: int) -> tuple[bool, Spans, int]:
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


class Attribution:
    """Tests every recorded module of a network, those inside before those around them.

    Args:
        network: the network.
        calls: what its modules were given, see :func:`norm_study.recording.record`.
        seed: of the changes.
        tolerance: gradients up to this share of the largest count as zero.
    """

    def __init__(self, network: nn.Module, calls: dict[str, Call], seed: int, tolerance: float):
        self.calls, self.seed, self.tolerance = calls, seed, tolerance
        self.modules = dict(network.named_modules())
        self.findings: dict[str, Finding] = {}
        for name in reversed([name for name in self.modules if name in calls]):
            self.findings[name] = self._find(name)

    def in_order(self) -> list[Finding]:
        """The findings worth a row, in the network's order: single layers, and whatever mixes."""
        return [
            self.findings[name]
            for name, module in self.modules.items()
            if name in self.findings
            and (not any(module.children()) or self.findings[name].verdict != "local")
        ]  # fmt: skip

    def _inside(self, name: str) -> list[Finding]:
        prefix = f"{name}." if name else ""
        return [found for other, found in self.findings.items() if other != name and other.startswith(prefix)]

    def _find(self, name: str) -> Finding:
        call, inside = self.calls[name], self._inside(name)
        blamed = [found.form for found in inside if found.form is not None]
        mixes_time, reach, form = self._time(name, call, blamed)
        mixes_batch = not any(found.mixes_batch for found in inside) and self._batch(call)
        verdict: Verdict = "mixes time" if mixes_time else "mixes the batch" if mixes_batch else "local"
        return Finding(name, type(call.module).__name__, verdict, mixes_batch, reach, form)

    def _time(
        self, name: str, call: Call, blamed: Sequence[LocalForm]
    ) -> tuple[bool, tuple[int, int], LocalForm | None]:
        if not any(call.time_axes):
            return False, (0, 0), None
        test, bound = _Test(call, call.time_axes, self.seed), self._bound(name)
        cap = min(LONGEST, max(4 * test.size, 1024, 4 * sum(bound)))
        reach, output_dims = bound, []
        try:
            output_dims = [dims[0] if dims else None for dims in test.output_axes]
            mixes = False
            if not blamed and any(test.output_axes):
                mixes, spans, times = _growth(test.changed_outputs, cap)
                reach = reach if mixes else _reach(test, spans, times)
            elif not blamed:
                mixes = test.pools()
            # A recurrent network forgets: its changes sink below rounding, its gradients do not.
            mixes = mixes or _growth(lambda times: test.heard_inputs(times, blamed, self.tolerance), cap)[0]
        except Exception:  # whatever a foreign module raises when its input is longer
            mixes = not blamed and test.crosses()
            output_dims = [_matching(output, test.size) for output in test.changes(1, 0)]
        if not mixes:
            return False, reach, None
        return True, bound, LocalForm(call.module, call.time_axes, output_dims, *bound)

    def _bound(self, name: str) -> tuple[int, int]:
        """At most how far the modules directly inside hear together, if each were the next one's input."""
        left = right = 0
        for child in self._children(name):
            own, theirs = self.calls[name], self.calls[child]
            if not any(theirs.time_axes):
                continue
            share = _time_steps(own) / _time_steps(theirs) * max(1.0, theirs.calls / own.calls)
            reach = self.findings[child].reach
            left, right = left + math.ceil(reach[0] * share), right + math.ceil(reach[1] * share)
        return left, right

    def _children(self, name: str) -> list[str]:
        """The nearest recorded modules inside one: a list of layers is itself never called."""
        found = []
        for own, _ in self.modules[name].named_children():
            child = f"{name}.{own}" if name else own
            if child in self.findings:
                found.append(child)
            elif child in self.modules:
                found += self._children(child)
        return found

    def _batch(self, call: Call) -> bool:
        if not any(call.batch_axes):
            return False
        test = _Test(call, call.batch_axes, self.seed)
        try:
            if any(test.output_axes):
                return _growth(test.changed_outputs, 4 * test.size)[0]
            return test.size > 1 and test.pools()
        except Exception:  # whatever a foreign module raises when its batch is larger
            return False


def _reach(test: _Test, spans: Spans, times: int) -> tuple[int, int]:
    """How far a local module hears, in steps of its input, from where its output changed."""
    low, high, size = next(iter(spans.values()))
    if high < low:
        return 0, 0
    length = test.size * times
    start, slack = test.start(length), max(0, -(-length // size) - 1)
    left = aligned(high, size, length) + slack - (start + test.window - 1)
    return max(0, left), max(0, start - aligned(low, size, length))


def _matching(output: Tensor, size: int) -> int | None:
    return next((d for d in range(output.ndim) if output.shape[d] == size), None)


def _time_steps(call: Call) -> int:
    return min((leaf.shape[d] for leaf, dims in zip(call.leaves, call.time_axes, strict=True) for d in dims), default=1)
