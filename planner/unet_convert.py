"""The planner's U-Net as ``diffusers.UNet1DModel`` and back: settings and tensors under each other's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import UNet1DModel
from torch import Tensor

from groundwork.errors import UserError

_RENAMED = (
    ("down.", "down_blocks."),
    ("middle.", "mid_block."),
    ("up.", "up_blocks."),
    (".blocks.", ".resnets."),
    (".first.conv.", ".conv_in.conv1d."),
    (".first.norm.", ".conv_in.group_norm."),
    (".second.conv.", ".conv_out.conv1d."),
    (".second.norm.", ".conv_out.group_norm."),
    (".embed.", ".time_emb."),
    (".residual.", ".residual_conv."),
    ("final.conv.", "out_block.final_conv1d_1."),
    ("final.norm.", "out_block.final_conv1d_gn."),
    ("project.", "out_block.final_conv1d_2."),
)
EXPRESSIBLE: dict[str, Any] = {
    "kernel_size": 5,
    "padding_mode": "zeros",
    "norm": "group",
    "norm_groups": 8,
    "norm_placement": "pre",
    "num_packs": 1,
    "weights": "plain",
    "norm_conditioned": False,
    "tell_known": False,
    "fourier_features": 0,
    "overlap": 0,
}
_TEMPORAL = {
    "extra_in_channels": 0,
    "time_embedding_type": "positional",
    "use_timestep_embedding": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1.0,
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
    "act_fn": "mish",
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "downsample_each_block": False,
}


def to_their_name(name: str) -> str:
    """Our parameter's name in UNet1DModel."""
    for ours, theirs in _RENAMED:
        if ours.startswith("."):
            name = name.replace(ours, theirs)
        elif name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    if ".resample." in name:
        sampler = "downsample" if name.startswith("down_blocks") else "upsample"
        # their Downsample1D and Upsample1D hold the convolution as .conv; our up-sampling does too
        name = name.replace(".resample.conv.", f".{sampler}.conv.").replace(".resample.", f".{sampler}.conv.")
    return name


def to_diffusers(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> UNet1DModel:
    """A ``TemporalUNet`` of these settings and weights as diffusers' temporal ``UNet1DModel``.

    Raises:
        UserError: a setting that UNet1DModel cannot express, by name.
    """
    for key, value in EXPRESSIBLE.items():
        if config[key] != value:
            raise UserError(f"UNet1DModel cannot express {key} = {config[key]}: it has {value}")
    if config["dim_mults"][0] != 1:
        raise UserError(f"UNet1DModel cannot express dim_mults = {list(config['dim_mults'])}: the first must be 1")
    widths = tuple(config["dim"] * mult for mult in config["dim_mults"])
    theirs = UNet1DModel(
        in_channels=config["transition_dim"],
        out_channels=config["transition_dim"],
        block_out_channels=widths,
        down_block_types=("DownResnetBlock1D",) * len(widths),
        up_block_types=("UpResnetBlock1D",) * (len(widths) - 1),
        **_TEMPORAL,
    )
    theirs.load_state_dict({to_their_name(name): value for name, value in tensors.items()})
    return theirs


def from_diffusers(unet: UNet1DModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of the ``TemporalUNet`` that is the same network, and its weights under diffusers' names.

    Raises:
        UserError: a configuration other than the temporal one, naming the key.
    """
    config = unet.config
    widths = list(config["block_out_channels"])
    wanted = dict(_TEMPORAL) | {
        "down_block_types": ["DownResnetBlock1D"] * len(widths),
        "up_block_types": ["UpResnetBlock1D"] * (len(widths) - 1),
        "out_channels": config["in_channels"],
    }
    for key, value in wanted.items():
        found = list(config[key]) if isinstance(value, list) else config[key]
        if found != value:
            raise UserError(f"UNet1DModel with {key} = {found} is not the temporal configuration: it needs {value}")
    if any(width % widths[0] for width in widths):
        raise UserError(f"block_out_channels = {widths} are not multiples of the first")
    sizes = {"transition_dim": config["in_channels"], "dim": widths[0]}
    multiples = tuple(width // widths[0] for width in widths)
    return {**sizes, "dim_mults": multiples, **EXPRESSIBLE}, unet.state_dict()
