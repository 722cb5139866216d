"""The leak audit: how much of what a network's output hears comes from beyond its receptive field, and by which layer.

    report = audit(network, (trajectory, level), time_dims=-1)
    report.leakage.value, report.receptive_field, [m.name for m in report.modules if m.verdict != "local"]

Definitions: *leakage* is the energy of the Jacobian outside the receptive field over its whole energy; the *receptive
field* is where the Jacobian is not zero once every module that mixes time is made local.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from groundwork.errors import UserError
from norm_study.audit.findings import AuditReport
from norm_study.audit.preparation import borrowed, draw_zeros, unwrapped
from norm_study.audit.session import NetworkFails, Session
from norm_study.audit.subject import Subject, check_arguments

SAMPLING = ("times", "projections", "exact", "redraws", "tolerance", "seed")


def audit(
    module: nn.Module,
    inputs: Any,
    *,
    time_dims: int | Sequence[int | None] = -1,
    output_time_dim: int | None = None,
    output: str | None = None,
    times: int = 32,
    projections: int = 2,
    exact: bool = False,
    dtype: torch.dtype | None = torch.float64,
    training: bool | None = None,
    attribution: bool = True,
    redraws: int = 4,
    tolerance: float = 0.0,
    seed: int = 0,
) -> AuditReport:
    """Measures what a network leaks through time, and which modules do it.

    The module comes back as it was: parameters, buffers, mode, ``requires_grad``, hooks, random generators.
    ``torch.compile`` and gradient checkpointing are set aside. Weights that are zero throughout, as last layers and
    gates often begin, are drawn from a normal distribution, and a constant input is redrawn; notes say so.

    Args:
        module: any network.
        inputs: its arguments as a tuple, the sequence first (a lone tensor will do); or a list of such tuples, of
            equal shapes, to measure over several inputs, at several noise levels for instance.
        time_dims: the time axis of the first argument; or one entry per argument, ``None`` where there is no time.
        output_time_dim: the time axis of the output; by default that of the first argument.
        output: which of several tensors returned is meant: a key, an index, or a path of them (``heads.0``); by default
            the only one whose time axis grows with the input.
        times: output times measured, one at random in each of as many equal stretches.
        projections: random sign vectors per output time.
        exact: every output channel instead of random projections.
        dtype: what the network is converted to while it is measured; ``None`` keeps its own, as does a network that
            fails otherwise, with a note.
        training: the mode that is audited; ``None`` keeps the module's own.
        attribution: whether to measure each mixing module's own leakage too.
        redraws: further random inputs that the receptive field is hulled over, since a ReLU that is off hides some.
        tolerance: influences up to this share of the largest count as none. Leave it at 0 unless convolutions are
            computed through transforms, whose rounding reaches everywhere.
        seed: of projections, output times, redrawn inputs and the network's own randomness.

    Raises:
        UserError: arguments without the time axis they should have, a network that fails on them, is a product of
            ``torch.jit``, or returns several sequences of which ``output`` names none.
    """
    if times < 1 or projections < 1 or redraws < 0:
        raise UserError(f"times = {times} and projections = {projections} must be at least 1, redraws = {redraws} 0")
    module = unwrapped(module)
    sampling = dict(zip(SAMPLING, (times, projections, exact, redraws, tolerance, seed), strict=True))
    if isinstance(inputs, list) and not inputs:
        raise UserError("inputs is an empty list")
    asked = (module, inputs, time_dims, output_time_dim, output, training, attribution, sampling)
    try:
        return _measured(*asked, dtype, [])
    except NetworkFails as failure:
        if dtype is None:
            raise
        return _measured(*asked, None, [f"measured in its own precision, since it fails in {dtype}: {failure.reason}"])


def _measured(
    module: nn.Module,
    inputs: Any,
    time_dims: int | Sequence[int | None],
    output_time_dim: int | None,
    output: str | None,
    training: bool | None,
    attribution: bool,
    sampling: dict[str, Any],
    dtype: torch.dtype | None,
    notes: list[str],
) -> AuditReport:
    """The audit in one precision."""
    checked = [check_arguments(one, time_dims, dtype) for one in (inputs if isinstance(inputs, list) else [inputs])]
    given, dims = [one for one, _ in checked], checked[0][1]
    assert dims[0] is not None
    precision = None if dtype is None else str(dtype).removeprefix("torch.")
    settings = {"module": type(module).__name__, **sampling, "dtype": precision, "training": training}
    seed = sampling["seed"]
    with borrowed(module, dtype, training):
        if drawn := draw_zeros(module, seed):
            named = ", ".join(drawn[:3]) + (f" and {len(drawn) - 3} more" if len(drawn) > 3 else "")
            notes.append(f"measured at perturbed weights, since these were zero throughout: {named}")
        subject = Subject(module, dims, dims[0] if output_time_dim is None else output_time_dim, seed, output)
        return Session(subject, given, notes, sampling).report(attribution, settings)
