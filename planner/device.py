"""Where things are computed."""

from __future__ import annotations

import torch

from groundwork.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        UserError: another name, or ``cuda`` without such a device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device = {name} is not one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device = cuda, but this machine has no CUDA device; allowed here: auto, cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
