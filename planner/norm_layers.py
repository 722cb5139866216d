"""The norm layers that torch does not have; :func:`planner.norms.make_norm` makes them.

Shapes: B batch, C channels, G groups of channels, T time (or any trailing dimensions), P packs. Formulas: *Spooky
Action at a Distance* (arXiv 2507.04709), appendix A, equations (3) and (4).
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from groundwork.errors import UserError


def _with_digits(x: Tensor) -> Tensor:
    """What statistics can be taken of: half precision as float32, as autocast does for torch's own norms."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _as_weight(x: Tensor, weight: Tensor) -> Tensor:
    """A norm's output in the precision of a network that is half precision itself, as torch's own norms give it."""
    return x.to(weight.dtype) if weight.dtype in (torch.bfloat16, torch.float16) else x


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm over any trailing dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, …), got {tuple(input.shape)}")


class WindowedGroupNorm(nn.Module):
    """GroupNorm whose statistics at a time step are those of a sliding window around it, or of all steps so far.

    The window of w steps at t reaches from t − ⌊w/2⌋ to t + ⌈w/2⌉ − 1; past the ends it holds what is there. With
    w ≥ 2 T it is GroupNorm, with w = 1 its groups within each time step. Over the steps so far it is causal, and its
    statistics still depend on how far a step is from the start: the cumulative layer norm of Conv-TasNet (arXiv
    1809.07454) in groups.

    Args:
        num_groups: divides C.
        num_channels: C.
        window: w, in time steps of the input; ``None``: from the first step to this one.
        eps: added to the variance.
    """

    def __init__(self, num_groups: int, num_channels: int, window: int | None, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.num_channels, self.window, self.eps = num_groups, num_channels, window, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def _averaged(self, values_BST: Tensor) -> Tensor:
        """Means over the window at each step."""
        if self.window == 1:
            return values_BST
        if self.window is None:
            return values_BST.cumsum(2) / torch.arange(1, values_BST.shape[2] + 1, device=values_BST.device)
        counted = torch.cat((values_BST, torch.ones_like(values_BST[:, :1])), 1)
        ends = (self.window // 2, (self.window - 1) // 2)
        sums = nn.functional.avg_pool1d(nn.functional.pad(counted, ends), self.window, stride=1)
        return sums[:, :-1] / sums[:, -1:]

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (B, C, …, T), each of the axes between for itself."""
        between = x_BCT.shape[2:-1]
        if between:
            flat = self(rearrange(x_BCT, "b c ... t -> (b ...) c t").contiguous())
            return flat.view(len(x_BCT), *between, *flat.shape[1:]).movedim(-2, 1)
        x_BGCT = rearrange(_with_digits(x_BCT), "b (g c) t -> b g c t", g=self.num_groups)
        mean_BGT, square_BGT = self._averaged(torch.cat((x_BGCT.mean(2), x_BGCT.square().mean(2)), 1)).chunk(2, 1)
        scale_BGT = ((square_BGT - mean_BGT.square()).clamp_min(0) + self.eps).rsqrt()
        normalized = (x_BGCT - mean_BGT[:, :, None]) * scale_BGT[:, :, None]
        scaled = rearrange(normalized, "b g c t -> b (g c) t") * self.weight[:, None] + self.bias[:, None]
        return _as_weight(scaled, self.weight)


class PackNorm(nn.Module):
    """InstanceNorm over the packs of a trajectory joined along time: the packs' only coupling (section 3.2).

    Args:
        num_channels: C.
        num_packs: P; inputs are ``(b p) c t``.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, num_packs: int, eps: float = 1e-5):
        super().__init__()
        self.num_channels, self.num_packs = num_channels, num_packs
        self.instance = nn.GroupNorm(num_channels, num_channels, eps)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (b·P, C, …).

        Raises:
            UserError: a batch that is no multiple of the packs.
        """
        if len(x_BCT) % self.num_packs:
            raise UserError(f"batch of {len(x_BCT)} packs is not divisible by num_packs = {self.num_packs}")
        joined = self.instance(rearrange(x_BCT, "(b p) c ... -> b c p ...", p=self.num_packs))
        return rearrange(joined, "b c p ... -> (b p) c ...")


class _RootMeanSquareFunction(torch.autograd.Function):
    """x / rms · weight over the last axis of (…, C), forward and backward by hand.

    Autograd's own chain, which torch's RMSNorm is on a CPU, makes twice the passes and keeps four tensors of the
    input's size where this keeps one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the output and, for the backward pass, the normalized input and 1/rms."""
        normalized, inverse = _divided(x, -1, eps)
        return normalized * weight, normalized, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, ctx.eps = inputs
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(x, weight, output[1], output[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, normalized, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for: what was saved is a constant to autograd
            normalized, inverse = _divided(x, -1, ctx.eps)
        d_normalized = gradient * weight
        inner = (d_normalized * normalized).mean(-1, keepdim=True)
        d_input = torch.addcmul(d_normalized, normalized, inner, value=-1) * inverse
        return d_input, (gradient * normalized).sum(tuple(range(x.ndim - 1))), None


class _GroupsFunction(torch.autograd.Function):
    """(x − mean) / std · weight + bias over dim 2 of (B, G, C/G, T), forward and backward by hand.

    Dim 2 is normalized where it lies: channels side by side would make rows of a few numbers, and no kernel is fast for
    these; ``var_mean`` and ``vector_norm`` are slow over dim 2, too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the output and, for the backward pass, the normalized input and 1/std (B, G, 1, T)."""
        normalized, inverse = _standardized(x, eps)
        return (normalized * _by_group(weight, x)).add_(_by_group(bias, x)), normalized, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, ctx.eps = inputs
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(x, weight, output[1], output[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, normalized, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # as above
            normalized, inverse = _standardized(x, ctx.eps)
        product = gradient * normalized
        scale = _by_group(weight, x)
        d_normalized = gradient * scale
        inner = (product * scale).mean(2, keepdim=True)
        d_input = d_normalized - normalized * inner - d_normalized.mean(2, keepdim=True)
        return d_input * inverse, product.sum((0, 3)).reshape(-1), gradient.sum((0, 3)).reshape(-1), None


def _by_group(values_C: Tensor, x: Tensor) -> Tensor:
    """One number per channel, to go with x (B, G, C/G, T)."""
    return values_C.view(x.shape[1], x.shape[2], 1)


def _standardized(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x − mean) / std over dim 2, and 1/std."""
    return _divided(x - x.mean(2, keepdim=True), 2, eps)


def _divided(x: Tensor, dim: int, eps: float) -> tuple[Tensor, Tensor]:
    """Values over their root mean square along a dimension, and one over that."""
    inverse = ((x * x).mean(dim, keepdim=True) + eps).rsqrt()
    return x * inverse, inverse


class ChannelNorm(nn.Module):
    """Mean and variance over channels at each time step: what transformers call LayerNorm.

    Channels of a step that lie side by side in memory are normalized where they lie, and do so in the output; that of a
    contiguous input is contiguous.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (B, C, …) over the channels."""
        output = self._normalized(_with_digits(x_BCT).movedim(1, -1)).movedim(-1, 1)
        return _as_weight(output.contiguous() if x_BCT.is_contiguous() else output, self.weight)

    def _normalized(self, x: Tensor) -> Tensor:
        """The norm of (B, …, C)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), bias, self.eps)


class ChannelRMSNorm(ChannelNorm):
    """Root mean square over channels at each time step; a scale and no shift. Arguments as above."""

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__(num_channels, eps)
        self.bias = None

    def _normalized(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _RootMeanSquareFunction.apply(x, self.weight.to(x.dtype), self.eps)[0]
        # The same arithmetic; autograd's own overhead is as long as the norm of a single plan.
        return _divided(x, -1, self.eps)[0] * self.weight.to(x.dtype)


class ChannelGroupNorm(nn.Module):
    """Mean and variance over the channels of each group at each time step.

    Args:
        num_groups: G, groups of neighboring channels that are normalized apart.
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (B, C, …) over the channels of each group."""
        flat = x_BCT.reshape(len(x_BCT), self.num_groups, self.num_channels // self.num_groups, -1)
        return _as_weight(self._normalized(_with_digits(flat)).view(x_BCT.shape), self.weight)

    def _normalized(self, x: Tensor) -> Tensor:
        """The norm of (B, G, C/G, T)."""
        if torch.is_grad_enabled():
            return _GroupsFunction.apply(x, self.weight, self.bias, self.eps)[0]
        return (_standardized(x, self.eps)[0] * _by_group(self.weight, x)).add_(_by_group(self.bias, x))


class EvoNorm(ChannelGroupNorm):
    """EvoNorm-S0 with its statistics taken at each time step: x · sigmoid(v x) / std, then scale and shift.

    *Evolving Normalization-Activation Layers* (arXiv 2004.02967); v is one learned number per channel, and
    std that of a group's channels. The original takes it over all positions and stands for norm and activation; here
    the network's activation keeps its place. Arguments as above.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__(num_groups, num_channels, eps)
        self.v = nn.Parameter(torch.ones(num_channels))

    def _normalized(self, x: Tensor) -> Tensor:
        swish = x * torch.sigmoid(x * _by_group(self.v, x))
        return swish * _standardized(x, self.eps)[1] * _by_group(self.weight, x) + _by_group(self.bias, x)


class DynamicTanh(nn.Module):
    """The tanh of α x, with one learned α, then scale and shift: *Transformers without Normalization* (2503.10622).

    It takes no statistics: what bounds the values is the function itself.

    Args:
        num_channels: C.
    """

    function = staticmethod(torch.tanh)

    def __init__(self, num_channels: int):
        super().__init__()
        self.num_channels = num_channels
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.shift: nn.Parameter | None = None
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Maps each value of (B, C, …) on its own."""
        per_channel = (-1, *[1] * (x_BCT.ndim - 2))
        inner = x_BCT * self.alpha
        if self.shift is not None:
            inner = inner + self.shift
        return self.function(inner) * self.weight.view(per_channel) + self.bias.view(per_channel)


class DynamicErf(DynamicTanh):
    """The erf of α x + s, with a learned α and s: *Stronger Normalization-Free Transformers* (arXiv 2512.10938).

    Arguments as above.
    """

    function = staticmethod(torch.erf)

    def __init__(self, num_channels: int):
        super().__init__(num_channels)
        self.shift = nn.Parameter(torch.zeros(1))


LAYERS = (ChannelNorm, ChannelGroupNorm, WindowedGroupNorm, DynamicTanh, PackNorm)
"""Those whose forward is the project's own; their subclasses inherit it."""
