"""A yes or no, without numbers or blame: the network's own test of locality, as every module has one in an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves

from groundwork.errors import UserError
from norm_study.audit.attribution import longest_tested
from norm_study.audit.locality import LocalityTest, growth
from norm_study.audit.preparation import borrowed, draw_zeros, unwrapped
from norm_study.audit.recording import Axes, Call
from norm_study.audit.subject import Arguments, Subject, check_arguments


def is_local(
    module: nn.Module,
    inputs: Any,
    *,
    time_dims: int | Sequence[int | None] = -1,
    output_time_dim: int | None = None,
    output: str | None = None,
    dtype: torch.dtype | None = torch.float64,
    training: bool | None = None,
    seed: int = 0,
) -> bool:
    """Whether what an output hears has an end, however long the input: no norm, attention or mean over time.

    A few steps of the input are changed, and gradients are taken; if the stretch that this touches grows when the input
    is made longer, the network mixes time. Takes a few forward and backward passes.

    Args:
        module: any network that takes inputs of several lengths.
        inputs: its arguments as a tuple, the sequence first; or a lone tensor.
        time_dims: the time axis of the first argument, or one entry per argument.
        output_time_dim: the time axis of the output; by default that of the first argument.
        output: which of several tensors returned is meant, see :func:`norm_study.audit.audit`.
        dtype: that is computed in; ``None`` keeps the network's own.
        training: the mode; ``None`` keeps the module's own.
        seed: of the changes and the network's own randomness.

    Raises:
        UserError: an argument that cannot be used, or an output that does not depend on the input.
    """
    module = unwrapped(module)
    arguments, dims = check_arguments(inputs, time_dims, dtype)
    assert dims[0] is not None
    with borrowed(module, dtype, training):
        draw_zeros(module, seed)
        subject = Subject(module, dims, dims[0] if output_time_dim is None else output_time_dim, seed, output)
        try:
            subject(arguments)
        except UserError:
            raise
        except Exception as error:  # whatever a foreign network raises
            failure: Exception | None = error
        else:
            failure = None
        if failure is None:
            return _is_local(subject, arguments, seed)
    if dtype is None:
        raise UserError(f"the network fails on these inputs: {' '.join(str(failure).split())[:300]}") from failure
    return is_local(
        module,
        inputs,
        time_dims=time_dims,
        output_time_dim=output_time_dim,
        output=output,
        dtype=None,
        training=training,
        seed=seed,
    )


def _is_local(subject: Subject, arguments: Arguments, seed: int) -> bool:
    arguments = subject.varied(arguments)
    axes: Axes = []
    for dim, value in zip(subject.time_dims, arguments, strict=True):
        axes += [() for _ in tree_leaves(value)] if dim is None else [(dim % value.ndim,)]
    leaves, spec = tree_flatten((arguments, {}))
    call = Call(subject.module, leaves, spec, axes, [() for _ in leaves], output=subject.output)
    test = LocalityTest(call, axes, seed)
    cap = longest_tested(test.size)
    grows, spans, _ = growth(test.changed_outputs, cap)
    if all(high < low for low, high, _ in spans.values()):
        raise UserError("not measured: the output does not depend on the input")
    return not grows and not growth(lambda times: test.heard_inputs(times, (), 0.0), cap)[0]
