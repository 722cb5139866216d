"""What a training or a plan costs in a plain script: diffusers' U-Net and scheduler in an eager loop."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, UNet1DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from planner.data import Windows
from planner.diffusion import Prediction, make_schedule


class PlainLoop:
    """The loops that one writes with ``diffusers.UNet1DModel`` and ``DDPMScheduler``; data lie on the device as ours.

    Args:
        network: the U-Net.
        train_steps: noise levels.
        prediction: what the network predicts.
        learning_rate: of Adam.
        gradient_clip: largest gradient norm.
    """

    def __init__(
        self,
        network: UNet1DModel,
        train_steps: int,
        prediction: Prediction,
        learning_rate: float = 1e-3,
        gradient_clip: float = 1.0,
    ):
        self.network = network
        self.schedule: DDPMScheduler = make_schedule(train_steps, prediction)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.ema = EMAModel(network.parameters(), decay=0.995)
        self.gradient_clip = gradient_clip

    def train_step(self, windows: Windows, batch_size: int, known_DT: Tensor) -> None:
        """One optimizer step on random windows, with the known entries clean in input and output."""
        device = known_DT.device
        clean = windows.gather(torch.randint(len(windows), (batch_size,), device=device))
        levels = torch.randint(self.schedule.config["num_train_timesteps"], (batch_size,), device=device)
        noise = torch.randn_like(clean)
        noisy = torch.where(known_DT, clean, self.schedule.add_noise(clean, noise, levels))
        target = clean if self.schedule.config["prediction_type"] == "sample" else noise
        prediction = self.network(noisy, levels).sample
        loss = nn.functional.mse_loss(torch.where(known_DT, target, prediction), target)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.ema.step(self.network.parameters())

    @torch.no_grad()
    def plan(self, known_DT: Tensor, values_BDT: Tensor) -> Tensor:
        """Plans (B, D, T) by as many ancestral steps as there are levels, the known entries written after each."""
        self.schedule.set_timesteps(self.schedule.config["num_train_timesteps"])
        plans = torch.where(known_DT, values_BDT, torch.randn_like(values_BDT))
        for level in self.schedule.timesteps:
            prediction = self.network(plans, level).sample
            plans = torch.where(known_DT, values_BDT, self.schedule.step(prediction, level, plans).prev_sample)
        return plans
