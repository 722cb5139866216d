"""The network under audit: run the same way every time, and given back as it was found.

Letters: B batch, C channels, T time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from groundwork.errors import UserError

Arguments = tuple[Any, ...]


def is_real(value: Any) -> bool:
    """Whether a value is a tensor that gradients can pass."""
    return isinstance(value, Tensor) and value.is_floating_point()


def reseed(seed: int) -> None:
    """Seeds the generators of torch; its own ``manual_seed`` takes milliseconds where no GPU was used yet."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def aligned(time: int, from_length: int, to_length: int) -> int:
    """The index on an axis of ``to_length`` steps that lies where ``time`` lies on one of ``from_length``.

    The longer axis is taken to have the nearest whole number of steps to each of the shorter's; what that leaves over
    was cut off or added evenly at both ends, as unpadded convolutions do.
    """
    if to_length >= from_length:
        steps = round(to_length / from_length)
        return time * steps + int((to_length - steps * from_length) / 2)
    steps = round(from_length / to_length)
    return (time - int((from_length - steps * to_length) / 2)) // steps


@dataclass
class Subject:
    """A module, and where time lies in what it takes and gives.

    Attributes:
        module: the network.
        time_dims: one entry per positional argument: its time axis, or ``None`` where it has none.
        output_time_dim: the time axis of the output, which is the first floating-point tensor returned.
        seed: what every run's random numbers (dropout) start from.
    """

    module: nn.Module
    time_dims: tuple[int | None, ...]
    output_time_dim: int
    seed: int
    _buffers: list[tuple[nn.Module, str, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self._buffers = [
            (owner, name, tensor)
            for owner in self.module.modules()
            for name, tensor in owner._buffers.items()
            if tensor is not None
        ]

    def reset(self) -> None:
        """Seeds the generators and takes back what earlier runs did to buffers."""
        reseed(self.seed)
        for owner, name, tensor in self._buffers:  # exchanged, not overwritten: a kept graph may hold the old one
            owner._buffers[name] = tensor.clone()

    def __call__(self, arguments: Arguments) -> Tensor:
        """The output for these arguments.

        Raises:
            UserError: the network returns no tensor.
        """
        self.reset()
        given = [value.clone() if isinstance(value, Tensor) else value for value in arguments]
        for leaf in tree_leaves(self.module(*given)):
            if is_real(leaf):
                return leaf
        raise UserError(f"{type(self.module).__name__} returned no floating-point tensor")

    def length(self, arguments: Arguments) -> int:
        """T of the first argument, the scale on which times of inputs are given."""
        dim = self.time_dims[0]
        assert dim is not None
        return int(arguments[0].shape[dim])

    def timed(self, arguments: Arguments) -> list[int]:
        """Which arguments have a time axis."""
        return [i for i in range(len(arguments)) if self.time_dims[i] is not None]

    def with_gradients(self, arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """The arguments with a time axis as leaves, and the output as a function of them."""
        given, leaves = list(arguments), []
        for i in self.timed(arguments):
            given[i] = arguments[i].detach().requires_grad_()
            leaves.append(given[i])
        return leaves, self(tuple(given))

    def redraw(self, arguments: Arguments, generator: torch.Generator) -> Arguments:
        """Arguments whose sequences are Gaussian, with the mean and deviation that each channel had."""
        given = list(arguments)
        for i in self.timed(arguments):
            value, time = arguments[i], self.time_dims[i]
            assert time is not None
            pooled = sorted({0, time % value.ndim})
            deviation, mean = torch.std_mean(value, dim=pooled, keepdim=True, correction=0)
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
            given[i] = mean + deviation * noise
        return tuple(given)


def check_arguments(
    arguments: Any, time_dims: int | Sequence[int | None], dtype: torch.dtype | None
) -> tuple[Arguments, tuple[int | None, ...]]:
    """One network input as a tuple, and a time axis or ``None`` for each of its members.

    Raises:
        UserError: no tensor, a time axis that is not there, sequences that gradients cannot pass.
    """
    given = tuple(arguments) if isinstance(arguments, tuple) else (arguments,)
    dims = (time_dims,) if isinstance(time_dims, int) else tuple(time_dims)
    dims = dims + (None,) * (len(given) - len(dims))
    if len(dims) > len(given) or not dims or dims[0] is None:
        raise UserError(f"time_dims = {time_dims!r} must name an axis of the first of {len(given)} inputs")
    for i, (value, dim) in enumerate(zip(given, dims, strict=True)):
        if dim is None:
            continue
        if not is_real(value):
            raise UserError(f"input {i} has a time axis, so it must be a floating-point tensor: pass embeddings")
        if not -value.ndim <= dim < value.ndim:
            raise UserError(f"time_dims: input {i} of shape {list(value.shape)} has no axis {dim}")
    if dtype is not None:
        given = tuple(value.to(dtype) if is_real(value) else value for value in given)
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in given), dims


@contextmanager
def borrowed(module: nn.Module, dtype: torch.dtype | None, training: bool | None) -> Iterator[None]:
    """Converts a module for a while; afterwards it holds the same tensors, in the same mode, as before.

    Parameters' and buffers' own storage is set aside rather than converted back, and the generators of torch, numpy
    and Python are left where they were.

    Args:
        module: the network.
        dtype: of parameters and buffers; ``None`` leaves theirs.
        training: the mode; ``None`` leaves each module's own.
    """

    def converted(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

    parameters = [(p, p.data, p.requires_grad) for p in module.parameters()]
    buffers = [(owner, dict(owner._buffers)) for owner in module.modules()]
    modes = [(part, part.training) for part in module.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (a foreign network may draw from it)
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    devices = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.backends.mha.set_fastpath_enabled(False)  # it would pass by the modules that it replaces
            for parameter, data, _ in parameters:
                parameter.requires_grad_(False)
                parameter.data = converted(data)
            for owner, own in buffers:
                owner._buffers.update({k: None if v is None else converted(v).clone() for k, v in own.items()})
            if training is not None:
                module.train(training)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for parameter, data, requires_grad in parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
        for owner, own in buffers:
            owner._buffers.update(own)
        for part, mode in modes:
            part.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
