"""How a module that mixes time does it: by a statistic that all times share, or by design, as attention does.

A statistic (a norm's variance, the mean of squeeze-and-excitation) takes every far input for the same: where all times
are alike, each has the same influence on an output far away. A recurrence, a Fourier layer or weights between times
tell far inputs apart; attention, which does not where nothing is positional, is known by a softmax over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from norm_study.audit.frozen_norms import is_frozen_norm
from norm_study.audit.local_forms import LocalForm, made_local
from norm_study.audit.locality import LocalityTest
from norm_study.audit.recording import Axes
from norm_study.audit.subject import is_real

LENGTH = 256
UNEVEN = 0.05


def mixes_by_design(test: LocalityTest, blamed: Sequence[LocalForm], output_axes: Axes, longest: int) -> bool:
    """Whether a module that mixes weighs times against each other, rather than share a statistic of all.

    Args:
        test: of the module.
        blamed: mixing modules inside it, which are made local.
        output_axes: per output the axes that are time; one without any is a statistic itself.
        longest: how many times its recorded length the module may be given.
    """
    if is_frozen_norm(test.call.module) or not any(output_axes):
        return False
    sizes = [_softmax_sizes(test, blamed, times) for times in ((1, 2) if longest > 1 else (1,))]
    if longest > 1 and len(sizes[0]) == len(sizes[1]) and any(b > a for a, b in zip(*sizes, strict=True)):
        return True
    if longest == 1 and test.size in sizes[0]:
        return True
    times = min(longest, max(2, -(-LENGTH // test.size)))
    return any(_uneven(side) for side in _far_influence(test, blamed, output_axes, times))


def _far_influence(test: LocalityTest, blamed: Sequence[LocalForm], output_axes: Axes, times: int) -> Iterator[Tensor]:
    """Energies of the inputs before and after the middle of the output, of an input that is alike at all times."""
    leaves = test.lengthened(times)
    for i, dims in enumerate(test.axes):
        if is_real(leaves[i]):
            for dim in dims:
                leaves[i] = leaves[i].mean(dim, keepdim=True).expand_as(leaves[i]).clone()
            leaves[i] = leaves[i].detach().requires_grad_(bool(dims))
    with torch.enable_grad(), made_local(blamed):
        outputs = test.call.run(leaves, test.seed)
    generator = torch.Generator().manual_seed(test.seed)
    parts = [
        output.select(dims[0], output.shape[dims[0]] // 2)
        for output, dims in zip(outputs, output_axes, strict=True)
        if dims and output.requires_grad
    ]
    given = [(leaves[i], dims[0]) for i, dims in enumerate(test.axes) if dims and is_real(leaves[i])]
    if not parts or not given:
        return
    signs = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part) for part in parts]
    gradients = torch.autograd.grad(parts, [leaf for leaf, _ in given], signs, allow_unused=True)
    for gradient, (leaf, dim) in zip(gradients, given, strict=True):
        if gradient is not None:
            size = leaf.shape[dim]
            energy = gradient.abs().square().movedim(dim, 0).reshape(size, -1).sum(1)
            yield energy[size // 8 : 3 * size // 8]
            yield energy[-(3 * size // 8) : -(size // 8)]


def _uneven(energies: Tensor) -> bool:
    if len(energies) < 2 or not energies.any():
        return False
    return float(energies.std() / energies.mean()) > UNEVEN


class _Softmaxes(TorchDispatchMode):
    """Collects how many numbers each softmax weighs, outside modules that are blamed already."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.inside = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if not self.inside and "backward" not in name:
            if "scaled_dot_product" in name:
                self.sizes.append(args[1].shape[-2])
            elif "softmax" in name:
                self.sizes.append(args[0].shape[args[1]])
        return func(*args, **(kwargs or {}))


def _softmax_sizes(test: LocalityTest, blamed: Sequence[LocalForm], times: int) -> list[int]:
    mode = _Softmaxes()
    with torch.no_grad(), _counted(mode, [form.module for form in blamed]), mode:
        test.call.run(test.lengthened(times), test.seed)
    return mode.sizes


@contextmanager
def _counted(mode: _Softmaxes, modules: Sequence[nn.Module]) -> Iterator[None]:
    """While one of the modules runs, ``mode.inside`` is above zero."""

    def step(change: int) -> Any:
        def hook(*_: Any) -> None:
            mode.inside += change

        return hook

    handles = []
    for module in modules:
        handles += [module.register_forward_pre_hook(step(1)), module.register_forward_hook(step(-1))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
