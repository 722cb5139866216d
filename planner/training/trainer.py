"""One training's network, moving average and optimizer, and the step that moves them.

All randomness is a function of (seed, step), so that a resumed run ends with the same bits as one never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from groundwork.errors import UserError
from planner.composition import beside_windows
from planner.config import Config
from planner.data import PlannerData, Windows
from planner.diffusion import make_schedule, noisy_input, training_loss
from planner.plan import Planner
from planner.training.distributed import ALONE, Ranks
from planner.training.leak_monitor import LeakMonitor
from planner.training.run import RunFolder
from planner.unet import TemporalUNet
from planner.weight_norms import force_unit_norms

VALIDATION_WINDOWS = 512
Denoiser = Callable[..., Tensor]
"""Noisy trajectories, levels and perhaps ``known`` → a prediction; a network, or the one of many in a stack."""


def seed_of(seed: int, step: int) -> int:
    """One seed per (run seed, step), far apart for neighbouring steps (SplitMix64's finalizer)."""
    word = (seed * 0x9E3779B97F4A7C15 + step + 1) & (2**64 - 1)
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (word ^ (word >> 31)) >> 1


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero at the last step; ``step`` counts from 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "none":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def captured(function: Any) -> Any:
    """A compiled module or function; on a GPU its kernels are captured in a graph, which is started as one."""
    return torch.compile(function, mode="reduce-overhead")


def make_network(config: Config, transition_dim: int) -> TemporalUNet:
    """The untrained network of a run; its weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, -1))
        return TemporalUNet(transition_dim, **vars(config.model))


class Trainer:
    """Network, moving average and optimizer of one run, and the step that moves them.

    Args:
        config: the run's settings.
        data: its windows.
        device: where everything lives.
        ranks: the processes that train together; each computes its share of every batch.
    """

    def __init__(self, config: Config, data: PlannerData, device: torch.device, ranks: Ranks = ALONE):
        self.config, self.data, self.device, self.ranks = config, data, device, ranks
        layout = data.statistics.layout
        self.network = make_network(config, layout.transition_dim).to(device)
        forward = ranks.wrap(self.network)
        self.forward = captured(forward) if config.compile else forward
        self.ema = AveragedModel(self.network, multi_avg_fn=self._average, use_buffers=True)
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        # Fused: on a CPU the step of a hundred small tensors is several times cheaper than one by one. What is compiled
        # cannot be, and would be compiled anew for another rate, were it a number.
        how: dict[str, Any] = {"lr": config.learning_rate, "fused": True}
        if config.compile:
            how = {"lr": torch.tensor(config.learning_rate, device=device), "capturable": device.type == "cuda"}
        self.optimizer = kind(self.network.parameters(), weight_decay=config.weight_decay, **how)
        self._move = captured(self._clip_and_step) if config.compile else self._clip_and_step
        self.schedule = make_schedule(config.diffusion.train_steps, config.diffusion.prediction)
        self.schedule.alphas_cumprod = self.schedule.alphas_cumprod.to(device)
        self.known_DT = layout.known(config.data.horizon, device)
        self.generator = torch.Generator(device)
        self.step = 0

    def _average(self, averaged: Any, current: Any, num_averaged: Tensor | int) -> None:
        """Moving average with a warm-up of its decay; integer buffers are copied."""
        count = float(num_averaged)
        decay = min(self.config.ema_decay, (1 + count) / (10 + count))
        floating = torch.is_floating_point(averaged[0])
        torch._foreach_lerp_(averaged, current, 1 - decay) if floating else torch._foreach_copy_(averaged, current)

    def draw(self, windows: Windows, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Trajectories (B, D, T), noise levels (B,) and noise (B, D, T), as a function of ``seed``."""
        self.generator.manual_seed(seed)
        which = torch.randint(len(windows), (count,), generator=self.generator, device=self.device)
        levels = torch.randint(
            self.config.diffusion.train_steps, (count,), generator=self.generator, device=self.device
        )
        clean = windows.gather(which)
        noise = torch.randn(clean.shape, generator=self.generator, device=self.device)
        return clean, levels, noise

    def loss(self, network: Denoiser, batch: tuple[Tensor, ...]) -> Tensor:
        """The training loss of a batch from :meth:`draw`, or from :meth:`batch`."""
        clean, levels, noise, *drawn = batch
        known = drawn[0] if drawn else self.known_DT
        if self.config.model.tell_known:
            network = partial(network, known=known)
        if self.config.model.overlap and drawn:
            overlap = self.config.model.overlap
            network = partial(network, beside=beside_windows(self.schedule, clean, known, levels, drawn[1], overlap))
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            return training_loss(network, self.schedule, clean, known, levels, noise, self.config.diffusion.snr_cap)

    def batch(self) -> tuple[Tensor, ...]:
        """This rank's share of the next step's trajectories, noise levels and noise.

        Behind them stands what is known of each trajectory, (B, D, T), where training leaves ends unknown, and the
        noise (B, D, T) of neighbouring chunks, where there are any.
        """
        seed = seed_of(self.config.seed, self.step)
        drawn: tuple[Tensor, ...] = self.draw(self.data.training, self.config.batch_size, seed)
        if self.config.diffusion.drop_ends:
            drawn = (*drawn, self.known_ends(self.config.batch_size))
        if self.config.model.overlap:
            drawn = (*drawn, torch.randn(drawn[0].shape, generator=self.generator, device=self.device))
        return tuple(map(self.ranks.share, drawn))

    def known_ends(self, count: int) -> Tensor:
        """(count, D, T) boolean, what is known of each trajectory: each end of it, drawn behind :meth:`draw`."""
        kept_B2 = torch.rand(count, 2, generator=self.generator, device=self.device) >= self.config.diffusion.drop_ends
        known_BDT = self.known_DT.repeat(count, 1, 1)
        known_BDT[..., 0] &= kept_B2[:, :1]
        known_BDT[..., -1] &= kept_B2[:, 1:]
        return known_BDT

    def update(self) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns loss, of this rank's share, and gradient norm (before clipping) on the device."""
        loss = self.loss(self.forward, self.batch())
        loss.backward()
        gradient_norm = self.apply_gradients()
        return loss.detach(), gradient_norm

    def apply_gradients(self) -> Tensor:
        """Clips, steps the optimizer and the moving average; returns the gradient norm."""
        for group in self.optimizer.param_groups:
            rate, own = learning_rate(self.config, self.step), group["lr"]
            group["lr"] = own.fill_(rate) if isinstance(own, Tensor) else rate
        norm = self._move()
        if self.config.model.weights == "magnitude_preserving":
            force_unit_norms(self.network)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.network)
        self.step += 1
        return norm

    def _clip_and_step(self) -> Tensor:
        clip = self.config.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip, foreach=True)
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """Loss of the moving average on held-out windows, always the same; ``None`` without any."""
        if not len(self.data.validation):
            return None
        self.ema.eval()
        return self.loss(self.ema, self.draw(self.data.validation, VALIDATION_WINDOWS, seed_of(0, -2))).item()

    def planner(self) -> Planner:
        """A planner on a copy of the moving average as it is now."""
        network = make_network(self.config, self.data.statistics.layout.transition_dim).to(self.device)
        network.load_state_dict(self.ema.module.state_dict())
        return Planner(network, self.config, self.data.statistics)

    def begin_with(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Starts network and moving average from another run's weights; its norms may be others, conditioned or not.

        Raises:
            UserError: a tensor outside the norms is missing, unknown or of another shape.
        """
        own = self.network.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        for name in [*weights, *own]:
            if name not in fitting and ".norm" not in name:
                raise UserError(f"init_from = {source}: tensor {name} is missing, unknown or of another shape")
        for network in (self.network, self.ema.module):
            network.load_state_dict({**own, **fitting})

    def leak_monitor(self, writer: Any, every: int) -> LeakMonitor:
        """A monitor of the network's leakage on one noised training window, put end to end until it is long enough."""
        clean, _, noise = self.draw(self.data.training, 1, seed_of(self.config.seed, -3))
        left, right = self.network.receptive_field()
        level = torch.full((1,), self.config.diffusion.train_steps // 4, device=self.device)
        noisy = noisy_input(self.schedule, clean, self.known_DT, level, noise)
        times = -(-(left + right + 2) // noisy.shape[-1])
        sequence = torch.cat([noisy.flip(-1) if i % 2 else noisy for i in range(times)], -1)
        return LeakMonitor(
            self.network,
            writer,
            receptive_field=(left, right),
            inputs=(sequence, level),
            every=every,
            first=self.step,
        )

    # checkpoints

    def save(self, folder: RunFolder) -> None:
        """Writes a checkpoint."""
        state = self.optimizer.state_dict()["state"]
        tensors = {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}
        ema = cast(TemporalUNet, self.ema.module)
        folder.save_checkpoint(self.step, self.network, ema, tensors, self.config.keep_checkpoints)

    def restore(self, folder: RunFolder) -> None:
        """Continues from the last checkpoint of a run.

        Raises:
            UserError: the checkpoint is damaged or does not fit the config.
        """
        self.network.load_state_dict(folder.load_network("model").state_dict())
        self.ema.module.load_state_dict(folder.load_network("ema").state_dict())
        self.step, state = folder.load_optimizer(list(self.network.parameters()))
        self.ema.n_averaged.fill_(self.step)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
