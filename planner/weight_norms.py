"""Norms of a network's weights instead of its activations: the setting ``model.weights``.

A weight's norm is taken over what one output channel sees of its input channels and kernel, so that it adds no reach:
nothing is pooled over time.

``standardized``: every convolution between hidden layers has weights of zero mean and unit norm per output channel,
*Weight Standardization* (arXiv 1903.10520) scaled by the fan-in as in *Characterizing signal propagation* (arXiv
2101.08692). A layer that reads the data keeps its weights: without a mean it would not see what all dimensions share.

``magnitude_preserving``: every convolution and linear layer has weights of unit norm per output channel. The stored
ones are forced to it too, at the start and after every training step; activations have unit magnitude for Gaussian
inputs, and sums are balanced: *Analyzing and Improving the Training Dynamics of Diffusion Models* (EDM2, arXiv
2312.02696). Biases stay, and stored norms are 1 where the paper's are the square root of the fan-in, so that a learning
rate means what it does for plain weights.

The layer that writes the prediction is free in both: its scale is the data's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from planner.config import Weights
from planner.convolutions import Convolution, TransposedConvolution
from planner.mish import mish

MISH_MAGNITUDE = 0.6725638946419015
"""Root mean square of Mish under a standard normal input."""
RESIDUAL_SHARE = 0.3
"""Of what is added to a magnitude-preserving sum; EDM2's for its residual branches."""


def balanced_mish(x: Tensor) -> Tensor:
    """Mish whose output has unit magnitude for standard normal inputs."""
    return mish(x) / MISH_MAGNITUDE


def balanced_sum(kept: Tensor, added: Tensor) -> Tensor:
    """The weighted sum of two uncorrelated tensors of unit magnitude that has unit magnitude too: EDM2's MP-Sum."""
    scale = math.hypot(RESIDUAL_SHARE, 1 - RESIDUAL_SHARE)
    return kept * ((1 - RESIDUAL_SHARE) / scale) + added * (RESIDUAL_SHARE / scale)


def sum_and_activation(weights: Weights) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """How a network with such weights adds and activates."""
    return (balanced_sum, balanced_mish) if weights == "magnitude_preserving" else (operator.add, mish)


class NormalizedWeight(nn.Module):
    """Makes a layer's weight from the stored one: unit norm per output channel, over all that the channel sees.

    A transposed convolution's output sees one of ``stride`` parts of its kernel, so that the whole has as much more.

    Args:
        layer: a convolution or a linear layer.
        centered: whether the weights' mean is taken away first.
    """

    def __init__(self, layer: nn.Conv1d | nn.ConvTranspose1d | nn.Linear, centered: bool):
        super().__init__()
        transposed = isinstance(layer, nn.ConvTranspose1d)
        self.dims = tuple(dim for dim in range(layer.weight.ndim) if dim != transposed)
        self.norm = math.sqrt(layer.stride[0]) if isinstance(layer, nn.ConvTranspose1d) else 1.0
        self.centered = centered

    def forward(self, stored: Tensor) -> Tensor:
        """The weight that the layer uses."""
        if self.centered:
            stored = stored - stored.mean(self.dims, keepdim=True)
        return stored * (self.norm / torch.linalg.vector_norm(stored, dim=self.dims, keepdim=True).clamp_min(1e-12))


def normalize_weights(
    network: nn.Module, weights: Weights, reads: Collection[nn.Module], writes: Collection[nn.Module]
) -> None:
    """Gives a network's layers normalized weights in place.

    Args:
        network: its convolutions and linear layers.
        weights: how; ``plain`` changes nothing.
        reads: the layers whose input is the data.
        writes: the layers whose output is.
    """
    if weights == "plain":
        return
    centered = weights == "standardized"
    kinds = (Convolution, TransposedConvolution, *(() if centered else (nn.Linear,)))
    free = {*writes, *(reads if centered else ())}
    layers: list[Any] = [part for part in network.modules() if type(part) in kinds and part not in free]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", NormalizedWeight(layer, centered))
    force_unit_norms(network)


@torch.no_grad()
def force_unit_norms(network: nn.Module) -> None:
    """Sets the stored weights of magnitude-preserving layers to those that they use; others stay as they are."""
    for part in network.modules():
        if isinstance(part, parametrize.ParametrizationList):
            made = part[0]
            if isinstance(made, NormalizedWeight) and not made.centered:
                part.original.copy_(made(part.original))
