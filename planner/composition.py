"""Long plans composed of chunks that are drawn side by side, each told of its neighbours (CompDiffuser).

After *Generative Trajectory Stitching through Diffusion Composition* (Luo et al. 2025, arXiv 2503.05153), section 4: a
chunk is as long as a training window. At an end that is not given, its network sees what the neighbouring chunk has at
the same points, as noisy as the chunk itself. All chunks are denoised at once (the paper's parallel scheme), and at
last the plan goes over from each to the next. Not taken over: the encoder of what neighbours have, which are input
channels here, and classifier-free guidance.

Shapes: B plans, K chunks of each, D transition dimensions, L points of a plan, T of a chunk, O of an overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from einops import rearrange
from torch import Tensor

from groundwork.errors import UserError
from planner.config import Config


def require_one_piece(config: Config, points: int, what: str) -> None:
    """Refuses what is about one evaluation of a whole plan, where none sees it.

    Raises:
        UserError: plans of so many points are composed of chunks.
    """
    if config.model.overlap and points > config.data.horizon:
        raise UserError(
            f"{what} needs an evaluation of a whole plan, but this run composes plans of over {config.data.horizon} "
            f"points of chunks (model.overlap = {config.model.overlap}); {points} were asked for"
        )


def beside_windows(
    schedule: DDPMScheduler, clean_BDT: Tensor, known_BDT: Tensor, levels_B: Tensor, noise_BDT: Tensor, overlap: int
) -> Tensor:
    """What neighbours have of training windows: their ends, as far as they are not known, noised by themselves.

    Args:
        schedule: from :func:`planner.diffusion.make_schedule`.
        clean_BDT: the windows.
        known_BDT: boolean, what the network is given of them.
        levels_B: noise level of each.
        noise_BDT: standard normal, another draw than the windows' own.
        overlap: points at each end.

    Returns:
        (B, 2 D, T): values, zero elsewhere, and 1 where there are any.
    """
    there_B1T = torch.zeros_like(known_BDT[:, :1])
    there_B1T[..., :overlap] = ~known_BDT[:, :1, :1]
    there_B1T[..., -overlap:] = ~known_BDT[:, :1, -1:]
    there_BDT = there_B1T.expand_as(clean_BDT)
    noisy_BDT = schedule.add_noise(clean_BDT, noise_BDT, levels_B)
    return torch.cat([torch.where(there_BDT, noisy_BDT, 0.0), there_BDT.to(clean_BDT.dtype)], 1)


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of a plan lie: as few as overlap by ``overlap`` points at least, evenly spread.

    Attributes:
        points: L, of the plan, more than ``size``.
        size: T, of a chunk.
        overlap: O, at most half of ``size``.
    """

    points: int
    size: int
    overlap: int

    @property
    def starts_K(self) -> Tensor:
        """The index of each chunk's first point."""
        count = -(-(self.points - self.overlap) // (self.size - self.overlap))
        return torch.linspace(0, self.points - self.size, count).round().long()

    def split(self, plans_BDL: Tensor) -> Tensor:
        """The chunks ((B K), D, T) of plans, or of anything with their points last."""
        at_KT = self.starts_K[:, None] + torch.arange(self.size)
        return rearrange(plans_BDL[..., at_KT.to(plans_BDL.device)], "b d k t -> (b k) d t")

    def beside(self, chunks_NDT: Tensor) -> Tensor:
        """What its neighbours have at each chunk's ends, as :func:`beside_windows` has it for training."""
        starts_K = self.starts_K.to(chunks_NDT.device)
        chunks_BKDT = rearrange(chunks_NDT, "(b k) d t -> b k d t", k=len(starts_K))
        values, there = torch.zeros_like(chunks_BKDT), torch.zeros_like(chunks_BKDT)
        ends = torch.arange(self.overlap, device=starts_K.device)
        further = starts_K.diff()[:, None]  # from a chunk's first point to the next one's

        def taken(of_BKDT: Tensor, at_KO: Tensor) -> Tensor:
            return of_BKDT.gather(-1, at_KO[None, :, None].expand(*of_BKDT.shape[:1], -1, of_BKDT.shape[2], -1))

        values[:, 1:, :, : self.overlap] = taken(chunks_BKDT[:, :-1], further + ends)
        values[:, :-1, :, -self.overlap :] = taken(chunks_BKDT[:, 1:], self.size - self.overlap + ends - further)
        there[:, 1:, :, : self.overlap] = there[:, :-1, :, -self.overlap :] = 1
        return rearrange(torch.cat([values, there], 2), "b k d t -> (b k) d t")

    def merged(self, chunks_NDT: Tensor) -> Tensor:
        """Plans (B, D, L), which go over to each chunk within its first ``overlap`` points, and then follow it.

        The two have agreed there, the later one having been told of the earlier one; further on they need not.
        """
        chunks_KBDT = rearrange(chunks_NDT, "(b k) d t -> k b d t", k=len(self.starts_K))
        weights_T = (torch.arange(1, self.size + 1) / (self.overlap + 1)).clamp(max=1).to(chunks_NDT)
        plans_BDL = chunks_NDT.new_zeros(*chunks_KBDT.shape[1:3], self.points)
        plans_BDL[..., : self.size] = chunks_KBDT[0]
        for start, chunk_BDT in zip(self.starts_K[1:].tolist(), chunks_KBDT[1:], strict=True):
            plans_BDL[..., start : start + self.size].lerp_(chunk_BDT, weights_T)
        return plans_BDL

    def steered(self, steer: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
        """What moves whole clean plans, as a function on chunks."""
        return lambda clean_NDT, noise: self.split(steer(self.merged(clean_NDT), noise))

    def told(self, network: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """A denoiser of chunks ((B K), D, T) that tells the network of neighbours."""
        return lambda chunks_NDT, levels_N: network(chunks_NDT, levels_N, beside=self.beside(chunks_NDT))
