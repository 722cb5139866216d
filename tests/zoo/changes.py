"""What outputs hear, found by changing inputs: no gradient, no hook, nothing that an audit would use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.fields import Field, position

ROUNDING = 1e-12


def run(network: nn.Module, arguments: Sequence[Tensor]) -> Tensor:
    """The output, with the same random numbers and buffers every time."""
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    torch.manual_seed(0)
    with torch.no_grad():
        output = network(*arguments)
        for name, value in network.named_buffers():
            value.copy_(buffers[name])
    return output


def heard(network: nn.Module, arguments: Sequence[Tensor], dim: int, seed: int = 0) -> Tensor:
    """(T, S) the largest change of the output at time t when the input at time s is another, in output deviations.

    Args:
        network: in double precision.
        arguments: the same; the sequence first.
        dim: the time axis of sequence and output.
        seed: of the changes.
    """
    generator = torch.Generator().manual_seed(seed)
    sequence, others = arguments[0], arguments[1:]
    base = run(network, arguments)
    columns = []
    for s in range(sequence.shape[dim]):
        changed = sequence.clone()
        change = 3 * torch.randn(changed.select(dim, s).shape, generator=generator, dtype=changed.dtype)
        changed.select(dim, s).add_(change)
        moved = (run(network, (changed, *others)) - base).abs()
        columns.append(moved.movedim(dim, 0).flatten(1).amax(1))
    return torch.stack(columns, 1) / base.std().clamp_min(1e-300)


def hull(changes: Tensor) -> tuple[int, int]:
    """How far left and right of its own position any output hears."""
    outputs, inputs = changes.shape
    t, s = (changes > ROUNDING).nonzero().T
    at = torch.tensor([position(o, outputs, inputs) for o in range(outputs)])[t]
    return int((at - s).max().clamp_min(0)), int((s - at).max().clamp_min(0))


def movement(network: nn.Module, arguments: Sequence[Tensor], dim: int, field: Field, times: int = 16) -> float:
    """How far an output moves, in deviations of all outputs, when everything beyond its field is drawn anew.

    The root of the mean square over evenly spaced output times.
    """
    generator = torch.Generator().manual_seed(1)
    sequence, others = arguments[0], arguments[1:]
    base, squares = run(network, arguments), []
    outputs, inputs = base.shape[dim], sequence.shape[dim]
    for t in sorted({round(i * (outputs - 1) / (times - 1)) for i in range(times)}):
        low, high = field(t)
        low, high = max(low, 0), min(high, inputs - 1)
        other = torch.randn(sequence.shape, generator=generator, dtype=sequence.dtype)
        other.narrow(dim, low, high - low + 1).copy_(sequence.narrow(dim, low, high - low + 1))
        moved = run(network, (other, *others)) - base
        squares.append(moved.select(dim, t).square().mean())
    return float((torch.stack(squares).mean().sqrt() / base.std()).item())
