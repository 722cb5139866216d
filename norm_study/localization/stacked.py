"""Many small convolutional networks trained as one: the engine of the localization experiments.

S networks lie side by side in the channels, so that one grouped convolution moves them all. Nothing passes
between them: each has its own initialization, inputs, learning rate and Adam moments, and ends with the
weights that it would have had alone, to rounding. Letters: B batch, S networks, C channels of one network,
T time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.norms import NormKind, make_norm, norm_facts


class StackedConv1d(nn.Module):
    """S convolutions, (B, S*in, T) to (B, S*out, T'), initialized as ``nn.Conv1d`` is."""

    def __init__(self, generators: Sequence[torch.Generator], inputs: int, outputs: int, kernel: int, padding: int):
        super().__init__()
        self.networks, self.padding = len(generators), padding
        bound = 1 / math.sqrt(inputs * kernel)

        def draw(*shape: int) -> nn.Parameter:
            drawn = [torch.empty(shape).uniform_(-bound, bound, generator=g) for g in generators]
            return nn.Parameter(torch.cat(drawn))

        self.weight = draw(outputs, inputs, kernel)
        self.bias = draw(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves every network's channels with its own weights."""
        return functional.conv1d(x, self.weight, self.bias, padding=self.padding, groups=self.networks)


def stacked_norm(kind: NormKind, networks: int, channels: int, groups: int, minibatch: int) -> nn.Module:
    """The norm layer of ``planner.norms`` for S networks side by side.

    A norm over minibatches of m sequences pools what PackNorm over m packs pools, so a batch that holds many
    minibatches in consecutive rows is normalized minibatch by minibatch in one pass. Its gradient is the one that
    accumulation over the minibatches gives.
    """
    facts = norm_facts(kind)
    if (facts.over, facts.channels) == (("batch", "time"), "each"):
        return make_norm("packnorm_isolated", channels, num_packs=minibatch, networks=networks)
    return make_norm(kind, channels, groups=groups, networks=networks)


class StackedNetwork(nn.Module):
    """S networks of equation (1): Conv(in, h), Norm, ReLU, [Conv(h, h), Norm, ReLU] x (D - 2), Conv(h, 1).

    Args:
        seeds: one per network; its initialization depends on nothing else.
        inputs: channels of one network's input.
        depth: D, the number of convolutions.
        kernel: odd; ``padded`` keeps the length, else each convolution shortens it by ``kernel - 1``.
        width: h.
        groups: of the group norm.
        minibatch: sequences that share the statistics of ``batch``.
    """

    def __init__(
        self,
        seeds: Sequence[int],
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
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        padding = (kernel - 1) // 2 if padded else 0
        self.networks = len(seeds)
        widths = [inputs] + [width] * (depth - 1)
        self.convolutions = nn.ModuleList(
            StackedConv1d(generators, before, after, kernel, padding)
            for before, after in zip(widths, [*widths[1:], 1], strict=True)
        )
        self.norms = nn.ModuleList(
            stacked_norm(norm, self.networks, width, groups, minibatch) for _ in range(depth - 1)
        )

    def hidden(self, x: Tensor) -> Iterator[Tensor]:
        """The activations after each hidden layer's ReLU: D - 1 tensors (B, S*h, T)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = functional.relu(norm(convolution(x)))
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """(B, S*in, T) to predictions (B, S, T')."""
        for activation in self.hidden(x):
            x = activation
        return self.convolutions[-1](x)


class StackedAdam:
    """Adam with a learning rate per network; every parameter's first axis is (network, rest)."""

    def __init__(self, parameters: Iterator[nn.Parameter], learning_rates: Sequence[float]):
        self.parameters: list[Tensor] = [p for p in parameters if p.requires_grad]
        self.rates = torch.tensor(learning_rates, device=self.parameters[0].device)
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        # One rate per entry of a parameter, so that a step is three passes over all parameters at once.
        self.scales = [self._spread(p) for p in self.parameters]
        self.steps = 0

    def _spread(self, parameter: Tensor) -> Tensor:
        per_row = self.rates.repeat_interleave(len(parameter) // len(self.rates))
        return per_row.view(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter).contiguous()

    @torch.no_grad()
    def step(self, schedule: float = 1.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        """One update; ``schedule`` multiplies every network's learning rate."""
        self.steps += 1
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_lerp_(self.first, gradients, 1 - beta1)
        torch._foreach_mul_(self.second, beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(self.second)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**self.steps))
        torch._foreach_add_(denominators, eps)
        updates = torch._foreach_mul(self.first, self.scales)
        torch._foreach_addcdiv_(self.parameters, updates, denominators, -schedule / (1 - beta1**self.steps))
        for parameter in self.parameters:
            parameter.grad = None
