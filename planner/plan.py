"""A trained planner: from start and goal to plans in the data's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import ArrayLike

from groundwork.errors import UserError
from planner.choosing import choose_best, denoising_error, held_at_end, longest_steps_m
from planner.composition import Chunks
from planner.config import Config, check_horizon
from planner.data import DataStatistics
from planner.device import pick_device
from planner.diffusion import make_schedule
from planner.ends import only_ends, paired_ends
from planner.guidance import Guide, descend
from planner.hub import EMA, fetch
from planner.sampler import Conditions, WarmStart, sample, settings_of
from planner.sampling import Choice, Sampling
from planner.training.checkpoint import read_network
from planner.training.find import find_run
from planner.training.run import RunFolder
from planner.unet import TemporalUNet

PLANS_PER_BATCH = 1024
DEFAULT_SAMPLING = Sampling()
"""As the run's config says, one plan for each that is returned."""


class Planner:
    """Plans trajectories from a start to a goal.

    Args:
        network: the denoiser.
        config: the settings that it was trained with.
        statistics: what the run knows of its data.
    """

    def __init__(self, network: TemporalUNet, config: Config, statistics: DataStatistics):
        self.network = network.eval().requires_grad_(False)
        self.config = config
        self.statistics = statistics
        self.device = next(network.parameters()).device
        self.schedule = make_schedule(config.diffusion.train_steps, config.diffusion.prediction)
        self._normalizer = statistics.normalizer.to(self.device)

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        *,
        weights: Literal["ema", "model"] = "ema",
        step: int | None = None,
        device: str = "auto",
    ) -> Planner:
        """The planner of a run folder, or a shipped one.

        Args:
            path: the run folder, or the name of a shipped planner.
            weights: moving average (``ema``) or raw weights (``model``).
            step: a kept checkpoint; by default the last.
            device: ``auto``, ``cpu`` or ``cuda``.

        Raises:
            UserError: no run, no such checkpoint, or damaged files.
        """
        folder = find_run(path)
        config, statistics = folder.config(), folder.statistics()
        return cls(folder.load_network(weights, step).to(pick_device(device)), config, statistics)

    @classmethod
    def from_pretrained(cls, repo: str, *, revision: str | None = None, device: str = "auto") -> Planner:
        """A planner that ``planner push`` has uploaded to the Hugging Face Hub; nothing is unpickled.

        Args:
            repo: USER/NAME.
            revision: branch, tag or commit; ``None``: the newest.
            device: ``auto``, ``cpu`` or ``cuda``.

        Raises:
            UserError: no such repository or access, or files that are missing, damaged or do not fit each other.
        """
        folder = RunFolder(fetch(repo, revision))
        network = folder.make_network()
        read_network(folder.path, EMA, network)
        return cls(network.to(pick_device(device)), folder.config(), folder.statistics())

    def plan(
        self,
        start: ArrayLike,
        goal: ArrayLike,
        num_plans: int = 1,
        seed: int = 0,
        *,
        horizon: int | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
        last_plans: np.ndarray | None = None,
        guide: Guide | None = None,
    ) -> np.ndarray:
        """Samples plans from ``start`` to ``goal``.

        Args:
            start: (S,) or (B, S) states; a maze's may be a position, which then starts at rest.
            goal: (G,) or (B, G): positions in a maze, whole states elsewhere.
            num_plans: plans for each problem.
            seed: of the noise; the same seed gives the same plans.
            horizon: planned points; by default the training's.
            sampling: sampler, steps, best of how many (which needs a maze), region to avoid, warm start.
            last_plans: (B, H, D) plans in data units that a warm start begins from, one per problem, as
                :func:`planner.policy.shifted` gives them.
            guide: a cost of plans in data units that sampling shall lower, instead of the region to avoid.

        Returns:
            (num_plans, H, D) plans in data units for one problem, (B, num_plans, H, D) for a batch. Start and
            goal stand in them exactly as given.

        Raises:
            UserError: shapes, horizon or steps that do not fit, values that are not finite or far from all data, a
                start or goal in a wall or outside the maze, or ``best_of`` without a maze.
        """
        if sampling.best_of > 1 or sampling.horizon_shares != (1.0,):
            drawn = self.drawn(
                start, goal, num_plans, seed, horizon=horizon, sampling=sampling, last_plans=last_plans, guide=guide
            )
            plans = self.chosen(drawn, sampling, guide)[0]
            plans = plans.reshape(-1, num_plans, *plans.shape[1:])
            return plans if np.ndim(start) == 2 or np.ndim(goal) == 2 else plans[0]
        starts, goals = paired_ends(start, goal, self.statistics)
        if num_plans < 1:
            raise UserError(f"num_plans = {num_plans} must be at least 1")
        horizon = self.config.data.horizon if horizon is None else horizon
        check_horizon(horizon, self.config.model.dim_mults, self.config.model.num_packs)
        if not 0 <= seed < 2**63:
            raise UserError(f"seed = {seed} must be from 0 to {2**63 - 1}")
        generator = torch.Generator(self.device).manual_seed(seed)
        warm, guide = sampling.replan_warm, guide or sampling.guide
        starts_N, goals_N = (np.repeat(values, num_plans, axis=0) for values in (starts, goals))
        last_N = self._last_plans(last_plans, len(starts), horizon, num_plans) if warm else None
        steer = self._steering(guide, sampling.avoid_scale) if guide else None
        parts = []
        for first in range(0, len(starts_N), PLANS_PER_BATCH):
            part = slice(first, first + PLANS_PER_BATCH)
            again = None if last_N is None else WarmStart(last_N[part], warm)
            parts.append(self._sample(starts_N[part], goals_N[part], horizon, sampling, generator, again, steer))
        plans = np.concatenate(parts).reshape(len(starts), num_plans, horizon, -1)
        return plans if np.ndim(start) == 2 or np.ndim(goal) == 2 else plans[0]

    @property
    def unit(self) -> int:
        """What the number of a plan's points must be a multiple of; twice that is the shortest plan."""
        return 2 ** (len(self.config.model.dim_mults) - 1) * self.config.model.num_packs

    def drawn(
        self,
        start: ArrayLike,
        goal: ArrayLike,
        num_plans: int = 1,
        seed: int = 0,
        *,
        horizon: int | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
        last_plans: np.ndarray | None = None,
        guide: Guide | None = None,
    ) -> list[np.ndarray]:
        """All of the ``best_of`` plans for each plan that :meth:`plan` returns, whose arguments these are.

        Returns:
            For each number of points that they have, (B · num_plans, n, H, D) plans in data units.

        Raises:
            UserError: what :meth:`plan` raises, or several horizons with a warm start, whose last plan has but one.
        """
        counts = sampling.drawn_at(self.config.data.horizon if horizon is None else horizon, self.unit)
        if len(counts) > 1 and sampling.replan_warm:
            raise UserError("replan_warm begins from a plan of the whole horizon: horizon_shares must be 1")
        one, drawn = replace(sampling, best_of=1, horizon_shares=(1.0,)), []
        for index, (points, count) in enumerate(counts.items()):
            plans = self.plan(
                np.atleast_2d(start),
                np.atleast_2d(goal),
                num_plans=num_plans * count,
                seed=seed + index,
                horizon=points,
                sampling=one,
                last_plans=last_plans,
                guide=guide,
            )
            drawn.append(rearrange(plans, "b (k n) t d -> (b k) n t d", n=count))
        return drawn

    def chosen(
        self, drawn: Sequence[np.ndarray], sampling: Sampling = DEFAULT_SAMPLING, guide: Guide | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One (B, H, D) of the plans that :meth:`drawn` gives, and the share (B,) of valid ones among them.

        By the map, valid plans of the lowest cost to a guide come first, and among these the shortest. Without it,
        the one whose longest step, or longest inner step, is shortest, or whose :meth:`denoising_error` is least; the
        walls count then for the share alone.

        Raises:
            UserError: the planner's environment is no maze, where validity means nothing, or a guide with a choice
                that does not ask for its costs.
        """
        maze, guide = self.statistics.maze_for("best_of"), guide or sampling.guide
        plans = np.concatenate([held_at_end(each, max(one.shape[2] for one in drawn)) for each in drawn], axis=1)
        costs = None
        if guide is not None:
            if sampling.choose != "map":
                raise UserError(f"choose = {sampling.choose} takes no region to avoid; allowed with one: map")
            every = rearrange(torch.from_numpy(plans), "b n t d -> (b n) t d")
            costs = guide(every, 0.0).numpy().reshape(plans.shape[:2])
        best, valid_share = choose_best(plans[..., :2], maze, self.statistics.longest_step_m, costs)
        if sampling.choose != "map":
            judges: dict[Choice, Callable[[np.ndarray], np.ndarray]] = {
                "longest_step": partial(longest_steps_m, inner=False),
                "inner_step": partial(longest_steps_m, inner=True),
                "denoising": self.denoising_error,
            }
            best = np.concatenate([judges[sampling.choose](each) for each in drawn], axis=1).argmin(1)
        return plans[np.arange(len(plans)), best], valid_share

    def denoising_error(self, plans_BNHD: np.ndarray) -> np.ndarray:
        """How far the network moves plans (B, N, H, D) in data units, see :func:`planner.choosing.denoising_error`.

        Raises:
            UserError: the network knows one noise level, which leaves nothing of a plan.
        """
        if self.config.diffusion.train_steps == 1:
            raise UserError(
                "choose = denoising needs a run of several noise levels: at its one nothing of a plan is left to judge"
            )
        flat = self.normalized(rearrange(plans_BNHD, "b n t d -> (b n) t d"))
        known, chunks, parts = self.statistics.layout.known(flat.shape[2], self.device), self._chunks(flat.shape[2]), []
        for part in flat.split(PLANS_PER_BATCH):
            told, pieces = (chunks.split(known.expand_as(part)), chunks.split(part)) if chunks else (known, part)
            errors = denoising_error(self.denoiser(told, chunks), self.schedule, told, pieces)
            parts.append(errors.view(len(part), -1).amax(1))
        return torch.cat(parts).cpu().numpy().reshape(plans_BNHD.shape[:2])

    def denoiser(
        self, known: torch.Tensor, chunks: Chunks | None = None
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The network in inference mode, told which entries are known if it was trained to be, and of neighbours."""
        network = partial(self.network, known=known) if self.config.model.tell_known else self.network
        # A tenth cheaper than without gradients alone, at one plan.
        return torch.inference_mode()(chunks.told(network) if chunks else network)

    def _chunks(self, points: int) -> Chunks | None:
        """What a plan of that many points is composed of, where it is not one piece."""
        size, overlap = self.config.data.horizon, self.config.model.overlap
        return Chunks(points, size, overlap) if overlap and points > size else None

    def positions_m(self, plans_BDT: torch.Tensor) -> np.ndarray:
        """The positions (B, T, 2) in meters of a maze's normalized plans."""
        return self._normalizer.denormalize(plans_BDT.transpose(1, 2))[..., :2].cpu().numpy()

    def normalized(self, plans_BTD: np.ndarray) -> torch.Tensor:
        """Plans (B, T, D) in data units as the network sees them: (B, D, T) in [−1, 1], on its device."""
        values = torch.as_tensor(plans_BTD, dtype=torch.float32, device=self.device)
        return self._normalizer.normalize(values).transpose(1, 2)

    def _last_plans(self, plans: np.ndarray | None, problems: int, horizon: int, repeats: int) -> torch.Tensor:
        """Plans to begin from, (B, H, D) in data units, normalized as (B · repeats, D, H)."""
        shape = (problems, horizon, self.statistics.layout.transition_dim)
        if plans is None or plans.shape != shape:
            given = None if plans is None else plans.shape
            raise UserError(f"a warm start needs last plans of shape {shape}, not {given}")
        return repeat(self.normalized(plans), "b d t -> (b repeats) d t", repeats=repeats)

    def _steering(self, guide: Guide, scale: float) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Gradient descent on the cost, as a function on normalized plans (B, D, T)."""

        def steer(clean_BDT: torch.Tensor, noise: float) -> torch.Tensor:
            in_units = self._normalizer.denormalize(clean_BDT.transpose(1, 2))
            return self._normalizer.normalize(descend(guide, in_units, noise, scale)).transpose(1, 2)

        return steer

    def _sample(
        self,
        starts_BS: np.ndarray,
        goals_BG: np.ndarray,
        horizon: int,
        sampling: Sampling,
        generator: torch.Generator,
        warm: WarmStart | None,
        steer: Callable[[torch.Tensor, float], torch.Tensor] | None,
    ) -> np.ndarray:
        """One batch of plans (B, H, D)."""
        layout = self.statistics.layout
        values = only_ends(starts_BS, goals_BG, horizon, layout, self.device)
        known = layout.known(horizon, self.device)
        conditions = Conditions(known, self._normalizer.normalize(values).transpose(1, 2).contiguous())
        if chunks := self._chunks(horizon):
            known_NDT = chunks.split(known.expand_as(conditions.values))
            conditions = Conditions(known_NDT, chunks.split(conditions.values))
            warm = WarmStart(chunks.split(warm.plans), warm.level) if warm else None
            steer = chunks.steered(steer) if steer else None
        plans = sample(
            self.denoiser(conditions.known, chunks),
            self.schedule,
            conditions,
            generator=generator,
            warm=warm,
            guide=steer,
            **settings_of(self.config.diffusion.drawn_as(sampling)),
        )
        plans = chunks.merged(plans) if chunks else plans
        in_units = self._normalizer.denormalize(plans.transpose(1, 2))
        # Normalizing and back rounds; what was given is written as it was given.
        return torch.where(known.T, values, in_units).cpu().numpy()
