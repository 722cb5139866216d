"""Proposition C.1, exactly: a network without norm gives shifted inputs shifted outputs in its interior."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def interior_shift_error(network: nn.Module, x: Tensor, shift: int, left: int, right: int) -> float:
    """How far a network is from equivariance where it sees no end.

    Index i of a window that starts ``shift`` later is index i + shift of the first window. Both outputs
    are compared wherever neither sees an end; without norm they agree to rounding.

    Args:
        network: maps (B, C, L) to (B, S, L).
        x: (B, C, L + shift) inputs.
        shift: by how much to shift, at least 1; for a strided network a multiple of its total stride.
        left: receptive field to the left, in indices.
        right: receptive field to the right.

    Returns:
        The largest difference, in units of the outputs' standard deviation over interior and batch.
    """
    length = x.shape[-1] - shift
    if shift < 1 or length - shift <= left + right:
        raise ValueError(f"a length of {length} shifted by {shift} leaves no interior for ({left}, {right})")
    first, second = network(x[..., :length]), network(x[..., shift:])
    inside = first[..., left + shift : length - right]
    difference = (inside - second[..., left : length - right - shift]).abs().max()
    return float(difference / inside.std())
