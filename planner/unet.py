"""The temporal U-Net of Janner et al. (2022) with its normalization as a swappable part.

Its layout is that of ``diffusers.UNet1DModel`` in its temporal configuration: two residual blocks on each level, on
the way down, in the middle and on the way up; the skip connection of the top level is not used.

Shapes: B batch, D transition dimensions, C channels, E embedding, T time, P packs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet1DModel
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from einops import rearrange
from torch import Tensor, nn

from groundwork.errors import UserError
from planner.config import ModelConfig, PaddingMode, check_horizon
from planner.convolutions import Convolution, TransposedConvolution, channels_last, joined
from planner.norms import make_norm, norm_facts
from planner.unet_convert import from_diffusers, to_diffusers, to_their_name
from planner.weight_norms import normalize_weights, sum_and_activation


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, padding_mode: PaddingMode, stride: int = 1
) -> Convolution:
    return Convolution(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, padding_mode=padding_mode
    )


class _Upsample(nn.Module):
    """Transposed convolution that doubles the length; torch's itself only knows zero padding."""

    def __init__(self, channels: int, padding_mode: PaddingMode):
        super().__init__()
        self.conv = TransposedConvolution(channels, channels, kernel_size=4, stride=2, padding=1)
        self.replicate = padding_mode == "replicate"

    def forward(self, x_BCT: Tensor) -> Tensor:
        if not self.replicate:
            return self.conv(x_BCT)
        # One more point on each side makes two more output points there, which are cut off again.
        return self.conv(F.pad(x_BCT, (1, 1), mode="replicate"))[..., 2:-2]


class _Modulation(nn.Linear):
    """Scales and shifts a norm's output by the noise level's embedding; untrained, it leaves it as it is.

    FiLM (arXiv 1709.07871, equation (2)), as the adaptive GroupNorm of *Diffusion Models Beat GANs* (arXiv 2105.05233).
    """

    def __init__(self, embedding_dim: int, channels: int):
        super().__init__(embedding_dim, 2 * channels)

    def reset_parameters(self) -> None:
        """Zeros, which no random number is drawn for: the rest begins as it would without."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> Tensor:  # type: ignore[override]
        scale_BCT, shift_BCT = super().forward(mish_BE)[..., None].chunk(2, 1)
        return x_BCT * (1 + scale_BCT) + shift_BCT


class _ConvNormAct(nn.Module):
    """Convolution, norm and Mish, in the order that the placement says."""

    def __init__(self, in_channels: int, out_channels: int, model: ModelConfig, norm: nn.Module):
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, model.kernel_size, model.padding_mode)
        self.norm = norm
        self.norm_modulation = _Modulation(model.dim, out_channels) if model.norm_conditioned else None
        self.norm_first = model.norm_placement == "pre"
        _, self.activation = sum_and_activation(model.weights)

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> Tensor:
        x_BCT = self.conv(x_BCT)
        x_BCT = self.norm(x_BCT if self.norm_first else self.activation(x_BCT))
        if self.norm_modulation is not None:
            x_BCT = self.norm_modulation(x_BCT, mish_BE)
        return self.activation(x_BCT) if self.norm_first else x_BCT


class _ResidualBlock(nn.Module):
    """Two convolutions with the noise level's embedding between them, around a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, model: ModelConfig, layer: Any):
        super().__init__()
        self.first = layer(in_channels, out_channels)
        self.second = layer(out_channels, out_channels)
        self.embed = nn.Linear(model.dim, out_channels)
        self.add, _ = sum_and_activation(model.weights)
        self.residual = Convolution(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> Tensor:
        hidden = self.add(self.first(x_BCT, mish_BE), self.embed(mish_BE)[..., None])
        return self.add(self.residual(x_BCT), self.second(hidden, mish_BE))


class _Stage(nn.Module):
    """Two residual blocks and, where the resolution changes, what changes it."""

    def __init__(self, in_channels: int, out_channels: int, model: ModelConfig, layer: Any, resample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                _ResidualBlock(in_channels, out_channels, model, layer),
                _ResidualBlock(out_channels, out_channels, model, layer),
            ]
        )
        self.resample = resample if resample is not None else nn.Identity()

    def forward(self, x_BCT: Tensor, mish_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the resampled features, and those before for the skip connection."""
        for block in self.blocks:
            x_BCT = block(x_BCT, mish_BE)
        return self.resample(x_BCT), x_BCT


def _settings_are(config: type) -> Callable[[Any], Any]:
    """Shows the fields of ``config`` in a constructor's signature, from which diffusers takes the names of settings."""

    def decorate(init: Any) -> Any:
        own = list(inspect.signature(init).parameters.values())[:2]
        init.__signature__ = inspect.Signature([*own, *inspect.signature(config).parameters.values()])
        return init

    return decorate


class TemporalUNet(ModelMixin, ConfigMixin):
    """Denoises trajectories (B, D, T), given noise levels (B,).

    Args:
        transition_dim: D, dimensions of a trajectory's point.
        settings: those of :class:`planner.config.ModelConfig`, in its order or by name.

    Raises:
        UserError: settings that cannot be built.
    """

    @_settings_are(ModelConfig)
    def __init__(self, transition_dim: int, *settings: Any, **named: Any):
        super().__init__()
        if type(transition_dim) is not int or transition_dim < 1:
            raise UserError(f"transition_dim = {transition_dim!r} must be a whole number of at least 1")
        self.model = model = ModelConfig(*settings, **named)
        self.register_to_config(transition_dim=transition_dim, **vars(model))

        def layer(level: int, in_channels: int, out_channels: int) -> _ConvNormAct:
            window = max(1, model.norm_window >> level)  # the same stretch of the plan on every level
            sizes = {"groups": model.norm_groups, "num_packs": model.num_packs, "window": window}
            norm = make_norm(model.norm, out_channels, **sizes)
            return _ConvNormAct(in_channels, out_channels, model, norm)

        dim, padding_mode = model.dim, model.padding_mode
        widths = [dim * mult for mult in model.dim_mults]
        seen = 1 + 2 * model.fourier_features + model.tell_known + 2 * (model.overlap > 0)
        inputs = [transition_dim * seen, *widths[:-1]]
        self.time_projection = Timesteps(dim, flip_sin_to_cos=False, downscale_freq_shift=1.0)
        self.time_mlp = TimestepEmbedding(dim, 4 * dim, act_fn="mish", out_dim=dim)
        self.down = nn.ModuleList()
        for level, (narrow, wide) in enumerate(zip(inputs, widths, strict=True)):
            halve = _convolution(wide, wide, 3, padding_mode, stride=2) if level < len(widths) - 1 else None
            self.down.append(_Stage(narrow, wide, model, partial(layer, level), halve))
        self.middle = _Stage(widths[-1], widths[-1], model, partial(layer, len(widths) - 1), None)
        self.up = nn.ModuleList()
        # The last stage on the way up ends at the base width, whatever the first multiplier.
        for level in range(len(widths) - 1, 0, -1):
            narrow = widths[level - 1] if level > 1 else dim
            self.up.append(
                _Stage(2 * widths[level], narrow, model, partial(layer, level), _Upsample(narrow, padding_mode))
            )
        self.final = layer(0, dim if len(widths) > 1 else widths[0], dim)
        self.project = Convolution(dim, transition_dim, 1)
        _, self.activation = sum_and_activation(model.weights)
        reader = next(part for part in self.down.modules() if isinstance(part, _ResidualBlock))
        normalize_weights(self, model.weights, reads=(reader.first.conv, reader.residual), writes=(self.project,))

    def forward(
        self,
        sample_BDT: Tensor,
        level: Tensor | int,
        known: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> Tensor:
        """The prediction (B, D, T).

        Args:
            sample_BDT: noisy trajectories.
            level: a noise level (B,) of each, or one of all.
            known: boolean (D, T) or (B, D, T), the entries that are not noisy, for a network that is told; without it,
                that network is told of none.
            beside: (B, 2 D, T), what neighbouring chunks have and where, for a network of ``overlap``; without it,
                that network has no neighbours. See :mod:`planner.composition`.

        Raises:
            UserError: a length that the levels cannot halve or the packs cannot share, or another number of levels.
        """
        packs = self.model.num_packs
        check_horizon(sample_BDT.shape[-1], self.model.dim_mults, packs)
        level_B = torch.as_tensor(level, device=sample_BDT.device)
        if level_B.ndim == 0:
            level_B = level_B.expand(len(sample_BDT))
        elif level_B.shape != sample_BDT.shape[:1]:
            raise UserError(f"noise levels {tuple(level_B.shape)} must be one or ({len(sample_BDT)},), one per sample")
        mish_BE = self.activation(self.time_mlp(self.time_projection(level_B).to(sample_BDT.dtype)))
        if packs > 1:
            mish_BE = mish_BE.repeat_interleave(packs, 0)
        x = self._seen(sample_BDT, known, beside)
        x = rearrange(x, "b d (p t) -> (b p) d t", p=packs)
        if self.model.padding_mode == "zeros" and norm_facts(self.model.norm).over_channels and x.device.type == "cpu":
            x = channels_last(x)
        skips = []
        for stage in self.down:
            x, skip = stage(x, mish_BE)
            skips.append(skip)
        x, _ = self.middle(x, mish_BE)
        for stage in self.up:
            x, _ = stage(joined(x, skips.pop()), mish_BE)
        return rearrange(self.project(self.final(x, mish_BE)), "(b p) d t -> b d (p t)", p=packs)

    def _seen(self, x_BDT: Tensor, known: Tensor | None, beside: Tensor | None = None) -> Tensor:
        """What the first layer reads: values, their waves (Tancik et al. 2020), which are known, what is beside."""
        parts = [x_BDT]
        if self.model.fourier_features:
            octaves_F = torch.arange(self.model.fourier_features, device=x_BDT.device, dtype=x_BDT.dtype)
            angles_BFDT = x_BDT[:, None] * (torch.pi * 2**octaves_F)[:, None, None]
            waves = rearrange(angles_BFDT, "b f d t -> b (f d) t")
            parts += [waves.sin(), waves.cos()]
        if self.model.tell_known:
            parts.append(torch.zeros_like(x_BDT) if known is None else known.expand_as(x_BDT).to(x_BDT.dtype))
        if self.model.overlap:
            parts.append(torch.cat([torch.zeros_like(x_BDT)] * 2, dim=1) if beside is None else beside)
        return torch.cat(parts, dim=1) if len(parts) > 1 else x_BDT

    def receptive_field(self) -> tuple[int, int]:
        """How far left and right an output's inputs lie when norms pass nothing, the largest over all phases.

        Output t depends on inputs t − left … t + right at most; with packs, on those of its pack. By interval
        arithmetic from an output back to the inputs. A strided net's reach depends on t modulo its total stride.
        """
        reach = self.model.kernel_size // 2
        levels = len(self.model.dim_mults)

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
    def from_diffusers(cls, unet: UNet1DModel) -> TemporalUNet:
        """The same network as a temporal ``diffusers.UNet1DModel``, weights carried over; see ``unet_convert``."""
        settings, tensors = from_diffusers(unet)
        ours = cls(**settings)
        ours.load_state_dict({name: tensors[to_their_name(name)] for name in ours.state_dict()})
        return ours

    def to_diffusers(self) -> UNet1DModel:
        """The same network as a ``diffusers.UNet1DModel``, weights carried over; see ``unet_convert``."""
        return to_diffusers(self.config, self.state_dict())
