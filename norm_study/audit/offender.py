"""Which module first passes on what it should not: by changing one input and watching every module's tensors.

A module is to blame whose inputs changed only where they may and whose output changed elsewhere; the first such call to
end is the innermost. Letters: T time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from norm_study.audit.subject import Arguments, Subject, aligned, is_real, stretched


@dataclass(frozen=True)
class _Ended:
    """A call that ended: the module, and its floating-point inputs and outputs."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]


def _watched(subject: Subject, arguments: Arguments) -> list[_Ended]:
    """Every module's calls in one run, in the order in which they end."""
    ended: list[_Ended] = []
    begun: list[list[Tensor]] = []
    handles = []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # copies: a module may write into its input
        begun.append([leaf.detach().clone() for leaf in tree_leaves((args, kwargs)) if is_real(leaf)])

    try:
        for name, part in subject.module.named_modules():

            def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any, name: str = name) -> None:
                outputs = [leaf.detach().clone() for leaf in tree_leaves(output) if is_real(leaf)]
                ended.append(_Ended(name, module, begun.pop(), outputs))

            handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(part.register_forward_hook(after, with_kwargs=True))
        with torch.no_grad():
            subject(arguments)
    finally:
        for handle in handles:
            handle.remove()
    return ended


def first_beyond(subject: Subject, arguments: Arguments, other: Arguments, step: int, allowed: Sequence[float]) -> str:
    """The module that first lets a change of one input step appear farther away than allowed.

    Args:
        subject: the network.
        arguments: one input.
        other: another; its step replaces the input's.
        step: which, of the first argument.
        allowed: how far left and right an output may hear.

    Returns:
        Its name and class in words.
    """
    dim = subject.time_dims[0]
    assert dim is not None
    index = torch.tensor([step], device=arguments[0].device)
    changed = arguments[0].index_copy(dim, index, other[0].index_select(dim, index))
    base, moved = _watched(subject, arguments), _watched(subject, (changed, *arguments[1:]))
    length = subject.length(arguments)
    try:
        longer = _watched(subject, stretched(subject, arguments, "time"))
    except Exception:  # a network of one length: axes as long as the input are taken for time
        longer = []
    calls = [
        (one, two, longer[i] if len(longer) == len(base) else None)
        for i, (one, two) in enumerate(zip(base, moved, strict=False))
    ]
    # Strides blur where a change lies by a step or so; only what is found nowhere else is looked for to the step.
    for exact in (False, True):
        found = _first(calls, lambda a, b, c, exact=exact: _beyond(a, b, c, length, step, allowed, exact))
        if found is not None:
            return f"{repr(found.name) if found.name else 'the network itself'} ({type(found.module).__name__})"
    return "none of its modules alone"


def _first(calls: Sequence[tuple[_Ended, _Ended, _Ended | None]], beyond: Callable[..., bool | None]) -> _Ended | None:
    """The first call to end whose inputs changed where they may and whose outputs did not."""
    pooled = None  # a call whose output has no time, which counts once what holds it passes the change on
    for one, two, twice in calls:
        spreads = [
            [
                beyond(a, b, None if twice is None else getattr(twice, side)[j].shape)
                for j, (a, b) in enumerate(zip(getattr(one, side), getattr(two, side), strict=True))
            ]
            for side in ("inputs", "outputs")
        ]
        if any(spread in (True, None) for spread in spreads[0]):
            continue
        if any(spread is True for spread in spreads[1]):
            inside = pooled is not None and (not one.name or pooled.name.startswith(f"{one.name}."))
            return pooled if inside else one
        if pooled is None and any(spread is None for spread in spreads[1]):
            pooled = one
    return None


def _beyond(
    before: Tensor,
    after: Tensor,
    longer: Sequence[int] | None,
    length: int,
    step: int,
    allowed: Sequence[float],
    exact: bool,
) -> bool | None:
    """Whether a tensor changed where it may not; ``None`` where it changed and has no time."""
    change = (after - before).abs()
    changed = change > torch.finfo(change.dtype).eps ** 0.75 * change.max()
    if not changed.any():
        return False
    axes = [
        d
        for d, size in enumerate(before.shape)
        if (size == length if longer is None else d < len(longer) and longer[d] > size)
    ]
    if not axes:
        return None
    own = before.shape[axes[0]]
    where = changed.movedim(axes[0], 0).reshape(own, -1).any(1).nonzero()[:, 0].tolist()
    slack = 0 if exact else max(0, -(-length // own) - 1)
    ends = aligned(where[0], own, length), aligned(where[-1], own, length)
    return step - ends[0] > allowed[1] + slack or ends[1] - step > allowed[0] + slack
