"""What bounds a training step: its arithmetic and the bytes it moves, and the rates of this machine for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from planner.training.trainer import Trainer, seed_of

MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
"""Larger than any cache."""


def seconds(work: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds per call of ``work``, over ``steps`` calls."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def step_flop(trainer: Trainer) -> float:
    """Floating point operations of the convolutions and products of a training step, forward and backward."""
    batch = trainer.draw(trainer.data.training, trainer.config.batch_size, seed_of(trainer.config.seed, 0))
    with FlopCounterMode(display=False) as counter:
        trainer.loss(trainer.network, batch).backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


class ByteCounter(TorchDispatchMode):
    """Counts what operations read and write, each of them on its own; views move nothing.

    Attributes:
        count: bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts the tensors that go in and come out."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.count += sum(each.numel() * each.element_size() for each in _tensors((args, kwargs, result)))
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            yield from _tensors(entry)


def step_bytes(trainer: Trainer) -> float:
    """Bytes that the operations of one training step read and write, optimizer and moving average included."""
    with ByteCounter() as counter:
        trainer.loss(trainer.network, trainer.batch()).backward()
        trainer.apply_gradients()
    return float(counter.count)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating point operations per second of a large square matrix product."""
    size = MATRIX_SIZE[device.type]
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    one, other = (torch.ones(size, size, device=device, dtype=kind) for _ in range(2))
    seconds(lambda: one @ other, 2, device)
    return 2 * size**3 / seconds(lambda: one @ other, 5, device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second that a large copy reads and writes."""
    count = COPIED_BYTES[device.type]
    source, target = (torch.ones(count, dtype=torch.uint8, device=device) for _ in range(2))
    seconds(lambda: target.copy_(source), 1, device)
    return 2 * count / seconds(lambda: target.copy_(source), 3, device)
