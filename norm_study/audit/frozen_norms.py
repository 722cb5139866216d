"""Norms of torch with their statistics held constant: the same values, and no gradient through mean and variance.

Letters: B batch, C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


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
FROZEN: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    nn.GroupNorm.forward: frozen_group_norm,
    nn.LayerNorm.forward: frozen_layer_norm,
    nn.RMSNorm.forward: frozen_rms_norm,
    _InstanceNorm.forward: frozen_instance_norm,
    _BatchNorm.forward: frozen_batch_norm,
}


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether a module is a norm of torch, whose statistics can be held constant."""
    return "forward" not in module.__dict__ and type(module).forward in FROZEN
