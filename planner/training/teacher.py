"""Windows whose insides a trained planner has planned anew: demonstrations with one way from a start to a goal.

Two demonstrations of one start and goal differ, and the mean of both is neither; a network that makes a plan in one
evaluation can only learn the mean. What a planner draws without noise is a function of start and goal, which it can
learn (the couplings of rectified flow, Liu et al. 2023, section 2.2, at temperature 0).

Shapes: P windows, B of them at once, D transition dimensions, T planned points.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.files import digest
from planner.config import TAUGHT_WINDOWS, TEACHER_STEPS, Config
from planner.data import DataStatistics, PlannerData, Windows
from planner.hub import EMA
from planner.plan import Planner
from planner.sampling import Sampling
from planner.training.find import find_run
from planner.training.trainer import VALIDATION_WINDOWS
from planner.unet_files import WEIGHTS_FILE

AT_ONCE = 512


def teacher_checksum(config: Config) -> str | None:
    """What tells the weights of a run's teacher from others; ``None``: it has no teacher.

    Raises:
        UserError: no such run, or one that is not finished.
    """
    name = config.diffusion.teacher
    if not name:
        return None
    folder = find_run(name)
    if not folder.done:
        raise UserError(f"diffusion.teacher = {name}: its training is not finished")
    return digest(folder.checkpoint() / EMA / WEIGHTS_FILE)


def taught(data: PlannerData, config: Config, progress: bool = False) -> PlannerData:
    """The data with windows as ``config.diffusion.teacher`` plans them, or as they are without one.

    Which windows are planned anew is the same for all seeds, so that networks of one teacher learn from equal plans.
    A run that goes on plans them again.

    Args:
        data: windows of the teacher's environment and stride.
        config: names the teacher, and the planned points.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: no such run, one of another environment, state or stride, or windows that it cannot plan.
    """
    name = config.diffusion.teacher
    if not name:
        return data
    try:
        teacher = Planner.from_run(name, device=data.training.series_ND.device.type)
        _check(teacher, data.statistics, config)
        # Else as the environment says, as of a training.
        with tqdm(
            unit="plan", desc=f"plans of {name}", file=sys.stderr, **({} if progress else {"disable": True})
        ) as bar:
            return replace(
                data,
                training=_planned(data.training, TAUGHT_WINDOWS, teacher, data.statistics, bar),
                validation=_planned(data.validation, VALIDATION_WINDOWS, teacher, data.statistics, bar),
            )
    except UserError as error:
        raise UserError(f"diffusion.teacher = {name}: {error}") from error


def _check(teacher: Planner, ours: DataStatistics, config: Config) -> None:
    theirs = teacher.statistics
    if (theirs.layout, theirs.environment) != (ours.layout, ours.environment):
        raise UserError(
            f"it plans {theirs.layout.transition_dim} values of {theirs.environment}; the data have "
            f"{ours.layout.transition_dim} of {ours.environment}"
        )
    if teacher.config.data.stride != config.data.stride:
        raise UserError(
            f"its points are {teacher.config.data.stride} steps apart, those of data.stride = "
            f"{config.data.stride} would be at other speeds"
        )


def _planned(windows: Windows, most: int, teacher: Planner, statistics: DataStatistics, bar: tqdm) -> Windows:
    """At most so many of the windows, drawn without replacement, planned anew."""
    if not len(windows):
        return windows
    device, points = windows.series_ND.device, len(windows.offsets_T)
    layout, normalizer = statistics.layout, statistics.normalizer.to(device)
    which_P = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:most].to(device)
    bar.total = (bar.total or 0) + len(which_P)
    steps = min(TEACHER_STEPS, teacher.config.diffusion.train_steps)
    sampling = Sampling(sampler="dpm", sampling_steps=steps, resample=0, temperature=0.0)
    planned = []
    for which in which_P.split(AT_ONCE):
        values_BTD = normalizer.denormalize(windows.gather(which).transpose(1, 2)).cpu().numpy()
        starts, goals = values_BTD[:, 0, : layout.state_dim], values_BTD[:, -1, : layout.goal_dims]
        plans_BTD = teacher.plan(starts, goals, horizon=points, sampling=sampling)[:, 0]
        planned.append(normalizer.normalize(torch.from_numpy(plans_BTD).to(device)).flatten(0, 1))
        bar.update(len(which))
    firsts_P = torch.arange(len(which_P), device=device) * points
    return Windows(torch.cat(planned), firsts_P, torch.arange(points, device=device))
