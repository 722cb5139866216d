"""What a pooling norm's statistics do while a plan is sampled: freeze, window, exchange and decode them.

Nothing is trained. A rule takes the place of what each GroupNorm would compute, and the plans tell what that changes.

Shapes: B plans, D transition dimensions, T time steps of a layer, C channels, G groups, C/G channels of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from groundwork.errors import UserError
from planner.data import Windows
from planner.diffusion import make_schedule
from planner.plan import Planner

Moments = tuple[Tensor, Tensor]
"""Means and mean squares of a layer's groups, (B, G, T) or, where all time steps share them, (B, G, 1)."""

Rule = Callable[[str, Tensor], Moments]
"""From a layer's name and its grouped input (B, G, C/G, T) to the moments that it is normalized by."""


def own_moments(name: str, x_BGCT: Tensor) -> Moments:
    """The moments that GroupNorm takes itself: over the channels of a group and all time steps."""
    return (
        reduce(x_BGCT, "b g c t -> b g 1", "mean"),
        reduce(x_BGCT.square(), "b g c t -> b g 1", "mean"),
    )


def windowed_moments(share: float) -> Rule:
    """A rule by which each time step hears of a window of the training's length and not of the whole plan.

    The window is centered on the time step, and moved inside the plan at its ends. At the training horizon it is the
    whole plan, and the rule is GroupNorm's own.

    Args:
        share: training horizon over the plan's.
    """

    def rule(name: str, x_BGCT: Tensor) -> Moments:
        steps = x_BGCT.shape[-1]
        window = min(steps, max(1, round(share * steps)))
        begins = (torch.arange(steps, device=x_BGCT.device) - window // 2).clamp(0, steps - window)

        def averaged(values_BGT: Tensor) -> Tensor:
            sums = nn.functional.pad(values_BGT.double().cumsum(-1), (1, 0))
            return ((sums[..., begins + window] - sums[..., begins]) / window).to(values_BGT.dtype)

        return averaged(x_BGCT.mean(2)), averaged(x_BGCT.square().mean(2))

    return rule


@contextmanager
def ruled(network: nn.Module, rule: Rule) -> Iterator[None]:
    """Every GroupNorm of a network normalizes by ``rule`` while the context lasts.

    Raises:
        UserError: the network has no GroupNorm.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.GroupNorm)}
    if not layers:
        raise UserError("the network has no GroupNorm whose statistics could be taken over")

    def forward(name: str, layer: nn.GroupNorm, x_BCT: Tensor) -> Tensor:
        x_BGCT = rearrange(x_BCT, "b (g c) t -> b g c t", g=layer.num_groups)
        mean, square = rule(name, x_BGCT)
        scale = ((square - mean.square()).clamp_min(0) + layer.eps).rsqrt()
        normal = rearrange((x_BGCT - mean[:, :, None]) * scale[:, :, None], "b g c t -> b (g c) t")
        return normal if layer.weight is None else normal * layer.weight[:, None] + layer.bias[:, None]

    for name, layer in layers.items():
        layer.forward = partial(forward, name, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


@torch.no_grad()
def recorded(network: nn.Module, plans_BDT: Tensor, level: int) -> dict[str, Moments]:
    """The moments that each GroupNorm takes of plans at one noise level, by the layer's name."""
    found: dict[str, Moments] = {}

    def rule(name: str, x_BGCT: Tensor) -> Moments:
        found[name] = own_moments(name, x_BGCT)
        return found[name]

    with ruled(network, rule):
        network(plans_BDT, torch.full((len(plans_BDT),), level, device=plans_BDT.device))
    return found


@dataclass(frozen=True)
class Frozen:
    """GroupNorms whose statistics at each noise level are those of the training windows, the same for every plan.

    Attributes:
        table: by noise level and layer, the moments averaged over training windows.
    """

    table: Mapping[int, Mapping[str, Moments]]

    @classmethod
    @torch.no_grad()
    def of(cls, planner: Planner, windows: Windows, count: int = 256, seed: int = 0) -> Frozen:
        """Averages over ``count`` training windows, noised as in training, their ends written in."""
        generator = torch.Generator(planner.device).manual_seed(seed)
        diffusion = planner.config.diffusion
        schedule = make_schedule(diffusion.train_steps, diffusion.prediction)
        which = torch.randint(len(windows), (count,), generator=generator, device=planner.device)
        clean = windows.gather(which)
        known = planner.statistics.layout.known(clean.shape[-1], planner.device)
        table = {}
        for level in range(diffusion.train_steps):
            noise = torch.randn(clean.shape, generator=generator, device=clean.device)
            noisy = schedule.add_noise(clean, noise, torch.full((count,), level, device=clean.device))
            moments = recorded(planner.network, torch.where(known, clean, noisy), level)
            table[level] = {
                name: (mean.mean(0, True), square.mean(0, True)) for name, (mean, square) in moments.items()
            }
        return cls(table)

    def denoiser(self, network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        """The network under these statistics, for a sampler, whose plans are all at one level at a time."""

        def denoise(plans_BDT: Tensor, level_B: Tensor) -> Tensor:
            table = self.table[int(level_B[0])]
            with ruled(network, lambda name, _: table[name]):
                return network(plans_BDT, level_B)

        return denoise


def denoiser_under(network: nn.Module, rule: Rule) -> Callable[[Tensor, Tensor], Tensor]:
    """The network under a rule that is the same at every noise level, for a sampler."""

    def denoise(plans_BDT: Tensor, level_B: Tensor) -> Tensor:
        with ruled(network, rule):
            return network(plans_BDT, level_B)

    return denoise


def borrowing_denoiser(planner: Planner, clean_BDT: Tensor, seed: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    """The network with the statistics that it takes of other plans, noised to the same level, one for each plan.

    Args:
        planner: whose network has GroupNorms.
        clean_BDT: normalized plans, in the order of the batch that will be sampled.
        seed: of the noise that is added to them.
    """
    network, diffusion = planner.network, planner.config.diffusion
    schedule = make_schedule(diffusion.train_steps, diffusion.prediction)
    generator = torch.Generator(planner.device).manual_seed(seed)
    known = planner.statistics.layout.known(clean_BDT.shape[-1], planner.device)

    def denoise(plans_BDT: Tensor, level_B: Tensor) -> Tensor:
        noise = torch.randn(clean_BDT.shape, generator=generator, device=clean_BDT.device)
        noisy = torch.where(known, clean_BDT, schedule.add_noise(clean_BDT, noise, level_B))
        table = recorded(network, noisy, int(level_B[0]))
        with ruled(network, lambda name, _: table[name]):
            return network(plans_BDT, level_B)

    return denoise
