"""Modules made local: the same values forward, and in the backward pass nothing that comes from afar.

A norm of torch keeps its values while its mean and variance become constants. Any other module keeps the band of its
Jacobian around the same time, which is the block of the same time where nothing inside it has a kernel.

Letters: B batch, C channels, G groups, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

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
    """

    module: nn.Module
    input_dims: Sequence[tuple[int, ...]]
    output_dims: Sequence[int | None]
    left: int = 0
    right: int = 0


@contextmanager
def made_local(forms: Iterable[LocalForm]) -> Iterator[None]:
    """Gives modules their local form for a while."""
    replaced: list[tuple[nn.Module, Any]] = []
    try:
        for form in forms:
            replaced.append((form.module, form.module.__dict__.get("forward")))
            form.module.__dict__["forward"] = _local_forward(form)
        yield
    finally:
        for module, before in replaced:
            del module.__dict__["forward"]
            if before is not None:
                module.__dict__["forward"] = before


def _local_forward(form: LocalForm) -> Callable[..., Any]:
    native, module = form.module.forward, form.module
    if "forward" not in module.__dict__ and type(module).forward in _FROZEN:
        frozen = _FROZEN[type(module).forward]
        return lambda input: frozen(module, input)
    return lambda *args, **kwargs: _banded(form, native, args, kwargs)


# norms of torch: statistics as constants


def _standardize(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """(x − mean) / std over ``dims``, mean and std as constants."""
    variance, mean = torch.var_mean(x.detach(), dim=list(dims), correction=0, keepdim=True)
    return (x - mean) * (variance + eps).rsqrt()


def _per_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    if weight is not None:
        x = x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def frozen_group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm of (B, C, …) with constant statistics."""
    grouped = _standardize(x.reshape(len(x), norm.num_groups, -1), [2], norm.eps)
    return _per_channel(grouped.view(x.shape), norm.weight, norm.bias)


def frozen_instance_norm(norm: _InstanceNorm, x: Tensor) -> Tensor:
    """InstanceNorm of (B, C, …), or (C, …) without a batch, with constant statistics."""
    batched = x if x.ndim == norm._get_no_batch_dim() + 1 else x[None]
    normalized = _standardize(batched, range(2, batched.ndim), norm.eps)
    return _per_channel(normalized, norm.weight, norm.bias).view(x.shape)


def frozen_layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the last dimensions with constant statistics."""
    normalized = _standardize(x, range(-len(norm.normalized_shape), 0), norm.eps)
    if norm.weight is not None:
        normalized = normalized * norm.weight
    return normalized if norm.bias is None else normalized + norm.bias


def frozen_rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """RMSNorm over the last dimensions with a constant root mean square."""
    dims = list(range(-len(norm.normalized_shape), 0))
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    normalized = x * (x.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
    return normalized if norm.weight is None else normalized * norm.weight


def frozen_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm of (B, C, …) with this batch's statistics as constants; only what mixes is ever frozen."""
    return _per_channel(_standardize(x, [0, *range(2, x.ndim)], norm.eps), norm.weight, norm.bias)


# By forward rather than by class: a subclass with a forward of its own is an unknown module.
_FROZEN: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    nn.GroupNorm.forward: frozen_group_norm,
    nn.LayerNorm.forward: frozen_layer_norm,
    nn.RMSNorm.forward: frozen_rms_norm,
    _InstanceNorm.forward: frozen_instance_norm,
    _BatchNorm.forward: frozen_batch_norm,
}


# anything else: a band of its Jacobian


@dataclass
class _Native:
    """One run of a module on inputs of its own, kept so that rows of its Jacobian can be asked for."""

    form: LocalForm
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
        own = total.shape[dim]
        low = aligned(time, length, own) - self.form.left
        high = aligned(time, length, own) + max(1, own // length) + self.form.right
        low, high = max(0, low), min(own, high)
        if low < high:
            total.narrow(dim, low, high - low).add_(row.narrow(dim, low, high - low))


class _Banded(torch.autograd.Function):
    """Hands on a module's values, and in the backward pass the band of its Jacobian."""

    @staticmethod
    def forward(ctx: Any, native: _Native, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.native = native
        return tuple(value.detach().clone() for value in native.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return (None, *ctx.native.banded_product(gradients))


def _banded(form: LocalForm, native: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
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
        list(own.values()),
        [out_leaves[i] for i in out_real],
        [form.input_dims[i] if i < len(form.input_dims) else () for i in real],
        [dims.get(i) for i in out_real],
    )
    for i, value in zip(out_real, _Banded.apply(run, *[leaves[i] for i in real]), strict=True):
        out_leaves[i] = value
    return tree_unflatten(out_leaves, out_spec)
