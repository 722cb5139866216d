"""Networks of other houses for ``norm-study audit --factory``."""

from __future__ import annotations

from torch import nn

from norm_study.audit.surgery import replace_norms
from planner.unet import TemporalUNet


def unet1d() -> nn.Module:
    """``diffusers.UNet1DModel`` in its temporal configuration, untrained: 3.7 million parameters, 25 GroupNorms."""
    return TemporalUNet(6, dim=32, dim_mults=(1, 4, 8)).to_diffusers()


def unet1d_with_channel_norms() -> nn.Module:
    """The same after surgery."""
    unet = unet1d()
    replace_norms(unet, "channel")
    return unet
