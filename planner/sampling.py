"""How plans are sampled: the samplers by name, and every choice in one object. It can be read without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from groundwork.errors import UserError
from groundwork.options import Settings, option

if TYPE_CHECKING:
    from planner.guidance import AvoidRegion

SamplerKind = Literal["ddpm", "ddim", "dpm", "sde"]
Choice = Literal["map", "longest_step", "inner_step", "denoising"]
MOST_TIMES = 1000
RESAMPLE = (
    "How often a sampling step, but for the last, is taken again, from its result noised back to where it began; each "
    "time costs one more evaluation of the network."
)
RESAMPLE_LEVELS = "Steps are taken again between these shares of the noise levels, where long plans choose their way."
TEMPERATURE = (
    "All noise that sampling draws has this standard deviation: below 1 plans are likelier ones and more alike, at 0 "
    "all plans of a start and a goal are one, so that nothing is left to choose."
)
"""What the help says of a run's own way of sampling, and of a command's."""


@dataclass(frozen=True)
class Sampler:
    """A scheduler of diffusers that takes predicted clean plans from noise level to noise level.

    Attributes:
        scheduler: its class in diffusers.
        order: the error of its deterministic steps falls with this power of their number; ``None``: its steps add
            noise.
        remembers: whether a step depends on the ones before, so that none can be taken again.
        options: what it is made with, besides the noise levels.
    """

    scheduler: str
    order: int | None
    remembers: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


_SOLVER = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
SAMPLERS: dict[SamplerKind, Sampler] = {
    # Ancestral steps (Ho et al. 2020).
    "ddpm": Sampler("DDPMScheduler", None, remembers=False),
    # DPM-Solver++ of order one is the same formula (Lu et al. 2022, section 4.1); diffusers' DDIMScheduler takes a
    # wrong previous level where the number of steps does not divide that of the levels.
    "ddim": Sampler("DPMSolverMultistepScheduler", 1, options={**_SOLVER, "solver_order": 1}),
    # DPM-Solver++ 2M (Lu et al. 2022).
    "dpm": Sampler("DPMSolverMultistepScheduler", 2, options={**_SOLVER, "solver_order": 2}),
    # SDE-DPM-Solver++ 2M (Lu et al. 2022, appendix): as noisy as ancestral steps, and right with fewer of them.
    "sde": Sampler(
        "DPMSolverMultistepScheduler", None, options={**_SOLVER, "solver_order": 2, "algorithm_type": "sde-dpmsolver++"}
    ),
}
"""The samplers by name; all take any number of steps, a warm start and a guide."""


def find_sampler(kind: str) -> Sampler:
    """The sampler of that name.

    Raises:
        UserError: there is none.
    """
    for name, sampler in SAMPLERS.items():
        if name == kind:
            return sampler
    raise UserError(f"sampler = {kind} is not one of {', '.join(SAMPLERS)}")


@dataclass(frozen=True)
class Sampling(Settings):
    """How plans are drawn, from the command line to the sampler.

    Attributes:
        sampler: which of :data:`SAMPLERS`; ``None``: the run's.
        sampling_steps: network evaluations per plan; ``None``: the run's.
        best_of: plans drawn for each one that is returned.
        choose: which of them that is, see :mod:`planner.choosing`.
        horizon_shares: shares of the horizon at which they are drawn, as many of each as come out even, the first
            ones one more.
        resample: how often a step is taken again, from its result noised back to where it began (RePaint, Lugmayr et
            al. 2022, section 4.2): an evaluation sees as far as the network reaches, and the parts of a long plan need
            several to agree. ``None``: as the run says, with a sampler whose steps can be.
        resample_levels: the least and the largest share of the noise levels at which that is done; ``None``: the
            run's.
        temperature: the standard deviation of all noise that is drawn (low-temperature sampling, Ajay et al. 2023); at
            0 all plans of a problem are one. ``None``: the run's.
        avoid: x, y and radius in metres of a region to stay out of.
        avoid_scale: of the gradient steps out of it, or down any other guide's cost. 4 is large enough to turn plans
            to another way while their way is still open.
        replan_warm: plans begin from the last ones, noised again to this share of the noise levels, in as much
            smaller a share of the steps; 0: from pure noise.

    Raises:
        UserError: an unknown sampler, or a number out of its range.
    """

    sampler: SamplerKind | None = option(None, "The sampler that draws the plans.", default_text="the run's")
    sampling_steps: int | None = option(
        None, "How many steps draw a plan, each an evaluation of the network.", low=1, default_text="the run's"
    )
    best_of: int = option(1, "How many plans are drawn for each one that is kept.", low=1)
    choose: Choice = option(
        "map",
        "Of those drawn the shortest valid one is kept, which takes the map to know (map), or, without it, the one "
        "whose longest step is shortest, of all (longest_step) or but the first and the last, which lead to what is "
        "given (inner_step), or that denoising moves least where it moves it most (denoising).",
    )
    horizon_shares: tuple[float, ...] = option(
        (1.0,),
        "Those drawn have these shares of the horizon's points, 1 among them, as many plans each; short ones wait at "
        "their goal.",
        low=0.01,
        high=1,
        metavar="A,B",
    )
    resample: int | None = option(
        None, f"{RESAMPLE} With sampler ddpm only.", low=0, high=MOST_TIMES, default_text="as the run says, with ddpm"
    )
    resample_levels: tuple[float, float] | None = option(
        None, RESAMPLE_LEVELS, low=0, high=1, metavar="LOW,HIGH", default_text="the run's"
    )
    temperature: float | None = option(None, TEMPERATURE, low=0, high=1, default_text="the run's")
    avoid: tuple[float, float, float] | None = option(
        None, "A region to stay out of: its center and its radius in meters.", metavar="X,Y,RADIUS", default_text=""
    )
    avoid_scale: float = option(4.0, "How hard each sampling step pushes plans out of the region to avoid.")
    replan_warm: float = option(
        0.0,
        "Plan anew from the last plan, noised again to this share of the noise levels; 0 begins with pure noise.",
        low=0,
        high=1,
    )

    def drawn_at(self, horizon: int, unit: int) -> dict[int, int]:
        """Number of points → how many of ``best_of`` plans have it; all are multiples of ``unit``, from two of it.

        Raises:
            UserError: more shares of the horizon than plans, or none that is the whole.
        """
        if 1.0 not in self.horizon_shares:
            raise UserError("horizon_shares must hold 1: a plan's horizon is that of the longest ones drawn")
        if len(self.horizon_shares) > self.best_of:
            raise UserError(f"horizon_shares: {len(self.horizon_shares)} of them need best_of of as many at least")
        counts: dict[int, int] = {}
        for index, share in enumerate(self.horizon_shares):
            points = horizon if share == 1 else max(2 * unit, unit * math.ceil(share * horizon / unit - 1e-9))
            even, more = divmod(self.best_of, len(self.horizon_shares))
            counts[points] = counts.get(points, 0) + even + (index < more)
        return counts

    @property
    def guide(self) -> AvoidRegion | None:
        """The cost that ``avoid`` means."""
        from planner.guidance import AvoidRegion

        return AvoidRegion(*self.avoid) if self.avoid else None
