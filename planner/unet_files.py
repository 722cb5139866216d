"""``TemporalUNet`` from disk: its settings from JSON, its weights from safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from groundwork.errors import UserError
from planner.unet import TemporalUNet
from planner.unet_convert import EXPRESSIBLE

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


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
    known = {"transition_dim", "dim", "dim_mults", *EXPRESSIBLE}
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
