"""The network of the localization experiments, equation (1) of the paper."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.norms import NormKind, make_norm, norm_facts


class ConvNetwork(nn.Module):
    """Conv(in, h), Norm, ReLU, [Conv(h, h), Norm, ReLU] x (D - 2), Conv(h, 1); (B, in, T) to (B, 1, T').

    A norm over minibatches of m sequences pools what PackNorm over m packs pools, so a batch that holds many
    minibatches in consecutive rows is normalized minibatch by minibatch in one pass. Its gradient is the one that
    accumulation over the minibatches gives.

    Args:
        seed: what its initialization is a function of.
        norm: its kind.
        inputs: channels of its input.
        depth: D, the number of convolutions.
        kernel: odd; ``padded`` keeps the length, else each convolution shortens it by ``kernel - 1``.
        width: h.
        groups: of the group norm.
        minibatch: sequences that share the statistics of ``batch``.
        padded: see ``kernel``.
    """

    def __init__(
        self,
        seed: int,
        norm: NormKind = "none",
        *,
        inputs: int = 1,
        depth: int,
        kernel: int,
        width: int,
        groups: int = 1,
        minibatch: int = 1,
        padded: bool = True,
    ):
        super().__init__()
        widths = [inputs] + [width] * (depth - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolutions = nn.ModuleList(
                nn.Conv1d(before, after, kernel, padding=(kernel - 1) // 2 if padded else 0)
                for before, after in zip(widths, [*widths[1:], 1], strict=True)
            )
        self.norms = nn.ModuleList(minibatch_norm(norm, width, groups, minibatch) for _ in range(depth - 1))

    def hidden(self, x: Tensor) -> Iterator[Tensor]:
        """The activations after each hidden layer's ReLU: D - 1 tensors (B, h, T)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = functional.relu(norm(convolution(x)))
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """Predicts every position."""
        for activation in self.hidden(x):
            x = activation
        return self.convolutions[-1](x)


def minibatch_norm(kind: NormKind, channels: int, groups: int, minibatch: int) -> nn.Module:
    """The norm layer of ``planner.norms``; one over a batch takes its statistics over ``minibatch`` rows at a time."""
    facts = norm_facts(kind)
    if (facts.over, facts.channels) == (("batch", "time"), "each"):
        return make_norm("packnorm_isolated", channels, num_packs=minibatch)
    return make_norm(kind, channels, groups=groups)
