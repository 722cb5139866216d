"""The norm layers: one table says over what each pools its statistics, and whether it mixes time.

Shapes: B batch, C channels, T time (or any trailing dimensions), P packs. Formulas: *Spooky Action at a Distance*
(arXiv 2507.04709), appendix A, equations (3) and (4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from groundwork.errors import UserError

NormKind = Literal[
    "none",
    "group",
    "instance",
    "layer",
    "batch",
    "channel",
    "rms",
    "packnorm_isolated",
    "instance_isolated",
]
NORM_KINDS: tuple[NormKind, ...] = get_args(NormKind)


@dataclass(frozen=True)
class NormFacts:
    """What a norm pools over, in words, and whether one time step's output hears of another's input."""

    statistics: str
    mixes_time_training: bool
    mixes_time_inference: bool


NORM_TABLE: dict[NormKind, NormFacts] = {
    "none": NormFacts("nothing", False, False),
    "group": NormFacts("channels of a group and time, per sample", True, True),
    "instance": NormFacts("time, per sample and channel", True, True),
    "layer": NormFacts("channels and time, per sample", True, True),
    "batch": NormFacts("batch and time, per channel; running statistics at inference", True, False),
    "channel": NormFacts("channels, per sample and time step", False, False),
    "rms": NormFacts("channels, per sample and time step, without a mean", False, False),
    "packnorm_isolated": NormFacts("time of all packs joined, per trajectory and channel", True, True),
    "instance_isolated": NormFacts("time of one pack, per channel", True, True),
}
ISOLATED: tuple[NormKind, ...] = ("packnorm_isolated", "instance_isolated")


def mixes_time(kind: NormKind, training: bool) -> bool:
    """Whether a time step's output depends on other time steps' inputs through the norm.

    ``instance_isolated`` mixes the steps of one pack, and nothing between packs.
    """
    facts = NORM_TABLE[kind]
    return facts.mixes_time_training if training else facts.mixes_time_inference


def make_norm(
    kind: NormKind, num_channels: int, *, groups: int = 8, num_packs: int = 1, eps: float = 1e-5
) -> nn.Module:
    """A norm layer for inputs (B, C, …) with one scale per channel and, but for ``rms``, one shift.

    Args:
        kind: see :data:`NORM_TABLE`.
        num_channels: C.
        groups: of ``group``; divides C.
        num_packs: P of the isolated kinds, whose batch is ``(b p)``, the packs of a trajectory side by side.
        eps: added to the variance.

    Raises:
        UserError: an unknown kind, groups that do not divide C, packs without an isolated norm or the reverse.
    """
    if kind not in NORM_KINDS:
        raise UserError(f"norm = {kind!r} is not one of {', '.join(NORM_KINDS)}")
    if kind == "group" and (groups < 1 or num_channels % groups):
        raise UserError(f"norm_groups = {groups} does not divide the {num_channels} channels")
    if kind in ISOLATED and num_packs < 2:
        raise UserError(f"norm = {kind} needs num_packs of at least 2, not {num_packs}")
    if kind not in ISOLATED and num_packs != 1:
        raise UserError(f"num_packs = {num_packs} needs an isolated norm ({', '.join(ISOLATED)}), not {kind}")
    match kind:
        case "none":
            return nn.Identity()
        case "group":
            return nn.GroupNorm(groups, num_channels, eps)
        case "instance" | "instance_isolated":  # packs lie in the batch, so that a pack is an instance
            return nn.GroupNorm(num_channels, num_channels, eps)
        case "layer":
            return nn.GroupNorm(1, num_channels, eps)
        case "batch":
            return _BatchNorm(num_channels, eps)
        case "channel":
            return ChannelNorm(num_channels, eps)
        case "rms":
            return ChannelRMSNorm(num_channels, eps)
        case "packnorm_isolated":
            return PackNorm(num_channels, num_packs, eps)


class _BatchNorm(nn.BatchNorm1d):
    """BatchNorm over any trailing dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, …), got {tuple(input.shape)}")


class PackNorm(nn.Module):
    """InstanceNorm over the packs of a trajectory joined along time: the packs' only coupling (section 3.2).

    Args:
        num_channels: C.
        num_packs: P; inputs are ``(b p) c t``.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, num_packs: int, eps: float = 1e-5):
        super().__init__()
        self.num_packs = num_packs
        self.instance = nn.GroupNorm(num_channels, num_channels, eps)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (b·P, C, …).

        Raises:
            UserError: a batch that is no multiple of the packs.
        """
        if len(x_BCT) % self.num_packs:
            raise UserError(f"batch of {len(x_BCT)} packs is not divisible by num_packs = {self.num_packs}")
        shape = (-1, self.num_packs, *x_BCT.shape[1:])
        joined = self.instance(x_BCT.view(shape).transpose(1, 2).contiguous())
        return joined.transpose(1, 2).reshape(x_BCT.shape)


class _ChannelNormFunction(torch.autograd.Function):
    """(x − mean) / std · weight + bias over dim 1 of (B, C, T), forward and backward by hand.

    Dim 1 is normalized where it lies: two transposes around a native LayerNorm cost more than the norm, and so do
    ``var_mean`` and ``vector_norm``, whose strided reductions are slow. Autograd's own chain keeps four tensors of
    the input's size where this keeps one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the output and, for the backward pass, the normalized input and 1/std (B, 1, T)."""
        normalized, rstd = _normalize(x, bias is not None, eps)
        output = normalized * weight[:, None]
        return output if bias is None else output.add_(bias[:, None]), normalized, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, bias, ctx.eps = inputs
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(x, weight, output[1], output[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, weight, normalized, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for: what was saved is a constant to autograd
            normalized, rstd = _normalize(x, ctx.has_bias, ctx.eps)
        product = gradient * normalized
        d_normalized = gradient * weight[:, None]
        inner = (product * weight[:, None]).mean(1, keepdim=True)
        d_input = d_normalized - normalized * inner
        if ctx.has_bias:
            d_input = d_input - d_normalized.mean(1, keepdim=True)
        d_bias = gradient.sum((0, 2)) if ctx.has_bias else None
        return d_input * rstd, product.sum((0, 2)), d_bias, None


def _normalize(x: Tensor, centre: bool, eps: float) -> tuple[Tensor, Tensor]:
    """X / std over dim 1, with or without its mean taken away first, and 1/std."""
    if centre:
        x = x - x.mean(1, keepdim=True)
    rstd = ((x * x).mean(1, keepdim=True) + eps).rsqrt()
    return x * rstd, rstd


class _OverChannels(nn.Module):
    """What :class:`ChannelNorm` and :class:`ChannelRMSNorm` share."""

    bias: nn.Parameter | None

    def __init__(self, num_channels: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Normalizes (B, C, …) over C."""
        flat = x_BCT.reshape(*x_BCT.shape[:2], -1)
        if flat.dtype in (torch.bfloat16, torch.float16):
            flat = flat.float()  # as autocast does for torch's own norms: statistics need the digits
        # The same arithmetic; autograd's own overhead is as long as the norm of a single plan.
        function = _ChannelNormFunction.apply if torch.is_grad_enabled() else _ChannelNormFunction.forward
        output, _, _ = function(flat, self.weight, self.bias, self.eps)
        return output.view(x_BCT.shape)


class ChannelNorm(_OverChannels):
    """Mean and variance over channels at each time step: what transformers call LayerNorm.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__(num_channels, eps)
        self.bias = nn.Parameter(torch.zeros(num_channels))


class ChannelRMSNorm(_OverChannels):
    """Root mean square over channels at each time step; a scale and no shift.

    Args:
        num_channels: C.
        eps: added to the mean square.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__(num_channels, eps)
        self.bias = None
