"""What every module of a network is given, and which axes of it are time and batch.

The network runs once more on inputs twice as long, and once on twice the batch: an axis that grows with the time of
the inputs is time, whatever the layout and the resolution inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from norm_study.audit.subject import Arguments, Subject, is_real, reseed, stretched, tensors_in

Axes = list[tuple[int, ...]]


@dataclass
class Call:
    """One call of a module.

    Attributes:
        module: which.
        leaves: copies of its arguments, nested ones laid out flat.
        spec: how they were nested.
        time_axes: per leaf the axes that are time.
        batch_axes: per leaf the axes that are batch.
        calls: how often the module is called in one run.
        output: which of its tensors counts, where only one does; the others are then zeros.
    """

    module: nn.Module
    leaves: list[Any]
    spec: Any
    time_axes: Axes
    batch_axes: Axes
    calls: int = 1
    output: str | None = None

    def run(self, leaves: Sequence[Any], seed: int) -> list[Tensor]:
        """The floating-point tensors that the module returns; its buffers stay as they are."""
        reseed(seed)
        buffers = [(owner, dict(owner._buffers)) for owner in self.module.modules()]
        for owner, own in buffers:
            owner._buffers.update({name: None if b is None else b.clone() for name, b in own.items()})
        try:
            given = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = tree_unflatten(given, self.spec)
            returned = self.module(*args, **kwargs)
            found = [leaf for leaf in tree_flatten(returned)[0] if is_real(leaf)]
            if self.output is None:
                return found
            meant = dict(tensors_in(returned))[self.output]
            return [leaf if leaf is meant else torch.zeros_like(leaf) for leaf in found]
        finally:
            for owner, own in buffers:
                owner._buffers.update(own)


@contextmanager
def observed(module: nn.Module, see: Any) -> Iterator[None]:
    """Calls ``see(name, part, leaves, spec)`` before every call of every part of a module."""
    handles = []
    try:
        for name, part in module.named_modules():

            def hook(part: nn.Module, args: tuple, kwargs: dict[str, Any], name: str = name) -> None:
                see(name, part, *tree_flatten((args, kwargs)))

            handles.append(part.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


Shapes = dict[str, list[list[tuple[int, ...]]]]


def _shapes(subject: Subject, arguments: Arguments) -> Shapes:
    found: Shapes = {}

    def see(name: str, part: nn.Module, leaves: list[Any], spec: Any) -> None:
        found.setdefault(name, []).append([tuple(x.shape) if isinstance(x, Tensor) else () for x in leaves])

    with torch.no_grad(), observed(subject.module, see):
        subject(arguments)
    return found


def _grown(before: Sequence[tuple[int, ...]], after: Sequence[tuple[int, ...]]) -> Axes:
    """Per leaf the axes along which the second shape is larger."""
    if len(before) != len(after):
        return [() for _ in before]
    return [
        tuple(d for d in range(len(a)) if b[d] > a[d]) if len(a) == len(b) else ()
        for a, b in zip(before, after, strict=True)
    ]


def _guessed(shapes: Sequence[tuple[int, ...]], length: int) -> Axes:
    """Axes as long as the input, for networks that accept one length only."""
    return [tuple(d for d in range(len(shape)) if shape[d] == length and len(shape) > 1) for shape in shapes]


def record(subject: Subject, arguments: Arguments, notes: list[str]) -> dict[str, Call]:
    """The first call of every module whose arguments have time or batch, by the module's name.

    Args:
        subject: the network.
        arguments: one input.
        notes: what could not be done is added here.
    """
    base = _shapes(subject, arguments)
    grown: dict[str, Shapes | None] = {}
    for what in ("time", "batch"):
        try:
            grown[what] = _shapes(subject, stretched(subject, arguments, what))
        except Exception as error:  # whatever a foreign network raises
            grown[what] = None
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            notes.append(f"the network does not run with twice the {what} ({reason}); " + _CONSEQUENCE[what])
    length = subject.length(arguments)

    def axes(name: str, call: int, what: str) -> Axes:
        others, own = grown[what], base[name][call]
        if others is None:
            return _guessed(own, length) if what == "time" else [() for _ in own]
        same = others.get(name, [])
        return _grown(own, same[call]) if call < len(same) else [() for _ in own]

    seen: dict[str, int] = {}
    calls: dict[str, Call] = {}

    def see(name: str, part: nn.Module, leaves: list[Any], spec: Any) -> None:
        which = seen[name] = seen.get(name, -1) + 1
        time = axes(name, which, "time")
        if name not in calls or (any(time) and not any(calls[name].time_axes)):
            kept = [x.detach().clone() if isinstance(x, Tensor) else x for x in leaves]
            output = subject.output if part is subject.module else None
            calls[name] = Call(part, kept, spec, time, axes(name, which, "batch"), len(base[name]), output)

    with torch.no_grad(), observed(subject.module, see):
        subject(arguments)
    return calls


_CONSEQUENCE = {
    "time": "time axes are taken to be those of the input's length",
    "batch": "mixing of the batch is not tested",
}


def shortest_time(calls: dict[str, Call], length: int) -> int:
    """The smallest number of time steps that any module is given."""
    return min(
        [length]
        + [
            leaf.shape[d]
            for call in calls.values()
            for leaf, dims in zip(call.leaves, call.time_axes, strict=True)
            for d in dims
        ]
    )
