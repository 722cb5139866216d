"""Networks out of folders: weights from safetensors only, and only such as fit the settings exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from groundwork.errors import UserError
from groundwork.files import interrupt_waits, read_json
from groundwork.options import from_dict
from planner.config import ModelConfig
from planner.unet import TemporalUNet

SETTINGS_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def load_unet(folder: str | Path) -> TemporalUNet:
    """A network from a folder that ``save_pretrained`` wrote, refusing whatever does not fit exactly.

    diffusers' own loader falls back to a pickle, fills a missing tensor with uninitialised memory and ignores
    unknown settings. This one reads ``config.json`` and ``diffusion_pytorch_model.safetensors`` and nothing else.

    Raises:
        UserError: a file missing or damaged, an unknown setting, or a tensor missing, too many or of another shape.
    """
    path = Path(folder) / SETTINGS_FILE
    settings = read_settings(path)
    transition_dim = settings.pop("transition_dim", None)
    network = TemporalUNet(transition_dim, **vars(from_dict(ModelConfig, settings, f"{path}: ")))
    load_weights(network, Path(folder) / WEIGHTS_FILE)
    return network


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a ``config.json``, without what diffusers adds.

    Raises:
        UserError: missing or damaged.
    """
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings")
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def read_tensors(path: Path, remedy: str = "") -> dict[str, torch.Tensor]:
    """The tensors in a safetensors file.

    Raises:
        UserError: damaged; the line ends with the remedy, if there is one.
    """
    try:
        with interrupt_waits():
            return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        further = f"; {remedy}" if remedy else ""
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}){further}") from error


def load_weights(network: TemporalUNet, path: Path) -> None:
    """Weights out of a safetensors file into a network, which evaluates from then on.

    Raises:
        UserError: missing or damaged, or a tensor missing, too many, of another shape or not finite.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; weights are read from safetensors only")
    tensors = read_tensors(path)
    expected = network.state_dict()
    for name in expected:
        if name not in tensors:
            raise UserError(f"{path}: tensor {name} is missing")
    for name, value in tensors.items():
        if name not in expected:
            raise UserError(f"{path}: tensor {name} is one too many for its config")
        if value.shape != expected[name].shape:
            raise UserError(
                f"{path}: tensor {name} is {list(value.shape)}, its config needs {list(expected[name].shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{path}: tensor {name} holds NaN or infinite values")
    network.load_state_dict(tensors)
    network.eval()
