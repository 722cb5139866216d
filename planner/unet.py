"""The temporal U-Net of Janner et al. (2022) with its normalization as a swappable part.

Its layout is that of ``diffusers.UNet1DModel`` in its temporal configuration: two residual blocks on each level, on
the way down, in the middle and on the way up; the skip connection of the top level is not used.

Shapes: B batch, D transition dimensions, C channels, E embedding, T time, P packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from einops import rearrange
from torch import Tensor, nn

from groundwork.errors import UserError
from planner.mish import mish
from planner.norms import NormKind, make_norm, norm_facts, packs_of
from planner.unet_convert import from_diffusers, to_diffusers, to_their_name

PaddingMode = Literal["zeros", "replicate"]
Placement = Literal["pre", "post"]


def check_horizon(horizon: int, dim_mults: Sequence[int], num_packs: int = 1) -> None:
    """Refuses a horizon that the levels cannot halve, the packs cannot share, or that leaves a norm one point.

    Raises:
        UserError: naming both numbers.
    """
    for name, value in (("horizon", horizon), ("num_packs", num_packs)):
        if type(value) is not int or value < 1:
            raise UserError(f"{name} = {value!r} must be a whole number of at least 1")
    halvings = 2 ** (len(dim_mults) - 1)
    if horizon % num_packs:
        raise UserError(f"horizon = {horizon} is not divisible by num_packs = {num_packs}")
    if (horizon // num_packs) % halvings:
        what = f"horizon = {horizon}" if num_packs == 1 else f"horizon = {horizon} in {num_packs} packs"
        raise UserError(
            f"{what} cannot be halved {len(dim_mults) - 1} times: it must be a multiple of {halvings * num_packs}"
        )
    if horizon // num_packs < 2 * halvings:
        raise UserError(
            f"horizon = {horizon} leaves one point at the coarsest of {len(dim_mults)} levels, where a norm over time "
            f"needs two: at least {2 * halvings * num_packs}"
        )


def check_architecture(
    *,
    transition_dim: int,
    dim: int,
    dim_mults: Sequence[int],
    kernel_size: int,
    padding_mode: PaddingMode,
    norm: str,
    norm_groups: int,
    norm_placement: str,
    num_packs: int,
) -> None:
    """Refuses settings of :class:`TemporalUNet` that cannot be built.

    Raises:
        UserError: one line that names the setting, its value and what is allowed.
    """
    if not isinstance(dim_mults, Sequence) or isinstance(dim_mults, str):
        raise UserError(f"dim_mults = {dim_mults!r} must be a list of whole numbers")
    whole: dict[str, Any] = {
        "transition_dim": transition_dim,
        "dim": dim,
        "kernel_size": kernel_size,
        "norm_groups": norm_groups,
    }
    whole |= {"num_packs": num_packs} | {f"dim_mults[{i}]": mult for i, mult in enumerate(dim_mults)}
    for name, value in whole.items():
        if type(value) is not int or value < 1:
            raise UserError(f"{name} = {value!r} must be a whole number of at least 1")
    if not dim_mults:
        raise UserError("dim_mults is empty; it needs one multiplier per level")
    if dim % 2 or dim < 4:
        raise UserError(f"dim = {dim} must be even and at least 4, for the embedding of the noise level")
    if kernel_size % 2 == 0:
        raise UserError(f"kernel_size = {kernel_size} must be odd")
    for name, value, allowed in (
        ("padding_mode", padding_mode, get_args(PaddingMode)),
        ("norm_placement", norm_placement, get_args(Placement)),
    ):
        if value not in allowed:
            raise UserError(f"{name} = {value!r} is not one of {', '.join(allowed)}")
    packs_of(norm, num_packs)
    for mult in (1, *dim_mults):
        if not norm_facts(norm).fits(dim * mult, norm_groups):
            raise UserError(f"norm_groups = {norm_groups} does not divide the {dim * mult} channels of a level")


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, padding_mode: PaddingMode, stride: int = 1
) -> nn.Conv1d:
    return nn.Conv1d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, padding_mode=padding_mode
    )


class _Upsample(nn.Module):
    """Transposed convolution that doubles the length; ``ConvTranspose1d`` itself only knows zero padding."""

    def __init__(self, channels: int, padding_mode: PaddingMode):
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, kernel_size=4, stride=2, padding=1)
        self.replicate = padding_mode == "replicate"

    def forward(self, x_BCT: Tensor) -> Tensor:
        if not self.replicate:
            return self.conv(x_BCT)
        # One more point on each side makes two more output points there, which are cut off again.
        return self.conv(F.pad(x_BCT, (1, 1), mode="replicate"))[..., 2:-2]


class _ConvNormAct(nn.Module):
    """Convolution, norm and Mish, in the order that the placement says."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding_mode: PaddingMode,
        placement: str,
        norm: nn.Module,
    ):
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, kernel_size, padding_mode)
        self.norm = norm
        self.norm_first = placement == "pre"

    def forward(self, x_BCT: Tensor) -> Tensor:
        x_BCT = self.conv(x_BCT)
        return mish(self.norm(x_BCT)) if self.norm_first else self.norm(mish(x_BCT))


class _ResidualBlock(nn.Module):
    """Two convolutions with the noise level's embedding between them, around a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, layer: Any):
        super().__init__()
        self.first = layer(in_channels, out_channels)
        self.second = layer(out_channels, out_channels)
        self.embed = nn.Linear(embedding_dim, out_channels)
        self.residual = nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> Tensor:
        hidden = self.first(x_BCT) + self.embed(mish_BE)[..., None]
        return self.second(hidden) + self.residual(x_BCT)


class _Stage(nn.Module):
    """Two residual blocks and, where the resolution changes, what changes it."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, layer: Any, resample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                _ResidualBlock(in_channels, out_channels, embedding_dim, layer),
                _ResidualBlock(out_channels, out_channels, embedding_dim, layer),
            ]
        )
        self.resample = resample if resample is not None else nn.Identity()

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the resampled features, and those before for the skip connection."""
        for block in self.blocks:
            x_BCT = block(x_BCT, mish_BE)
        return self.resample(x_BCT), x_BCT


class TemporalUNet(ModelMixin, ConfigMixin):
    """Denoises trajectories (B, D, T), given noise levels (B,).

    Args:
        transition_dim: D, dimensions of a trajectory's point.
        dim: base width; level i has ``dim · dim_mults[i]`` channels.
        dim_mults: one multiplier per level; each level but the first halves the time axis.
        kernel_size: of all convolutions in blocks and of the final one; odd.
        padding_mode: what every convolution, strided and transposed ones too, sees beyond the ends.
        norm: see :mod:`planner.norms`.
        norm_groups: groups of the ``group`` norm.
        norm_placement: ``pre`` is conv → norm → Mish, as in Janner et al.; ``post`` is conv → Mish → norm.
        num_packs: P > 1 cuts the horizon into packs that only an isolated norm couples: they are folded into the
            batch, so that no convolution crosses their boundary.

    Raises:
        UserError: settings that cannot be built.
    """

    @register_to_config
    def __init__(
        self,
        transition_dim: int,
        dim: int = 32,
        dim_mults: Sequence[int] = (1, 4, 8),
        kernel_size: int = 5,
        padding_mode: PaddingMode = "zeros",
        norm: NormKind = "group",
        norm_groups: int = 8,
        norm_placement: Placement = "pre",
        num_packs: int = 1,
    ):
        super().__init__()
        check_architecture(
            transition_dim=transition_dim,
            dim=dim,
            dim_mults=dim_mults,
            kernel_size=kernel_size,
            padding_mode=padding_mode,
            norm=norm,
            norm_groups=norm_groups,
            norm_placement=norm_placement,
            num_packs=num_packs,
        )

        def layer(in_channels: int, out_channels: int) -> _ConvNormAct:
            made = make_norm(norm, out_channels, groups=norm_groups, num_packs=num_packs)
            return _ConvNormAct(in_channels, out_channels, kernel_size, padding_mode, norm_placement, made)

        widths = [dim * mult for mult in dim_mults]
        inputs = [transition_dim, *widths[:-1]]
        self.time_projection = Timesteps(dim, flip_sin_to_cos=False, downscale_freq_shift=1.0)
        self.time_mlp = TimestepEmbedding(dim, 4 * dim, act_fn="mish", out_dim=dim)
        self.down = nn.ModuleList()
        for level, (narrow, wide) in enumerate(zip(inputs, widths, strict=True)):
            halve = _convolution(wide, wide, 3, padding_mode, stride=2) if level < len(widths) - 1 else None
            self.down.append(_Stage(narrow, wide, dim, layer, halve))
        self.middle = _Stage(widths[-1], widths[-1], dim, layer, None)
        self.up = nn.ModuleList()
        # The last stage on the way up ends at the base width, whatever the first multiplier.
        for level in range(len(widths) - 1, 0, -1):
            narrow = widths[level - 1] if level > 1 else dim
            self.up.append(_Stage(2 * widths[level], narrow, dim, layer, _Upsample(narrow, padding_mode)))
        self.final = layer(dim if len(widths) > 1 else widths[0], dim)
        self.project = nn.Conv1d(dim, transition_dim, 1)

    def forward(self, sample_BDT: Tensor, level_B: Tensor) -> Tensor:
        """The prediction (B, D, T).

        Raises:
            UserError: a length that the levels cannot halve or the packs cannot share.
        """
        packs = self.config["num_packs"]
        check_horizon(sample_BDT.shape[-1], self.config["dim_mults"], packs)
        mish_BE = mish(self.time_mlp(self.time_projection(level_B).to(sample_BDT.dtype)))
        if packs > 1:
            mish_BE = mish_BE.repeat_interleave(packs, 0)
        x = rearrange(sample_BDT, "b d (p t) -> (b p) d t", p=packs)
        skips = []
        for stage in self.down:
            x, skip = stage(x, mish_BE)
            skips.append(skip)
        x, _ = self.middle(x, mish_BE)
        for stage in self.up:
            x, _ = stage(torch.cat((x, skips.pop()), dim=1), mish_BE)
        return rearrange(self.project(self.final(x)), "(b p) d t -> b d (p t)", p=packs)

    def receptive_field(self) -> tuple[int, int]:
        """How far left and right an output's inputs lie when norms pass nothing, the largest over all phases.

        Output t depends on inputs t − left … t + right at most; with packs, on those of its pack. By interval
        arithmetic from an output back to the inputs. A strided net's reach depends on t modulo its total stride.
        """
        reach = self.config["kernel_size"] // 2
        levels = len(self.config["dim_mults"])

        def encoder(level: int, low: int, high: int) -> tuple[int, int]:
            """Inputs behind features ``low … high`` of a level, after its residual blocks."""
            low, high = low - 4 * reach, high + 4 * reach
            return (low, high) if level == 0 else encoder(level - 1, 2 * low - 1, 2 * high + 1)

        def decoder(level: int, low: int, high: int) -> tuple[int, int]:
            """Inputs behind features ``low … high`` of a level, on the way up."""
            if level == levels - 1:
                return encoder(level, low - 4 * reach, high + 4 * reach)
            # Transposed convolution, kernel 4, stride 2, padding 1: output o reads (o − 2)/2 … (o + 1)/2.
            low, high = -((2 - low) // 2) - 4 * reach, (high + 1) // 2 + 4 * reach
            paths = decoder(level + 1, low, high), encoder(level + 1, low, high)
            return min(path[0] for path in paths), max(path[1] for path in paths)

        spans = [(t, decoder(0, t - reach, t + reach)) for t in range(2 ** (levels - 1))]
        return max(t - low for t, (low, _) in spans), max(high - t for t, (_, high) in spans)

    @classmethod
    def from_diffusers(cls, unet: Any) -> TemporalUNet:
        """The same network as a temporal ``diffusers.UNet1DModel``, weights carried over; see ``unet_convert``."""
        settings, tensors = from_diffusers(unet)
        ours = cls(**settings)
        ours.load_state_dict({name: tensors[to_their_name(name)] for name in ours.state_dict()})
        return ours

    def to_diffusers(self) -> Any:
        """The same network as a ``diffusers.UNet1DModel``, weights carried over; see ``unet_convert``."""
        return to_diffusers(self.config, self.state_dict())
