"""Windows whose insides a trained planner has planned anew: demonstrations with one way from a start to a goal.

Two demonstrations of one start and goal differ, and the mean of both is neither; a network that makes a plan in one
evaluation can only learn the mean. What a planner draws without noise is a function of start and goal, which it can
learn (the couplings of rectified flow, Liu et al. 2023, section 2.2, at temperature 0).

Shapes: P windows, D transition dimensions, T planned points.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from tqdm import tqdm

from groundwork.errors import UserError
from planner.config import Config
from planner.data import DataStatistics, PlannerData, Windows
from planner.plan import Planner
from planner.sampling import Sampling

WINDOWS, VALIDATION_WINDOWS = 16_384, 512
"""How many windows are planned anew, at most."""
STEPS = 8
AT_ONCE = 512


def taught(data: PlannerData, config: Config, progress: bool = False) -> PlannerData:
    """The data with windows as ``config.diffusion.teacher`` plans them, or as they are without one.

    Which windows are planned anew is the same for all seeds, so that networks of one teacher learn from equal plans.
    A run that goes on plans them again.

    Args:
        data: windows of the teacher's environment.
        config: names the teacher, and the planned points.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: no such run, one of another environment or state, or a window that it cannot plan.
    """
    name = config.diffusion.teacher
    if not name:
        return data
    teacher = Planner.from_run(name, device=data.training.series_ND.device.type)
    theirs, ours = teacher.statistics, data.statistics
    if (theirs.layout, theirs.environment) != (ours.layout, ours.environment):
        raise UserError(
            f"diffusion.teacher = {name} plans {theirs.layout.transition_dim} values of {theirs.environment}; the "
            f"data have {ours.layout.transition_dim} of {ours.environment}"
        )
    with tqdm(unit="plan", desc=f"plans of {name}", disable=None if progress else True, file=sys.stderr) as bar:
        return replace(
            data,
            training=_planned(data.training, WINDOWS, teacher, ours, bar),
            validation=_planned(data.validation, VALIDATION_WINDOWS, teacher, ours, bar),
        )


def _planned(windows: Windows, most: int, teacher: Planner, statistics: DataStatistics, bar: tqdm) -> Windows:
    """At most so many of the windows, drawn without replacement, planned anew."""
    device, points = windows.series_ND.device, len(windows.offsets_T)
    layout, normalizer = statistics.layout, statistics.normalizer.to(device)
    which_P = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:most].to(device)
    bar.total = (bar.total or 0) + len(which_P)
    steps = min(STEPS, teacher.config.diffusion.train_steps)
    sampling = Sampling(sampler="dpm", sampling_steps=steps, resample=0, temperature=0.0)
    planned = [windows.series_ND[:0]]
    for which in which_P.split(AT_ONCE) if len(which_P) else []:
        values_BTD = normalizer.denormalize(windows.gather(which).transpose(1, 2)).cpu().numpy()
        starts, goals = values_BTD[:, 0, : layout.state_dim], values_BTD[:, -1, : layout.goal_dims]
        plans_BTD = teacher.plan(starts, goals, horizon=points, sampling=sampling)[:, 0]
        planned.append(normalizer.normalize(torch.from_numpy(plans_BTD).to(device)).flatten(0, 1))
        bar.update(len(which))
    firsts_P = torch.arange(len(which_P), device=device) * points
    return Windows(torch.cat(planned), firsts_P, torch.arange(points, device=device))
