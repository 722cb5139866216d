"""The network under audit: run the same way every time, whatever it takes and gives.

Letters: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.errors import UserError
from norm_study.audit.preparation import in_precision

Arguments = tuple[Any, ...]


def is_real(value: Any) -> bool:
    """Whether a value is a tensor that gradients can pass: of real numbers, or complex ones inside a network."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def tensors_in(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in what a network returns, nested or not, with the place of each."""
    members: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield place, value
    elif isinstance(value, Mapping):
        members = value.items()
    elif isinstance(value, tuple | list):
        members = zip(getattr(value, "_fields", range(len(value))), value, strict=True)
    elif is_dataclass(value):
        members = [(one.name, getattr(value, one.name)) for one in fields(value)]
    for name, member in members:
        yield from tensors_in(member, f"{place}.{name}" if place else str(name))


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
        output_time_dim: the time axis of the output.
        seed: what every run's random numbers (dropout) start from.
        output: which of several tensors returned is the output, as ``sample``, ``0`` or ``heads.1``; by default the
            only one with a time axis.
    """

    module: nn.Module
    time_dims: tuple[int | None, ...]
    output_time_dim: int
    seed: int
    output: str | None = None
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
            UserError: the network returns no tensor, or several that could be its output.
        """
        returned = self.returned(arguments)
        if self.output is None:
            self.output = self._only_sequence(returned, arguments)
        if self.output not in returned:
            raise UserError(f"output = {self.output!r} is none of {', '.join(map(repr, returned))}")
        return returned[self.output]

    def returned(self, arguments: Arguments) -> dict[str, Tensor]:
        """Every floating-point tensor that the network returns, by its place."""
        self.reset()
        given = [value.clone() if isinstance(value, Tensor) else value for value in arguments]
        found = dict(tensors_in(self.module(*given)))
        if not found:
            raise UserError(f"{type(self.module).__name__} returned no floating-point tensor")
        return found

    def _only_sequence(self, returned: Mapping[str, Tensor], arguments: Arguments) -> str:
        """The one tensor with a time axis: where several have one, the one whose axis grows with the input."""
        dim = self.output_time_dim
        found = [name for name, value in returned.items() if -value.ndim <= dim < value.ndim] or list(returned)
        if len(found) > 1:
            try:
                longer = self.returned(stretched(self, arguments, "time"))
            except Exception:  # a network of one length
                longer = {}
            grown = [name for name in found if name in longer and longer[name].shape[dim] > returned[name].shape[dim]]
            found = grown or found
        if len(found) > 1:
            shapes = ", ".join(f"output={name!r} {list(returned[name].shape)}" for name in found[:3])
            shapes += f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(f"{type(self.module).__name__} returned several sequences; name the one to audit: {shapes}")
        return found[0]

    def length(self, arguments: Arguments) -> int:
        """T of the first argument, the scale on which times of inputs are given."""
        dim = self.time_dims[0]
        assert dim is not None
        return int(arguments[0].shape[dim])

    def timed(self, arguments: Arguments) -> list[int]:
        """Which arguments have a time axis."""
        return [i for i in range(len(arguments)) if self.time_dims[i] is not None]

    def is_constant(self, arguments: Arguments, which: int) -> bool:
        """Whether an argument is the same at all times."""
        value, time = arguments[which], self.time_dims[which]
        return bool((value == value.narrow(time, 0, 1)).all())

    def varied(self, arguments: Arguments) -> Arguments:
        """The arguments, redrawn if none of them changes over time, since what is alike everywhere hides what mixes."""
        if not all(self.is_constant(arguments, i) for i in self.timed(arguments)):
            return arguments
        return self.redraw(arguments, torch.Generator().manual_seed(self.seed))

    def with_gradients(self, arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """The arguments with a time axis as leaves, and the output as a function of them."""
        given, leaves = list(arguments), []
        for i in self.timed(arguments):
            given[i] = arguments[i].detach().requires_grad_()
            leaves.append(given[i])
        return leaves, self(tuple(given))

    def redraw(self, arguments: Arguments, generator: torch.Generator) -> Arguments:
        """Arguments whose sequences are Gaussian, with the mean and deviation that each channel had.

        A constant channel gets the deviation of all, or 1 where all are constant.
        """
        given = list(arguments)
        for i in self.timed(arguments):
            value, time = arguments[i], self.time_dims[i]
            assert time is not None
            pooled = sorted({0, time % value.ndim})
            deviation, mean = torch.std_mean(value, dim=pooled, keepdim=True, correction=0)
            whole = value.std(correction=0)
            deviation = torch.where(deviation > 0, deviation, torch.where(whole > 0, whole, torch.ones_like(whole)))
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
            given[i] = mean + deviation * noise
        return tuple(given)


def longer(value: Tensor, dim: int, times: int) -> Tensor:
    """The value, itself backwards, itself, …: ``times`` as long along ``dim``."""
    return torch.cat([value.flip(dim) if i % 2 else value for i in range(times)], dim)


def stretched(subject: Subject, arguments: Arguments, what: str) -> Arguments:
    """The arguments with twice the time or twice the batch."""
    time = subject.time_dims[0]
    assert time is not None
    first = 1 if time % arguments[0].ndim == 0 else 0  # the batch is the first axis that is not time
    size = arguments[0].shape[first] if arguments[0].ndim > 1 else 0
    given = list(arguments)
    for i, value in enumerate(arguments):
        if not isinstance(value, Tensor):
            continue
        dim = subject.time_dims[i]
        if what == "time" and dim is not None:
            given[i] = longer(value, dim, 2)
        if what == "batch":
            own = first if dim is not None else 0
            if value.ndim > own and value.shape[own] == size:
                given[i] = longer(value, own, 2)
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
        if not isinstance(value, Tensor):
            raise UserError(f"input {i} has a time axis, so it must be a tensor, not {type(value).__name__}")
        if not value.is_floating_point():
            raise UserError(f"input {i} has a time axis, so it must be a floating-point tensor: pass embeddings")
        if not -value.ndim <= dim < value.ndim:
            raise UserError(f"time_dims: input {i} of shape {list(value.shape)} has no axis {dim}")
    return tuple(in_precision(v, dtype).detach() if isinstance(v, Tensor) else v for v in given), dims
