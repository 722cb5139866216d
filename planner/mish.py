"""Mish (Misra 2019) from one exponential, several times cheaper on a CPU than torch's kernel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SATURATED = 20.0
"""Where tanh(softplus(x)) is 1 to the last bit of a float64, long before exp overflows."""
_WORTHWHILE = 2**13
"""Elements from which several cheap passes are faster than torch's one, whose price is its three functions."""


def mish(x: Tensor) -> Tensor:
    """Mish, x · tanh(softplus(x)), of each element: ``torch.nn.functional.mish`` to rounding.

    With e = exp(x) and n = e (e + 2), tanh(softplus(x)) = n / (n + 2), and its slope is 4 (n − e) / (n + 2)²: one
    exponential for value and gradient, instead of an exponential, a logarithm and a tangent for each. Small tensors,
    half precision and accelerators keep torch's kernel.
    """
    if x.device.type != "cpu" or x.numel() < _WORTHWHILE or x.dtype not in (torch.float32, torch.float64):
        return F.mish(x)
    return _Mish.apply(x)[0] if torch.is_grad_enabled() else x * _tanh_softplus(x)


def _exponentials(x: Tensor) -> tuple[Tensor, Tensor]:
    """The e and n of :func:`mish`."""
    e = x.clamp(max=_SATURATED).exp()
    return e, (e + 2) * e


def _tanh_softplus(x: Tensor) -> Tensor:
    _, n = _exponentials(x)
    return n / (n + 2)


class _Mish(torch.autograd.Function):
    """Value and slope at once: the backward pass is one product."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        # In place wherever a tensor is ours and no longer needed: passes over memory are the price.
        e, n = _exponentials(x)
        inverse = (n + 2).reciprocal_()
        tanh = n * inverse
        slope_of_tanh = n.sub_(e).mul_(inverse).mul_(inverse)
        return tanh * x, slope_of_tanh.mul_(x).mul_(4).add_(tanh)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the slope as a function of x
            e, n = _exponentials(x)
            slope = n / (n + 2) + 4 * x * (n - e) / (n + 2).square()
        return gradient * slope
