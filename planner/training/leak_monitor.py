"""Leakage while a network trains: how much of its output is heard from beyond its receptive field.

Letters: N output times, S input times.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

DECADES = 8
IMAGE_HEIGHT = 128


@contextmanager
def aside(network: nn.Module) -> Iterator[None]:
    """Runs a network in evaluation mode without a trace: modes, buffers and random generators come back."""
    modes = [(part, part.training) for part in network.modules()]
    buffers = [(part, dict(part._buffers)) for part in network.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (a foreign network may draw from it)
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for part, own in buffers:
                part._buffers.update({name: None if value is None else value.clone() for name, value in own.items()})
            network.eval()
            yield
    finally:
        for part, own in buffers:
            part._buffers.update(own)
        for part, mode in modes:
            part.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class LeakMonitor:
    """Shows a network's leakage in TensorBoard while it trains: a scalar, and a map of which output hears what.

        monitor = LeakMonitor(network, writer, receptive_field=(9, 9))
        for batch in batches:
            ...  # as ever
            monitor.step()

    *Leakage* is the share of the Jacobian's energy from inputs outside the receptive field, of a few output times, each
    by one random projection. The training's bits are the same with and without: the network is run once more in
    evaluation mode, and modes, buffers, gradients and random generators come back.

    Args:
        network: what is trained; sequences are its first positional argument.
        writer: of TensorBoard events.
        receptive_field: steps of the input that an output may hear to its left and right.
        inputs: the arguments that it is measured on; by default the first sample of the latest training batch.
        every: training steps between measurements.
        time_dim: the time axis of the first argument and of the output.
        times: N, output times measured.
        tag: of scalar and map in TensorBoard.
        first: training steps that were done before.

    Attributes:
        seconds: spent on measurements so far.
    """

    def __init__(
        self,
        network: nn.Module,
        writer: Any,
        *,
        receptive_field: tuple[int, int],
        inputs: Sequence[Any] | None = None,
        every: int = 500,
        time_dim: int = -1,
        times: int = 16,
        tag: str = "leakage",
        first: int = 0,
    ):
        self.network, self.writer, self.receptive_field, self.every = network, writer, receptive_field, every
        self.time_dim, self.times, self.tag, self.seconds = time_dim, times, tag, 0.0
        self._given: tuple[tuple, dict[str, Any]] | None = None if inputs is None else (tuple(inputs), {})
        self._step = first
        self._hook = network.register_forward_pre_hook(self._keep, with_kwargs=True) if inputs is None else None

    def _keep(self, network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Keeps the first sample of what the network is given before a step that will be measured."""
        if (self._step + 1) % self.every or not network.training:
            return
        batch = len(args[0])

        def first(value: Any) -> Any:
            has_samples = isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
            return value[:1].detach().clone() if has_samples else value

        self._given = tree_map(first, args), tree_map(first, kwargs)

    def step(self) -> None:
        """To be called after every training step; measures when it is time."""
        self._step += 1
        if self._step % self.every or self._given is None:
            return
        began = time.perf_counter()
        leakage, energy_NS, outside_NS = self.measure()
        if leakage is not None:
            self.writer.add_scalar(f"{self.tag}/beyond_receptive_field", leakage, self._step)
        self.writer.add_image(f"{self.tag}/map", heat_map(energy_NS, outside_NS), self._step, dataformats="HWC")
        self.seconds += time.perf_counter() - began

    def measure(self) -> tuple[float | None, np.ndarray, np.ndarray]:
        """The leakage now, the energies (N, S) that it comes from, and which of them lie outside the receptive field.

        The leakage is ``None`` where the input is too short for anything to lie outside, or nothing depends on it.
        """
        assert self._given is not None, "the network was not run yet"
        args, kwargs = self._given
        generator = torch.Generator().manual_seed(0)
        with aside(self.network):
            sequence = args[0].detach().requires_grad_()
            output = self.network(sequence, *args[1:], **kwargs)
            while not isinstance(output, Tensor):  # the first of several, or the only field of an output object
                output = output[0]
            dim, length = self.time_dim, output.shape[self.time_dim]
            at_N = np.unique(np.linspace(0, length - 1, self.times).round().astype(int))
            rows = []
            for t in at_N:
                part = output.select(dim, int(t))
                signs = (2 * torch.randint(0, 2, part.shape, generator=generator) - 1).to(part)
                (gradient,) = torch.autograd.grad(part, sequence, signs, retain_graph=True)
                rows.append(gradient.movedim(dim, 0).flatten(1).double().square().sum(1).cpu().numpy())
        energy_NS = np.array(rows)
        steps = energy_NS.shape[1]
        offsets_NS = np.arange(steps) - (at_N * (steps / length)).astype(int)[:, None]
        left, right = self.receptive_field
        outside_NS = (offsets_NS < -left) | (offsets_NS > right)
        whole = energy_NS.sum()
        leakage = float(energy_NS[outside_NS].sum() / whole) if outside_NS.any() and whole > 0 else None
        return leakage, energy_NS, outside_NS

    def close(self) -> None:
        """Takes its hook off the network."""
        if self._hook is not None:
            self._hook.remove()


def heat_map(energy_NS: np.ndarray, outside_NS: np.ndarray) -> np.ndarray:
    """(H, S, 3) energies as colors, eight decades from the largest down; the receptive field's ends are white."""
    energy_NS = np.nan_to_num(energy_NS)  # a network that diverged is drawn too
    top = energy_NS.max() or 1.0
    shade_NS = np.log10(np.maximum(energy_NS / top, 10.0**-DECADES)) / DECADES + 1
    image = (255 * mpl.colormaps["viridis"](shade_NS)[..., :3]).astype(np.uint8)
    image[:, 1:][outside_NS[:, 1:] != outside_NS[:, :-1]] = 255
    return image.repeat(-(-IMAGE_HEIGHT // len(image)), 0)
