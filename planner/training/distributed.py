"""One training on several devices: each process draws the whole batch and computes its share of it.

``torchrun --nproc-per-node N -m planner train …`` starts N such processes, ranks 0 … N - 1; so does a job of a Slurm
cluster with several tasks. All hold the same weights: gradients are averaged over the ranks before each step. The batch
stays what it is with one process, and so do windows, levels and noise; sums over it are taken in another order, so that
weights agree up to rounding. Rank 0 alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from groundwork.errors import UserError
from planner.config import Config
from planner.norms import norm_facts

PATIENCE = timedelta(hours=2)
"""So long the other ranks wait for rank 0, which alone evaluates."""


@dataclass(frozen=True)
class Ranks:
    """The processes of one training.

    Attributes:
        rank: this process's number.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def check(self, config: Config) -> None:
        """What several processes can train.

        Raises:
            UserError: a batch that they cannot share, or a norm that takes its statistics over the batch.
        """
        if config.batch_size % self.count:
            raise UserError(f"batch_size = {config.batch_size} cannot be shared by {self.count} processes")
        if self.count > 1 and "batch" in norm_facts(config.model.norm).over:
            raise UserError(
                f"model.norm = {config.model.norm} takes statistics over the whole batch, of which each of "
                f"{self.count} processes sees a share: train it with one"
            )

    def share(self, values: Tensor) -> Tensor:
        """This process's rows, B / N of (B, …)."""
        return values.chunk(self.count)[self.rank]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The same network, whose gradients are the mean over the ranks."""
        return DistributedDataParallel(network, broadcast_buffers=False) if self.count > 1 else network

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks."""
        if self.count == 1:
            return values
        dist.all_reduce(values)
        return values / self.count

    def first(self, act: Callable[[], None]) -> None:
        """Rank 0 acts while the others wait; they end without a word if it fails, which it says itself.

        Raises:
            UserError: whatever ``act`` raises, in rank 0.
        """
        failed = [True]
        try:
            if self.writes:
                act()
                failed = [False]
        finally:
            if self.count > 1:
                dist.broadcast_object_list(failed)
        if failed[0]:
            raise SystemExit(2)


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun or a job of the cluster started, or this one alone; on GPUs each takes its own.

    Within it, it may be entered again.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and "WORLD_SIZE" not in os.environ:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
