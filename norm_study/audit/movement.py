"""The finite side of leakage: how far outputs move when everything beyond their receptive field is drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from norm_study.audit.influence import Estimate
from norm_study.audit.subject import Arguments, Subject, aligned

FEWEST, PRECISE = 8, 0.1


def finite_movement(
    subject: Subject,
    arguments: Arguments,
    interval: tuple[int, int],
    times: Sequence[int],
    redraw: Callable[[Arguments], Arguments],
) -> Estimate | None:
    """How far outputs move when the inputs outside their receptive field are drawn anew.

    Args:
        subject: the network.
        arguments: one input.
        interval: the receptive field, left and right.
        times: output times.
        redraw: other arguments of the same kind.

    Returns:
        Root mean square movement in units of each output channel's standard deviation over batch and time, and its
        standard error over output times; ``None`` where nothing lies outside the receptive field. Output times are
        taken in random order, and no more than it takes for a standard error of a tenth.
    """
    length, dim = subject.length(arguments), subject.output_time_dim
    with torch.no_grad():
        base = subject(arguments)
        pooled = sorted({0, dim % base.ndim})
        unit = base.std(dim=pooled, correction=0, keepdim=True).clamp_min(torch.finfo(base.dtype).tiny)
        squares: list[float] = []
        order = torch.randperm(len(times), generator=torch.Generator().manual_seed(subject.seed)).tolist()
        for time in (times[i] for i in order):
            position = aligned(time, base.shape[dim], length)
            if position - interval[0] <= 0 and position + interval[1] >= length - 1:
                continue
            other, mixed = redraw(arguments), list(arguments)
            for i in subject.timed(arguments):
                own_dim = subject.time_dims[i]
                assert own_dim is not None
                own = arguments[i].shape[own_dim]
                offsets = torch.tensor([aligned(s, own, length) - position for s in range(own)])
                inside = ((offsets >= -interval[0]) & (offsets <= interval[1])).nonzero()[:, 0].to(base.device)
                mixed[i] = other[i].index_copy(own_dim, inside, arguments[i].index_select(own_dim, inside))
            moved = (subject(tuple(mixed)) - base) / unit
            squares.append(float(moved.select(dim, time).square().mean()))
            found = _root_mean(squares)
            if len(squares) >= FEWEST and found.standard_error and found.standard_error < PRECISE * found.value:
                break
    return _root_mean(squares) if squares else None


def _root_mean(squares: Sequence[float]) -> Estimate:
    value = float(np.sqrt(np.mean(squares)))
    spread = float(np.std(squares, ddof=1) / np.sqrt(len(squares))) if len(squares) > 1 else None
    return Estimate(value, None if spread is None else spread / (2 * value) if value > 0 else 0.0)
