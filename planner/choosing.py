"""Which of several plans for one problem is followed: by the map, or by the plan alone.

Shapes: B problems, N plans for each, H planned points, D transition dimensions, X the two coordinates; positions in
metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from envs.maze_map import MazeMap
from planner.measures import path_length_m, plan_measures
from planner.sampler import predicted_clean

JUDGED_LEVELS, JUDGED_DRAWS, JUDGED_POINTS = (0.1, 0.2, 0.3), 2, 8
"""Shares of the noise levels at which plans are judged, draws of noise at each, and the points of a stretch."""


def held_at_end(plans_BNHD: np.ndarray, points: int) -> np.ndarray:
    """Plans of a maze, of ``points`` points: behind their last position they wait there at rest."""
    more = points - plans_BNHD.shape[-2]
    end = np.zeros((*plans_BNHD.shape[:-2], more, plans_BNHD.shape[-1]), plans_BNHD.dtype)
    end[..., :2] = plans_BNHD[..., -1:, :2]
    return np.concatenate([plans_BNHD, end], axis=-2)


def choose_best(
    positions_BNHX: np.ndarray, maze: MazeMap, data_longest_step_m: float, costs_BN: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best of N plans for each of B problems.

    Valid plans come first, and among them the shortest. Where none is valid, the one with the most points in
    free space, and among equals the shortest. Costs, where given, count before lengths.

    Args:
        positions_BNHX: (B, N, H, 2) planned positions in metres.
        maze: the walls.
        data_longest_step_m: longest step of the training split at the same stride.
        costs_BN: what a guide makes of the plans.

    Returns:
        (B,) the chosen plans' indices, and (B,) the share of valid ones among each problem's N.
    """
    problems, candidates = positions_BNHX.shape[:2]
    measures = plan_measures(positions_BNHX.reshape(-1, *positions_BNHX.shape[2:]), maze, data_longest_step_m)
    valid, free = (measures[name].reshape(problems, candidates) for name in ("plan_valid", "free_share"))
    # A valid plan's points are all free, so that the free share tells invalid plans apart and no others.
    costs = np.zeros_like(free) if costs_BN is None else costs_BN
    order = np.lexsort((path_length_m(positions_BNHX), costs, -free, ~valid), axis=-1)
    return order[:, 0], valid.mean(1)


def longest_steps_m(plans_BNHD: np.ndarray, inner: bool) -> np.ndarray:
    """Longest steps (B, N) of plans.

    Args:
        plans_BNHD: positions first, in metres.
        inner: leave out the first and the last step, which lead to what was given, where others remain. How far they
            go says more of start and goal than of the way between.
    """
    steps_m = np.linalg.norm(np.diff(plans_BNHD[..., :2], axis=2), axis=-1)
    return (steps_m[..., 1:-1] if inner and steps_m.shape[2] > 2 else steps_m).max(2)


@torch.no_grad()
def denoising_error(
    denoise: Callable[[Tensor, Tensor], Tensor], schedule: DDPMScheduler, known: Tensor, plans_NDT: Tensor
) -> Tensor:
    """How far denoising moves plans where it moves them most.

    Plans are noised to a few low levels, several times, all by the same noise. The squared distance to what the
    network makes of them is averaged over levels, draws and the points of a stretch, and each plan's worst stretch
    counts. Where a plan is unlike the data, in a wall or too fast, denoising moves it.

    Args:
        denoise: maps noisy (N, D, T) and levels (N,) to the prediction that ``schedule`` names.
        schedule: the noise levels of the training.
        known: (D, T) or (N, D, T), the entries that start and goal determine, which are not judged.
        plans_NDT: normalized plans.

    Returns:
        (N,) mean squared distances, normalized.
    """
    levels, generator = schedule.config["num_train_timesteps"], torch.Generator(plans_NDT.device).manual_seed(0)
    moved_NT = torch.zeros_like(plans_NDT[:, 0])
    for share in JUDGED_LEVELS:
        at_N = torch.full((len(plans_NDT),), max(0, round(share * levels) - 1), device=plans_NDT.device)
        for _ in range(JUDGED_DRAWS):
            noise = torch.randn(plans_NDT.shape[1:], generator=generator, device=plans_NDT.device)
            noisy = torch.where(known, plans_NDT, schedule.add_noise(plans_NDT, noise.expand_as(plans_NDT), at_N))
            clean = predicted_clean(schedule, denoise(noisy, at_N), noisy, int(at_N[0]))
            moved_NT += torch.where(known, 0.0, clean - plans_NDT).square().mean(1)
    moved_NT /= len(JUDGED_LEVELS) * JUDGED_DRAWS
    stretch = min(JUDGED_POINTS, moved_NT.shape[1])
    return torch.nn.functional.avg_pool1d(moved_NT[:, None], stretch, 1).amax((1, 2))
