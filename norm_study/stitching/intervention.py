"""Exchange what lies outside the receptive field and see whether the output moves.

After one network evaluation the output at one time must not depend on inputs beyond the receptive field; after k
denoising steps information has had k receptive fields to travel, with any norm.

Shapes: B plans, D transition dimensions, T planned points, L lengths, C contexts around one local problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundwork.errors import UserError
from planner.composition import require_one_piece
from planner.data import Windows, load_data
from planner.diffusion import make_schedule
from planner.plan import Planner
from planner.sampler import make_scheduler, predicted_clean, sampling_levels

LEAST_LENGTH = 4
"""The horizon, or a pack of it, is at least so many times the reach to one side."""


@dataclass(frozen=True)
class InterventionSettings:
    """What is exchanged and when the output is read.

    Attributes:
        samples: plans whose surroundings are exchanged.
        levels: noise levels of the single evaluation, as shares of the training's.
        denoising_steps: DDIM steps of a whole sampling run, at most the training's levels.
        after: numbers of those steps after which the output is read.
        lengths: multiples of the shortest horizon that is used, for the same local problem.
        contexts: surroundings per length and local problem.
        seed: of plans and noise.
    """

    samples: int = 64
    levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    denoising_steps: int = 16
    after: tuple[int, ...] = (1, 2, 4, 8, 16)
    lengths: tuple[int, ...] = (1, 2, 4)
    contexts: int = 4
    seed: int = 0


def intervention_rows(run: str | Path, settings: InterventionSettings, device: str = "auto") -> list[dict[str, Any]]:
    """Movement of a trained planner's output when only inputs outside its receptive field are exchanged.

    Args:
        run: a finished run folder whose dataset is at hand.
        settings: what is exchanged.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        Rows with ``kind`` and ``movement``, in units of the output's own standard deviation over plans:
        ``evaluation`` (one evaluation at ``level``), ``denoising`` (after ``steps`` DDIM steps) and ``length``
        (spread of the output over lengths and contexts of one local problem, at ``level``).

    Raises:
        UserError: no such run, or its dataset is gone.
    """
    planner = Planner.from_run(run, device=device)
    windows = load_data(planner.config.data, planner.device).training
    problem = _Problem(planner, windows, settings)
    rows = [
        {"kind": "evaluation", "level": level, "movement": problem.after_one_evaluation(level)}
        for level in settings.levels
    ]
    rows += [
        {"kind": "denoising", "steps": steps, "movement": movement}
        for steps, movement in problem.after_denoising().items()
    ]
    rows += [{"kind": "length", "level": level, "movement": problem.over_lengths(level)} for level in settings.levels]
    left, right = planner.network.receptive_field()
    about = {
        "run": Path(run).name,
        "norm": planner.config.model.norm,
        "run_seed": planner.config.seed,
        "reach": [left, right],
        "horizon": problem.horizon,
    }
    return [about | row for row in rows]


class _Problem:
    """A trained planner at a horizon (per pack) of at least four times its reach, read in the middle of a pack."""

    def __init__(self, planner: Planner, windows: Windows, settings: InterventionSettings):
        model = planner.config.model
        self.planner, self.windows, self.settings = planner, windows, settings
        diffusion = planner.config.diffusion
        self.network = planner.network
        self.schedule = make_schedule(diffusion.train_steps, diffusion.prediction)
        self.left, self.right = self.network.receptive_field()
        self.unit = 2 ** (len(model.dim_mults) - 1) * model.num_packs
        least = LEAST_LENGTH * max(self.left, self.right) * model.num_packs
        self.horizon = self.unit * -(-least // self.unit)
        require_one_piece(planner.config, self.horizon, "the intervention")
        self.generator = torch.Generator(planner.device).manual_seed(settings.seed)

    def centre(self, horizon: int) -> int:
        """Where the output is read; a multiple of the total stride, so that all lengths read the same phase."""
        stride = self.unit // self.planner.config.model.num_packs
        pack = horizon // self.planner.config.model.num_packs
        return stride * (pack // 2 // stride)

    def clean(self, count: int, horizon: int) -> Tensor:
        """Trajectories (B, D, T) made of training windows laid end to end."""
        per_plan = -(-horizon // len(self.windows.offsets_T))
        which = torch.randint(
            len(self.windows), (count * per_plan,), generator=self.generator, device=self.planner.device
        )
        pieces = self.windows.gather(which).unflatten(0, (count, per_plan))
        return torch.cat(list(pieces.unbind(1)), dim=-1)[..., :horizon]

    def noised(self, clean_BDT: Tensor, level: int) -> Tensor:
        """The trajectories at one noise level, with fresh noise."""
        noise = torch.randn(clean_BDT.shape, generator=self.generator, device=clean_BDT.device)
        return self.schedule.add_noise(clean_BDT, noise, torch.full((len(clean_BDT),), level, device=clean_BDT.device))

    def level(self, share: float) -> int:
        """A noise level from its share of the training's."""
        levels = int(self.schedule.config["num_train_timesteps"])
        if not 0 <= share <= 1:
            raise UserError(f"level = {share} must be from 0 to 1")
        return round(share * (levels - 1))

    def exchanged(self, inner_BDT: Tensor, outer_BDT: Tensor) -> Tensor:
        """``outer`` with ``inner`` inside the receptive field of the centre."""
        centre = self.centre(inner_BDT.shape[-1])
        mixed = outer_BDT.clone()
        inside = slice(centre - self.left, centre + self.right + 1)
        mixed[..., inside] = inner_BDT[..., inside]
        return mixed

    def evaluate(self, plans_BDT: Tensor, level: int) -> Tensor:
        """One network evaluation, read at the centre, (B, D)."""
        levels = torch.full((len(plans_BDT),), level, device=plans_BDT.device)
        return self.network(plans_BDT, levels)[..., self.centre(plans_BDT.shape[-1])]

    def predict_clean(self, plans_BDT: Tensor, level: int) -> Tensor:
        """The clean plans that one network evaluation predicts, (B, D, T)."""
        prediction = self.network(plans_BDT, torch.full((len(plans_BDT),), level, device=plans_BDT.device))
        return predicted_clean(self.schedule, prediction, plans_BDT, level)

    @torch.no_grad()
    def after_one_evaluation(self, share: float) -> float:
        """Movement of the output at the centre."""
        level = self.level(share)
        one, other = (self.noised(self.clean(self.settings.samples, self.horizon), level) for _ in range(2))
        before = self.evaluate(one, level)
        return _movement(before, self.evaluate(self.exchanged(one, other), level))

    @torch.no_grad()
    def after_denoising(self) -> dict[int, float]:
        """Movement at the centre after so many DDIM steps from pure noise; the exchange happens once, at the start."""
        shape = (self.settings.samples, self.planner.statistics.layout.transition_dim, self.horizon)
        one, other = (torch.randn(shape, generator=self.generator, device=self.planner.device) for _ in range(2))
        begun = [one, self.exchanged(one, other)]
        num_levels = int(self.schedule.config["num_train_timesteps"])
        levels = sampling_levels(num_levels, min(self.settings.denoising_steps, num_levels))
        schedulers = [make_scheduler("ddim", self.schedule, levels) for _ in begun]
        moved = {}
        for done, level in enumerate(levels, start=1):
            begun = [
                scheduler.step(self.predict_clean(plans, level), level, plans).prev_sample
                for plans, scheduler in zip(begun, schedulers, strict=True)
            ]
            if done in self.settings.after:
                first, second = (plans[..., self.centre(self.horizon)] for plans in begun)
                moved[done] = _movement(first, second)
        return moved

    @torch.no_grad()
    def over_lengths(self, share: float) -> float:
        """Spread of the output over lengths and contexts, the same problem inside the receptive field.

        The spread over contexts is taken about the mean of all lengths and contexts of a problem.
        """
        level, samples = self.level(share), self.settings.samples
        inner = self.noised(self.clean(samples, self.horizon), level)
        reach = slice(self.centre(self.horizon) - self.left, self.centre(self.horizon) + self.right + 1)
        outputs = []
        for multiple in self.settings.lengths:
            horizon = multiple * self.horizon
            centre = self.centre(horizon)
            for _ in range(self.settings.contexts):
                around = self.noised(self.clean(samples, horizon), level)
                around[..., centre - self.left : centre + self.right + 1] = inner[..., reach]
                outputs.append(self.evaluate(around, level))
        outputs_CBD = torch.stack(outputs).double()
        mean_BD = outputs_CBD.mean(0)
        within = (outputs_CBD - mean_BD).square().mean((0, 1))
        between = mean_BD.var(0)
        return float((within / (within + between)).mean().sqrt())


def _movement(before_BD: Tensor, after_BD: Tensor) -> float:
    """Root mean square of the difference over that of the output's spread over plans, per dimension, averaged."""
    before_BD, after_BD = before_BD.double(), after_BD.double()
    return float(((after_BD - before_BD).square().mean(0) / before_BD.var(0)).mean().sqrt())
