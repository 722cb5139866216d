"""Many trainings as one: the losses and gradients of networks of equal shape are one batched computation.

Small networks leave a GPU idle and spend much of a CPU's time between kernels. S of them side by side do each operation
once, a convolution as one of S groups (``torch.func.vmap``). Each network keeps its own windows, noise, clipping,
learning rate, optimizer and moving average, and ends with the weights that it would have had alone, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from groundwork.errors import UserError
from planner.config import Config
from planner.training.distributed import Ranks
from planner.training.trainer import Trainer

Batch = tuple[Tensor, ...]


def check_stack(configs: Sequence[Config], ranks: Ranks) -> None:
    """Trainings can be one if they differ in seed and learning rate alone.

    Raises:
        UserError: they differ in more, or are to be compiled or shared by several processes.
    """
    first, size = configs[0], len(configs)
    if any(_alike(config) != _alike(first) for config in configs):
        raise UserError(f"stack = {size}: trainings as one may differ in seed and learning_rate alone")
    if size > 1 and (first.compile or ranks.count > 1):
        raise UserError(f"stack = {size}: trainings as one are neither compiled nor shared by several processes")


def stacks(configs: Mapping[Path, Config], size: int) -> Iterator[dict[Path, Config]]:
    """Run folder → settings, shared out to stacks of at most ``size`` trainings."""
    groups: dict[Config, list[Path]] = {}
    for path, config in configs.items():
        groups.setdefault(_alike(config), []).append(path)
    for paths in groups.values():
        for first in range(0, len(paths), size):
            yield {path: configs[path] for path in paths[first : first + size]}


def _alike(config: Config) -> Config:
    return replace(config, seed=0, learning_rate=1.0)


class Stack:
    """S networks of equal shape, whose weights from now on lie together.

    Args:
        networks: modules of one class; their parameters and buffers become views of the stacked ones. One alone
            stays as it is.

    Attributes:
        parameters: by name, what an optimizer of all moves, (S, …) of several.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        self.networks = list(networks)
        if len(self.networks) == 1:
            self.parameters: dict[str, Any] = dict(self.networks[0].named_parameters())
            return
        self.parameters, self.buffers = stack_module_state(self.networks)
        for index, network in enumerate(self.networks):
            for name, parameter in network.named_parameters():
                parameter.data = self.parameters[name].data[index]
            for name, buffer in network.named_buffers():
                buffer.data = self.buffers[name][index]

    def losses(self, loss: Callable[[Any, Batch], Tensor], batches: Sequence[Batch]) -> Tensor:
        """The loss (S,) of each network on its batch, a function of the parameters."""
        if len(self.networks) == 1:
            return loss(self.networks[0], batches[0])[None]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch) -> Tensor:
            network = self.networks[0]
            return loss(lambda *given, **told: functional_call(network, (parameters, buffers), given, told), batch)

        stacked = tuple(map(torch.stack, zip(*batches, strict=True)))
        return vmap(one)(self.parameters, self.buffers, stacked)

    def backward(self, loss: Callable[[Any, Batch], Tensor], batches: Sequence[Batch]) -> Tensor:
        """The losses as above; their gradients become those of the networks' parameters."""
        losses_S = self.losses(loss, batches)
        losses_S.sum().backward()
        if len(self.networks) > 1:
            for name, parameter in self.parameters.items():
                for network, gradient in zip(self.networks, parameter.grad, strict=True):
                    network.get_parameter(name).grad = gradient
                parameter.grad = None
        return losses_S.detach()


def update_together(trainers: Sequence[Trainer], stack: Stack | None) -> list[tuple[Tensor, Tensor]]:
    """One optimizer step of each; the networks of several are stacked. Returns what :meth:`Trainer.update` does."""
    if stack is None or len(trainers) == 1:
        return [trainers[0].update()]
    losses_S = stack.backward(trainers[0].loss, [trainer.batch() for trainer in trainers])
    return [(loss, trainer.apply_gradients()) for loss, trainer in zip(losses_S, trainers, strict=True)]
