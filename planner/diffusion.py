"""The noise schedule and the training loss.

Shapes: B batch, D transition dimensions, T planned points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor

Prediction = Literal["sample", "noise"]
LEAST_WEIGHT = 0.05
"""Of the noisiest levels, whose signal-to-noise ratio goes to zero: without it they would hardly be trained."""


def make_schedule(train_steps: int, prediction: Prediction) -> DDPMScheduler:
    """The cosine schedule of Nichol & Dhariwal (2021), which Janner et al. use, as a diffusers scheduler.

    Data live in [−1, 1], so predicted samples are clipped to it. Spacing is ``trailing``: with few sampling
    steps the first one still starts at pure noise.
    """
    return DDPMScheduler(
        num_train_timesteps=train_steps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample" if prediction == "sample" else "epsilon",
        clip_sample=True,
        clip_sample_range=1.0,
        timestep_spacing="trailing",
    )


def training_loss(
    network: Callable[[Tensor, Tensor], Tensor],
    schedule: DDPMScheduler,
    clean_BDT: Tensor,
    known: Tensor,
    levels_B: Tensor,
    noise_BDT: Tensor,
    snr_cap: float = 0.0,
) -> Tensor:
    """Mean squared error of the denoiser with the known entries written into its input and its output.

    Entries that inpainting will write when plans are sampled (start, goal) are clean in the input and cost
    nothing in the output, as in Janner et al. (2022), section 3.

    Args:
        network: maps noisy (B, D, T) and levels (B,) to a prediction (B, D, T).
        schedule: from :func:`make_schedule`; its prediction type chooses the target.
        clean_BDT: normalized trajectories.
        known: boolean (D, T) or (B, D, T), true where the plan's conditions are written.
        levels_B: noise level of each trajectory.
        noise_BDT: standard normal.
        snr_cap: above 0 errors of the clean sample are weighted by their level's signal-to-noise ratio up to
            ``snr_cap`` (min-SNR, Hang et al. 2023, section 3.4), and by :data:`LEAST_WEIGHT` at least; errors of the
            noise by the ratio up to ``snr_cap`` over the ratio.

    Returns:
        The loss, a scalar.
    """
    noisy = noisy_input(schedule, clean_BDT, known, levels_B, noise_BDT)
    target = clean_BDT if schedule.config["prediction_type"] == "sample" else noise_BDT
    error = torch.where(known, 0.0, network(noisy, levels_B).to(target.dtype) - target)
    if snr_cap:
        error = error * level_weights(schedule, levels_B, snr_cap).sqrt()[:, None, None]
    return error.square().mean()


def noisy_input(
    schedule: DDPMScheduler, clean_BDT: Tensor, known: Tensor, levels_B: Tensor, noise_BDT: Tensor
) -> Tensor:
    """What a denoiser sees of clean trajectories (B, D, T) at noise levels (B,), its known entries written in.

    On a schedule of one level the others are 0, as where sampling begins without noise.
    """
    if schedule.config["num_train_timesteps"] == 1:
        noisy = torch.zeros_like(clean_BDT)
    else:  # add_noise only indexes and scales; its annotation asks for an IntTensor
        noisy = schedule.add_noise(clean_BDT, noise_BDT, levels_B)
    return torch.where(known, clean_BDT, noisy)


def level_weights(schedule: DDPMScheduler, levels_B: Tensor, snr_cap: float) -> Tensor:
    """How much the squared errors of what the network predicts count at each noise level, (B,)."""
    kept_B = schedule.alphas_cumprod.to(levels_B.device)[levels_B]
    ratio_B = kept_B / (1 - kept_B)
    if schedule.config["prediction_type"] == "sample":
        return ratio_B.clamp(min(LEAST_WEIGHT, snr_cap), snr_cap)
    return ratio_B.clamp(max=snr_cap) / ratio_B
