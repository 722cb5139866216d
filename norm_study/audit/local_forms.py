"""Modules made local: the same values forward, and in the backward pass nothing that comes from afar.

A norm of torch keeps its values while its mean and variance become constants. Any other module keeps the band of its
Jacobian around the same time, which is the block of the same time where nothing inside it has a kernel.

Letters: C channels, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from norm_study.audit.frozen_norms import FROZEN, is_frozen_norm
from norm_study.audit.subject import aligned, is_real

COTANGENT_ENTRIES = 2**22


@dataclass(frozen=True)
class LocalForm:
    """What is needed to make one module local.

    Attributes:
        module: which.
        input_dims: per leaf of its arguments the time axes.
        output_dims: per floating-point tensor of its output the time axis, or ``None``.
        left: steps before the same time that its own kernels reach, at the resolution of its input.
        right: steps after it.
        steps: time steps of its input.
        by_design: whether it weighs times against each other rather than share a statistic of all.
    """

    module: nn.Module
    input_dims: Sequence[tuple[int, ...]]
    output_dims: Sequence[int | None]
    left: int = 0
    right: int = 0
    steps: int = 1
    by_design: bool = False

    @property
    def rows(self) -> int:
        """How many products with its Jacobian one product of its local form takes."""
        return 0 if is_frozen_norm(self.module) else self.steps


@contextmanager
def made_local(forms: Iterable[LocalForm], pattern: bool = False) -> Iterator[None]:
    """Gives modules their local form for a while.

    Args:
        forms: of the modules.
        pattern: only where influence may come from is wanted, not how much: then one backward pass does for all times.
    """
    replaced: list[tuple[nn.Module, Any]] = []
    try:
        for form in forms:
            replaced.append((form.module, form.module.__dict__.get("forward")))
            form.module.__dict__["forward"] = _local_forward(form, pattern)
        yield
    finally:
        for module, before in replaced:
            del module.__dict__["forward"]
            if before is not None:
                module.__dict__["forward"] = before


def _local_forward(form: LocalForm, pattern: bool) -> Callable[..., Any]:
    native, module = form.module.forward, form.module
    if is_frozen_norm(module):
        frozen = FROZEN[type(module).forward]
        return lambda input: frozen(module, input)
    return lambda *args, **kwargs: _banded(form, native, pattern, args, kwargs)


# anything else: a band of its Jacobian


@dataclass
class _Native:
    """One run of a module on inputs of its own, kept so that rows of its Jacobian can be asked for."""

    form: LocalForm
    pattern: bool
    inputs: list[Tensor]
    outputs: list[Tensor]
    input_dims: list[tuple[int, ...]]
    output_dims: list[int | None]

    def rows(self, cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Products of N cotangents per output with the Jacobian, (N, …) per input."""

        def product(given: Sequence[Tensor], batched: bool) -> Sequence[Tensor | None]:
            return torch.autograd.grad(
                self.outputs, self.inputs, list(given), retain_graph=True, allow_unused=True, is_grads_batched=batched
            )

        try:
            return product(cotangents, True)
        except RuntimeError:
            # A user's autograd.Function may leave torch in its backward, where vmap cannot follow: one at a time.
            each = [product([c[i] for c in cotangents], False) for i in range(len(cotangents[0]))]
            return [None if one[0] is None else torch.stack(list(one)) for one in zip(*each, strict=True)]

    def banded_product(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the inputs, from within the band around the same time only."""
        if self.pattern:
            return self._touched(gradients)
        totals = [torch.zeros_like(value) for value in self.inputs]
        everything = self.rows([g[None] for g in gradients])
        for total, whole, dims in zip(totals, everything, self.input_dims, strict=True):
            if not dims and whole is not None:  # what has no time comes from no time
                total += whole[0]
        length = max((g.shape[d] for g, d in zip(gradients, self.output_dims, strict=True) if d is not None), default=0)
        active = [
            t for t in range(length) if any(self._slice(g, d, t, length).any() for g, d in self._timed(gradients))
        ]
        chunk = max(1, COTANGENT_ENTRIES // sum(g.numel() for g in gradients))
        for first in range(0, len(active), chunk):
            times = active[first : first + chunk]
            rows = self.rows(
                [self._only(g, d, times, length) for g, d in zip(gradients, self.output_dims, strict=True)]
            )
            for total, row, dims in zip(totals, rows, self.input_dims, strict=True):
                if dims and row is not None:
                    for i, time in enumerate(times):
                        self._add_band(total, row[i], dims[0], time, length)
        return totals

    def _touched(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Ones wherever the band can bring a gradient."""
        totals, timed = [torch.zeros_like(value) for value in self.inputs], self._timed(gradients)
        length = max((g.shape[d] for g, d in timed), default=0)
        active = np.zeros(length, bool)
        for gradient, dim in timed:
            own = gradient.shape[dim]
            touched = (gradient != 0).movedim(dim, 0).reshape(own, -1).any(1).nonzero()[:, 0]
            active[touched.cpu().numpy() * length // own] = True
        for total, dims in zip(totals, self.input_dims, strict=True):
            if not dims:
                total += float(any(bool(gradient.any()) for gradient in gradients))
                continue
            for low, high in {self._band(total.shape[dims[0]], time, length) for time in active.nonzero()[0].tolist()}:
                if low < high:
                    total.narrow(dims[0], low, high - low).fill_(1)
        return totals

    def _timed(self, gradients: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
        return [(g, d) for g, d in zip(gradients, self.output_dims, strict=True) if d is not None]

    @staticmethod
    def _slice(value: Tensor, dim: int, time: int, length: int) -> Tensor:
        own = value.shape[dim]
        first, last = (time * own + length - 1) // length, ((time + 1) * own + length - 1) // length
        return value.narrow(dim, first, last - first)

    def _only(self, gradient: Tensor, dim: int | None, times: Sequence[int], length: int) -> Tensor:
        """(N, …) the gradient at one of the times each; of an output without time, nothing."""
        kept = gradient.new_zeros(len(times), *gradient.shape)
        if dim is not None:
            for i, time in enumerate(times):
                self._slice(kept[i], dim, time, length).copy_(self._slice(gradient, dim, time, length))
        return kept

    def _add_band(self, total: Tensor, row: Tensor, dim: int, time: int, length: int) -> None:
        low, high = self._band(total.shape[dim], time, length)
        if low < high:
            total.narrow(dim, low, high - low).add_(row.narrow(dim, low, high - low))

    def _band(self, own: int, time: int, length: int) -> tuple[int, int]:
        """The stretch of an input of ``own`` steps around one of ``length`` times."""
        at = aligned(time, length, own)
        return max(0, at - self.form.left), min(own, at + max(1, own // length) + self.form.right)


class _Banded(torch.autograd.Function):
    """Hands on a module's values, and in the backward pass the band of its Jacobian."""

    @staticmethod
    def forward(ctx: Any, native: _Native, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.native = native
        return tuple(value.detach().clone() for value in native.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return (None, *ctx.native.banded_product(gradients))


def _banded(form: LocalForm, native: Callable[..., Any], pattern: bool, args: tuple, kwargs: dict[str, Any]) -> Any:
    leaves, spec = tree_flatten((args, kwargs))
    real = [i for i, leaf in enumerate(leaves) if is_real(leaf)]
    with torch.enable_grad():
        own = {i: leaves[i].detach().clone().requires_grad_() for i in real}
        # clones, since a module may write into its input
        inner = [own[i].clone() if i in own else leaf for i, leaf in enumerate(leaves)]
        given, named = tree_unflatten(inner, spec)
        out_leaves, out_spec = tree_flatten(native(*given, **named))
    reals = [i for i, leaf in enumerate(out_leaves) if is_real(leaf)]
    dims = dict(zip(reals, form.output_dims, strict=False))
    out_real = [i for i in reals if out_leaves[i].requires_grad]
    run = _Native(
        form,
        pattern,
        list(own.values()),
        [out_leaves[i] for i in out_real],
        [form.input_dims[i] if i < len(form.input_dims) else () for i in real],
        [dims.get(i) for i in out_real],
    )
    for i, value in zip(out_real, _Banded.apply(run, *[leaves[i] for i in real]), strict=True):
        out_leaves[i] = value
    return tree_unflatten(out_leaves, out_spec)
