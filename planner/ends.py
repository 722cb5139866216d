"""Where plans begin and end: starts and goals in data units, checked, paired and written into plans.

Shapes: B problems, S state dimensions, G those of a goal, H planned points, D transition dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from envs.geometry import require_free
from groundwork.errors import UserError
from planner.data import DataStatistics, TrajectoryLayout


def paired_ends(start: ArrayLike, goal: ArrayLike, statistics: DataStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Starts (B, S) and goals (B, G), of which one may be given for all of the others.

    Args:
        start: (S,) or (B, S) states; a maze's may be a position, which then starts at rest.
        goal: (G,) or (B, G).
        statistics: of the data that the planner was trained on.

    Raises:
        UserError: shapes that do not fit, values that are not finite or far from all data, a place in a wall or outside
            the maze.
    """
    layout, maze = statistics.layout, statistics.maze
    starts, goals = (np.atleast_2d(np.asarray(value, dtype=np.float32)) for value in (start, goal))
    if maze is not None and starts.shape[1] == 2 < layout.state_dim:
        starts = np.concatenate([starts, np.zeros_like(starts)], axis=1)
    for name, values, size in (("start", starts, layout.state_dim), ("goal", goals, layout.goal_dims)):
        if values.ndim != 2 or values.shape[1] != size:
            fewer = "2 or " if name == "start" and maze is not None and size > 2 else ""
            raise UserError(f"{name} has {values.shape[-1]} values; {statistics.environment} needs {fewer}{size}")
        if not np.isfinite(values).all():
            raise UserError(f"{name} = {values.tolist()} is not finite")
    batch = max(len(starts), len(goals))
    if {len(starts), len(goals)} - {1, batch} or not batch:
        raise UserError(f"{len(starts)} starts do not fit {len(goals)} goals")
    for name, values in (("start", starts), ("goal", goals)):
        if maze is not None:
            require_free(maze, values[:, :2], name)
        statistics.normalizer.require_near(values, name)
    return np.repeat(starts, batch // len(starts), 0), np.repeat(goals, batch // len(goals), 0)


def only_ends(
    starts_BS: np.ndarray, goals_BG: np.ndarray, horizon: int, layout: TrajectoryLayout, device: torch.device
) -> Tensor:
    """Plans (B, H, D) in data units that hold their starts and goals, and zeros elsewhere."""
    plans_BHD = torch.zeros(len(starts_BS), horizon, layout.transition_dim, device=device)
    plans_BHD[:, 0, : layout.state_dim] = torch.from_numpy(starts_BS).to(device)
    plans_BHD[:, -1, : layout.goal_dims] = torch.from_numpy(goals_BG).to(device)
    return plans_BHD
