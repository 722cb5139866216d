"""``TemporalUNet`` to and from disk, and to and from ``diffusers.UNet1DModel``; weights from safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet1DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from groundwork.errors import UserError
from planner.unet import TemporalUNet

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
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
_EXPRESSIBLE = {
    "kernel_size": 5,
    "padding_mode": "zeros",
    "norm": "group",
    "norm_groups": 8,
    "norm_placement": "pre",
    "num_packs": 1,
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


def _to_their_name(name: str) -> str:
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


def to_diffusers(unet: TemporalUNet) -> UNet1DModel:
    """The same network as diffusers' temporal ``UNet1DModel``.

    Raises:
        UserError: a setting that UNet1DModel cannot express, by name.
    """
    config = unet.config
    for key, value in _EXPRESSIBLE.items():
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
    theirs.load_state_dict({_to_their_name(name): value for name, value in unet.state_dict().items()})
    return theirs


def from_diffusers(unet: UNet1DModel) -> TemporalUNet:
    """The same network as one of ours.

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
    ours = TemporalUNet(
        transition_dim=config["in_channels"],
        dim=widths[0],
        dim_mults=tuple(width // widths[0] for width in widths),
        **_EXPRESSIBLE,
    )
    theirs = unet.state_dict()
    ours.load_state_dict({name: theirs[_to_their_name(name)] for name in ours.state_dict()})
    return ours


def load_unet(folder: str | Path) -> TemporalUNet:
    """A network from a folder that ``save_pretrained`` wrote, refusing whatever does not fit exactly.

    diffusers' own loader falls back to a pickle, fills a missing tensor with uninitialised memory and ignores
    unknown settings. This one reads ``config.json`` and ``diffusion_pytorch_model.safetensors`` and nothing else.

    Raises:
        UserError: a file missing or damaged, an unknown setting, or a tensor missing, too many or of another shape.
    """
    folder = Path(folder)
    network = TemporalUNet(**_read_settings(folder / "config.json"))
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; weights are read from safetensors only")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    _compare(path, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network.eval()


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings")
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    known = {"transition_dim", "dim", "dim_mults", *_EXPRESSIBLE}
    for key in sorted(set(settings) ^ known):
        raise UserError(f"{path}: {'unknown' if key in settings else 'missing'} setting {key}")
    return settings


def _compare(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in expected:
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing")
    for name, value in found.items():
        if name not in expected:
            raise UserError(f"{path}: tensor {name} is one too many for its config")
        if value.shape != expected[name].shape:
            raise UserError(
                f"{path}: tensor {name} is {list(value.shape)}, its config needs {list(expected[name].shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{path}: tensor {name} holds NaN or infinite values")
