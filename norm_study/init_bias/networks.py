"""Thousands of untrained networks as one computation.

Each network's weights are a function of (seed, index) alone. Networks of one chunk see the same data, so their
first layers are one matrix product; the further ones are batched products. Of the two axes of an activation the
one over which the norm pools lies last, where torch's fused kernel works.

With fewer data points than a layer has inputs most of its weights are never felt: given the activations h (N, in)
the N pre-activations of a unit are exactly Gaussian with covariance h h^T gain^2 / in. They are then drawn from
that law, N numbers per unit instead of ``in``.

Letters: I networks, N data points, D inputs, W width, K classes, C channels, T time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from norm_study.init_bias.settings import Activation, InitBiasConfig, Place
from norm_study.localization.network import minibatch_norm
from planner.norms import NormKind

NETWORK_STREAM = 1_000_003
JITTER = 1e-10  # of the mean diagonal, in double precision: relative to the deviations 1e-5


def activate(x: Tensor, kind: Activation) -> Tensor:
    """The nonlinearity."""
    match kind:
        case "relu":
            return functional.relu(x)
        case "tanh":
            return torch.tanh(x)
        case "gelu":
            return functional.gelu(x)
        case "mish":
            return functional.mish(x)


def kaiming_gain(kind: Activation) -> float:
    """Of He et al.; gelu and mish, which are near relu, get its gain."""
    return 5 / 3 if kind == "tanh" else math.sqrt(2)


def draw(seed: int, indices: Sequence[int], sizes: Sequence[tuple[int, float]], device: torch.device) -> list[Tensor]:
    """Normal numbers for a chunk of networks, one tensor (I, size) per (size, standard deviation).

    Drawn on the CPU whatever the device, so that a seed means the same everywhere.
    """
    drawn = [torch.empty(len(indices), size) for size, _ in sizes]
    for row, index in enumerate(indices):
        generator = torch.Generator().manual_seed(seed * NETWORK_STREAM + index)
        for tensor, (_, deviation) in zip(drawn, sizes, strict=True):
            tensor[row].normal_(0, deviation, generator=generator)
    return [tensor.to(device) for tensor in drawn]


def covariance_root(rows: Tensor) -> Tensor:
    """Lower-triangular (..., N, N) whose square is the Gram matrix of (..., N, in) rows."""
    gram = rows.double() @ rows.double().mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += JITTER * diagonal.mean(-1, keepdim=True) + 1e-30
    return torch.linalg.cholesky(gram).to(rows.dtype)


def felt_inputs(points: int, inputs: int) -> int:
    """How many numbers per unit are drawn for a layer: all weights, or one per data point if that is far less."""
    return points if 2 * points <= inputs else inputs


class MLPChunk:
    """Untrained MLPs side by side, up to the place of their norms.

    Args:
        config: sizes; its norm and place are not used here.
        seed: of the study.
        indices: which of its networks.
        x_ND: the data.
    """

    def __init__(self, config: InitBiasConfig, seed: int, indices: Sequence[int], x_ND: Tensor):
        self.config, self.networks = config, len(indices)
        points, inputs, width = *x_ND.shape, config.width
        gain = kaiming_gain(config.activation)
        self.felt = felt_inputs(points, width)
        felt_first = felt_inputs(points, inputs)
        sizes = [
            (width * felt_first, gain / math.sqrt(inputs)),
            ((config.depth - 1) * width * self.felt, gain / math.sqrt(width)),
            (len(config.depths) * config.classes * width, gain / math.sqrt(width)),
        ]
        first, hidden, out = draw(seed, indices, sizes, x_ND.device)
        seen = x_ND if felt_first == inputs else covariance_root(x_ND)
        self.first_weights = first.view(self.networks, width, felt_first)
        self.first_IWN = (first.view(-1, felt_first) @ seen.mT).view(self.networks, width, points)
        self.hidden_weights = hidden.view(self.networks, config.depth - 1, width, self.felt)
        self.out_weights = out.view(self.networks, len(config.depths), config.classes, width)

    def outputs(self, norm: NormKind, place: Place) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs (I, K, N) of the networks of each depth in ``config.depths``, all with one norm and place.

        With them the scales (I, N): the length of what the output layer is given.
        """
        points_last = norm != "layer"  # a batch norm pools over the points, a layer norm over the units
        z = self.first_IWN if points_last else self.first_IWN.mT.contiguous()
        reads = {depth: which for which, depth in enumerate(self.config.depths)}
        for depth in range(1, self.config.depth + 1):
            h = self._norm_and_activation(z, norm, place)
            if depth in reads:
                h_IWN = h if points_last else h.mT
                yield self.out_weights[:, reads[depth]] @ h_IWN, torch.linalg.vector_norm(h_IWN, dim=1)
            if depth < self.config.depth:
                z = self._linear(h, self.hidden_weights[:, depth - 1], points_last)

    def _norm_and_activation(self, z: Tensor, norm: NormKind, place: Place) -> Tensor:
        kind = self.config.activation
        if norm == "none":
            return activate(z, kind)
        if place == "pre":
            return activate(functional.layer_norm(z, z.shape[-1:]), kind)
        return functional.layer_norm(activate(z, kind), z.shape[-1:])

    def _linear(self, h: Tensor, weight: Tensor, points_last: bool) -> Tensor:
        if self.felt == self.config.width:
            return weight @ h if points_last else h @ weight.mT
        root = covariance_root(h.mT if points_last else h)
        return weight @ root.mT if points_last else root @ weight.mT


class CNNChunk:
    """Untrained 1D CNNs side by side in the channels: convolutions, mean over time, one linear layer.

    Args:
        config: sizes and norm.
        seed: of the study.
        indices: which of its networks.
        x_NCT: the data.
    """

    def __init__(self, config: InitBiasConfig, seed: int, indices: Sequence[int], x_NCT: Tensor):
        self.config, self.networks, self.x_NCT = config, len(indices), x_NCT
        gain, width = kaiming_gain(config.activation), config.width
        inputs = [x_NCT.shape[1]] + [width] * (config.depth - 1)
        sizes = [(width * into * config.kernel, gain / math.sqrt(into * config.kernel)) for into in inputs]
        sizes.append((len(config.depths) * config.classes * width, gain / math.sqrt(width)))
        *weights, out = draw(seed, indices, sizes, x_NCT.device)
        self.weights = [weight.view(-1, into, config.kernel) for weight, into in zip(weights, inputs, strict=True)]
        self.out_weights = out.view(self.networks, len(config.depths), config.classes, width)

    def outputs(self, norm: NormKind, place: Place) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs (I, K, N) of the networks of each depth in ``config.depths``, and their scales (I, N)."""
        config, reads = self.config, {depth: which for which, depth in enumerate(self.config.depths)}
        layer = minibatch_norm(norm, config.width, config.groups, len(self.x_NCT)).to(self.x_NCT.device)

        def pool(x: Tensor) -> Tensor:
            """Untrained norms are alike, but each network has statistics of its own."""
            return vmap(layer, in_dims=1, out_dims=1)(x.unflatten(1, (self.networks, -1))).flatten(1, 2)

        h = repeat(self.x_NCT, "n c t -> n (i c) t", i=self.networks)
        for depth, weight in enumerate(self.weights, start=1):
            z = functional.conv1d(h, weight, padding=config.kernel // 2, groups=self.networks)
            h = activate(pool(z), config.activation) if place == "pre" else pool(activate(z, config.activation))
            if depth in reads:
                mean_IWN = rearrange(h.mean(-1), "n (i w) -> i w n", i=self.networks)
                yield self.out_weights[:, reads[depth]] @ mean_IWN, torch.linalg.vector_norm(mean_IWN, dim=1)
