"""Plans from noise: the sampling loop and its inpainting.

The network and the sampler do not know each other: the sampler takes any denoiser of (B, D, T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from envs.command_line import UserError

SamplerKind = Literal["ddpm", "ddim"]


@dataclass(frozen=True)
class Conditions:
    """Entries of a plan that are known: written in before the first and after every step.

    Attributes:
        known: (D, T) or (B, D, T) boolean.
        values: (B, D, T) normalized; only the known entries are read.
    """

    known: Tensor
    values: Tensor

    def write(self, plans_BDT: Tensor) -> Tensor:
        """The plans with the known entries in their place."""
        return torch.where(self.known, self.values, plans_BDT)


def make_scheduler(kind: SamplerKind, schedule: DDPMScheduler) -> DDPMScheduler | DDIMScheduler:
    """A diffusers scheduler with the noise levels of ``schedule``."""
    match kind:
        case "ddpm":
            return DDPMScheduler.from_config(schedule.config)
        case "ddim":
            return DDIMScheduler.from_config(schedule.config)


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: DDPMScheduler,
    conditions: Conditions,
    *,
    kind: SamplerKind = "ddpm",
    num_steps: int,
    generator: torch.Generator,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Samples plans that meet their conditions exactly.

    Args:
        denoise: maps noisy (B, D, T) and levels (B,) to the prediction that ``schedule`` names.
        schedule: the noise levels of the training.
        conditions: what is known of each plan.
        kind: ancestral (``ddpm``) or deterministic (``ddim``) steps.
        num_steps: network evaluations, 1 to the schedule's number of levels.
        generator: of the plans' device; all randomness comes from it.
        on_step: called with the number of steps done and the plans, after inpainting.

    Returns:
        (B, D, T) normalized plans.

    Raises:
        UserError: ``num_steps`` out of range.
    """
    levels = schedule.config["num_train_timesteps"]
    if not 1 <= num_steps <= levels:
        raise UserError(f"sampling steps = {num_steps} must be from 1 to the {levels} levels of the training")
    scheduler = make_scheduler(kind, schedule)
    values = conditions.values
    scheduler.set_timesteps(num_steps, device=values.device)
    plans = torch.randn(values.shape, generator=generator, device=values.device, dtype=values.dtype)
    plans = conditions.write(plans)
    for done, level in enumerate(scheduler.timesteps, start=1):
        prediction = denoise(plans, level.expand(len(plans)))
        plans = scheduler.step(prediction, level, plans, generator=generator).prev_sample
        plans = conditions.write(plans)
        if on_step is not None:
            on_step(done, plans)
    return plans
