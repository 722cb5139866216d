"""A network made ready for an audit, and given back as it was found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from groundwork.errors import UserError


def require_module(network: object) -> None:
    """Refuses what has no modules to look into.

    Raises:
        UserError: it is no ``torch.nn.Module``.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"the network is a {type(network).__name__}, which is no torch.nn.Module")


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``torch.compile`` and the wrappers that spread it over devices.

    Raises:
        UserError: no module, or a part was scripted or traced, so that its inner modules cannot be watched, or has no
            weights yet.
    """
    require_module(module)
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            break
        module = inner
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UserError(
                f"{name or 'the network'} is a product of torch.jit (script or trace), which hides what is inside it: "
                "audit the module that it was made from"
            )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise UserError("the network has lazy modules without weights: run it once first")
    return module


@contextmanager
def eager() -> Iterator[None]:
    """Compiled parts run as they were written, and gradient checkpoints keep what they would compute again.

    Otherwise compiled code passes by hooks and exchanged forwards, and a checkpoint computes again, in the backward
    pass, with forwards that have been given back by then.
    """

    class Kept:
        @staticmethod
        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return function(*args)

    def keeping(*args: Any, **kwargs: Any) -> Iterator[None]:
        yield

    with ExitStack() as stack:
        checkpoint = torch.utils.checkpoint
        stack.enter_context(patch.object(checkpoint, "CheckpointFunction", Kept))
        stack.enter_context(patch.object(checkpoint, "_checkpoint_without_reentrant_generator", keeping))
        if "torch._dynamo" in sys.modules:  # nothing is compiled where it was never imported
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def in_precision(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor of real or complex numbers in a real precision; ``None``, and any other tensor, as it is."""
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def draw_zeros(module: nn.Module, seed: int) -> list[str]:
    """Draws every weight that is zero throughout, biases apart, from a normal distribution; returns their names.

    Diffusion networks begin with a last layer of zeros, residual branches with a gate of zero: nothing passes them, so
    nothing could be measured.
    """
    generator, drawn = torch.Generator().manual_seed(seed), []
    for name, parameter in module.named_parameters():
        if parameter.numel() and not name.endswith("bias") and not parameter.any():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5
            parameter.data = noise.to(parameter)
            drawn.append(name)
    return drawn


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
    parameters = [(p, p.data, p.requires_grad) for p in module.parameters()]
    buffers = [(owner, dict(owner._buffers)) for owner in module.modules()]
    modes = [(part, part.training) for part in module.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (a foreign network may draw from it)
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    devices = sorted({p.device.index for p in module.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), eager():
            torch.backends.mha.set_fastpath_enabled(False)  # it would pass by the modules that it replaces
            for parameter, data, _ in parameters:
                parameter.requires_grad_(False)
                parameter.data = in_precision(data, dtype)
            for owner, own in buffers:
                owner._buffers.update(
                    {k: None if v is None else in_precision(v, dtype).clone() for k, v in own.items()}
                )
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
