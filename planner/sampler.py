"""Plans from noise: the sampling loop and its inpainting.

The network and the sampler do not know each other: the sampler takes any denoiser of (B, D, T).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from groundwork.errors import UserError
from planner.config import DiffusionConfig
from planner.sampling import SamplerKind, find_sampler


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


@dataclass(frozen=True)
class WarmStart:
    """Plans to begin from instead of pure noise, such as the last ones, shifted (Janner et al. 2022, section 5.4).

    Attributes:
        plans: (B, D, T) normalized.
        level: how far they are noised again, as a share of the training's noise levels, above 0 up to 1. Network
            evaluations shrink with it.
    """

    plans: Tensor
    level: float

    def __post_init__(self) -> None:
        if not 0 < self.level <= 1:
            raise UserError(f"warm level = {self.level} must be above 0 and at most 1")


@dataclass(frozen=True)
class Resampling:
    """Steps that are taken again (RePaint, Lugmayr et al. 2022, section 4.2).

    Noising a step's result back to where the step began and taking it once more leaves the distribution at that noise
    level as it is, if the network is right, and lets parts of a plan that do not see each other agree.

    Attributes:
        times: how often.
        low: the least share of the training's noise levels at which that is done.
        high: the largest.

    Raises:
        UserError: they are the other way round.
    """

    times: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise UserError(f"resample_levels = {self.low:g},{self.high:g} must be the least share and the largest")

    def at(self, share: float) -> int:
        """How often a step from this share of the noise levels is taken again."""
        return self.times if self.low <= share <= self.high else 0


@dataclass(frozen=True)
class _Noise:
    """All noise of a sampling: standard normal, times a temperature.

    Below 1 plans come from where they are most likely, at 0 they are a function of start and goal alone
    (low-temperature sampling, Ajay et al. 2023, section 4; their factor is the square of this one).
    """

    generator: torch.Generator
    temperature: float

    def like(self, plans_BDT: Tensor) -> Tensor:
        """Noise of the plans' shape, device and precision."""
        device, dtype = plans_BDT.device, plans_BDT.dtype
        noise = torch.randn(plans_BDT.shape, generator=self.generator, device=device, dtype=dtype)
        return noise if self.temperature == 1 else self.temperature * noise


class _AncestralScheduler(DDPMScheduler):
    """Diffusers' ancestral steps, whose noise can have a temperature."""

    temperature = 1.0

    def _get_variance(self, *args: Any, **named: Any) -> Tensor:
        return self.temperature**2 * super()._get_variance(*args, **named)


def sampling_levels(noisiest: int, num_steps: int) -> list[int]:
    """The noise levels to visit, noisiest first, ``noisiest`` of them spread over ``num_steps`` steps.

    This is ``trailing`` spacing: the first step starts at the noisiest level, however few they are. It is counted
    in whole numbers, since diffusers' own comes out one level too long for some numbers of steps.
    """
    return [(noisiest * left + num_steps // 2) // num_steps - 1 for left in range(num_steps, 0, -1)]


def make_scheduler(kind: SamplerKind, schedule: DDPMScheduler, levels: list[int]) -> Any:
    """A diffusers scheduler that takes predicted clean plans through ``levels`` of ``schedule``, and then to none.

    Raises:
        UserError: an unknown sampler.
    """
    scheduler = copy(_scheduler(kind, schedule.config["num_train_timesteps"], schedule.config["beta_schedule"]))
    scheduler.set_timesteps(timesteps=levels)
    return scheduler


@cache
def _scheduler(kind: SamplerKind, num_levels: int, beta_schedule: str) -> Any:
    """A scheduler to copy: diffusers takes as long to make one as a small network to denoise a plan.

    The copies share its noise levels; what a step writes, ``set_timesteps`` makes anew.
    """
    sampler = find_sampler(kind)
    levels = {"num_train_timesteps": num_levels, "beta_schedule": beta_schedule}
    make = _AncestralScheduler if sampler.scheduler == "DDPMScheduler" else getattr(diffusers, sampler.scheduler)
    return make(**levels, prediction_type="sample", **sampler.options)


def predicted_clean(schedule: DDPMScheduler, prediction: Tensor, noisy: Tensor, level: int) -> Tensor:
    """The clean plans that the network's prediction means, clipped to the data's range [−1, 1]."""
    if schedule.config["prediction_type"] == "epsilon":
        kept = schedule.alphas_cumprod[level].item()
        prediction = (noisy - (1 - kept) ** 0.5 * prediction) / kept**0.5
    return prediction.clamp(-1, 1)


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    schedule: DDPMScheduler,
    conditions: Conditions,
    *,
    kind: SamplerKind = "ddpm",
    num_steps: int,
    generator: torch.Generator,
    warm: WarmStart | None = None,
    resampling: Resampling | None = None,
    temperature: float = 1.0,
    guide: Callable[[Tensor, float], Tensor] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Samples plans that meet their conditions exactly.

    Args:
        denoise: noisy (B, D, T) and levels (B,) → the prediction that ``schedule`` names.
        schedule: the noise levels of the training.
        conditions: what is known of each plan.
        kind: which of :data:`planner.sampling.SAMPLERS`.
        num_steps: evaluations of the network, 1 to the schedule's number of levels.
        generator: of the plans' device; all randomness comes from it.
        warm: plans to begin from; without it, pure noise.
        resampling: which steps are taken again, beyond ``num_steps``.
        temperature: the standard deviation of all noise that is drawn.
        guide: moves the clean plans that each step predicts, normalized (B, D, T), to better ones
            (:func:`planner.guidance.descend`), given the standard deviation of the noise, from 1 (nothing else) to 0.
        on_step: called with the number of steps done and the plans, after inpainting.

    Returns:
        (B, D, T) normalized plans.

    Raises:
        UserError: an unknown sampler, one whose steps cannot be taken again, or ``num_steps`` out of range.
    """
    check_resampling(kind, resampling)
    num_levels = schedule.config["num_train_timesteps"]
    if not 1 <= num_steps <= num_levels:
        raise UserError(f"sampling steps = {num_steps} must be from 1 to the {num_levels} levels of the training")
    share = warm.level if warm else 1.0
    levels = sampling_levels(max(1, round(share * num_levels)), max(1, round(share * num_steps)))
    scheduler, noise = make_scheduler(kind, schedule, levels), _Noise(generator, temperature)
    drawn = noise.like(conditions.values)
    plans = conditions.write(noised(warm.plans, schedule.alphas_cumprod[levels[0]].item(), drawn) if warm else drawn)
    for done, level in enumerate(levels, start=1):
        last = done == len(levels)
        for left in range(resampling.at((level + 1) / num_levels) if resampling and not last else 0, -1, -1):
            prediction = denoise(plans, torch.full((len(plans),), level, device=plans.device))
            clean = predicted_clean(schedule, prediction, plans, level)
            if guide is not None:
                spread = (1 - schedule.alphas_cumprod[level].item()) ** 0.5
                clean = conditions.write(guide(conditions.write(clean), spread).clamp(-1, 1))
            # All samplers end with the clean plans of the last evaluation; no scheduler need be asked for that.
            plans = clean if last else _stepped(scheduler, clean, level, plans, noise)
            plans = noised_back(schedule, plans, levels[done], level, noise) if left else plans
            plans = conditions.write(plans)
        if on_step:
            on_step(done, plans)
    return plans


def settings_of(how: DiffusionConfig) -> dict[str, Any]:
    """What a run's settings, or these with a command's over them, are as arguments of :func:`sample`."""
    return {
        "kind": how.sampler,
        "num_steps": how.sampling_steps,
        "resampling": Resampling(how.resample, *how.resample_levels) if how.resample else None,
        "temperature": how.temperature,
    }


def check_resampling(kind: SamplerKind, resampling: Resampling | None) -> None:
    """Refuses to take steps again that depend on the ones before.

    Raises:
        UserError: also for an unknown sampler.
    """
    if find_sampler(kind).remembers and resampling:
        raise UserError(f"sampler = {kind} remembers its last steps, none can be taken again; resample needs ddpm")


def _stepped(scheduler: Any, clean_BDT: Tensor, level: int, plans_BDT: Tensor, noise: _Noise) -> Tensor:
    """Plans of the scheduler's next level, made of clean ones and those of ``level``."""
    drawn: dict[str, Any] = {"generator": noise.generator}
    if isinstance(scheduler, _AncestralScheduler):
        scheduler.temperature = noise.temperature
    elif noise.temperature != 1 and scheduler.config["algorithm_type"].startswith("sde"):
        drawn["variance_noise"] = noise.like(plans_BDT)
    return scheduler.step(clean_BDT, level, plans_BDT, **drawn).prev_sample


def noised_back(schedule: DDPMScheduler, plans_BDT: Tensor, cleaner: int, noisier: int, noise: _Noise) -> Tensor:
    """Plans of the noise level ``cleaner`` as the forward process takes them on to ``noisier``."""
    kept = (schedule.alphas_cumprod[noisier] / schedule.alphas_cumprod[cleaner]).item()
    return noised(plans_BDT, kept, noise.like(plans_BDT))


def noised(plans_BDT: Tensor, kept: float, noise_BDT: Tensor) -> Tensor:
    """Plans of which a share ``kept`` of the variance stays, and noise for the rest."""
    return kept**0.5 * plans_BDT + (1 - kept) ** 0.5 * noise_BDT
