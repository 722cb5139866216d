"""How far a plan is from what was demonstrated, as a whole and in its pieces; how many ways it takes.

Shapes: N plans, M plans of one problem, H points, P points of a window, W windows, X the two coordinates.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from envs.maze_map import MazeMap
from planner.data import Windows
from planner.measures import plan_measures
from planner.normalizer import LimitsNormalizer

PARTS_AT_ONCE = 256


class NearestWindows:
    """The training split's windows of ``points`` planned points, and distances to the nearest.

    Args:
        training: the training windows of a run's data.
        normalizer: undoes their scale.
        points: length of the windows compared, at most the training horizon.
    """

    def __init__(self, training: Windows, normalizer: LimitsNormalizer, points: int):
        offsets_T = training.offsets_T.cpu()
        horizon, stride = len(offsets_T), int(offsets_T[1])
        assert points <= horizon
        shifts = stride * torch.arange(horizon - points + 1)
        starts_W = torch.unique(training.starts_W.cpu()[:, None] + shifts)
        series_NX = normalizer.denormalize(training.series_ND.cpu())[:, :2]
        self.points = points
        self._windows_WF = rearrange(series_NX[starts_W[:, None] + offsets_T[:points]], "w p x -> w (p x)")

    def distance(self, parts_NPX: np.ndarray) -> np.ndarray:
        """Root mean square distance in metres of each part (N, P, 2) to the window nearest to it, as (N,)."""
        parts_NF = rearrange(torch.as_tensor(parts_NPX, dtype=torch.float32), "n p x -> n (p x)")
        nearest: list[Tensor] = [
            torch.cdist(some, self._windows_WF).min(1).values for some in parts_NF.split(PARTS_AT_ONCE)
        ]
        return (torch.cat(nearest) / self.points**0.5).numpy()

    def farthest_part(self, plans_NHX: np.ndarray) -> np.ndarray:
        """Largest :meth:`distance` over a plan's consecutive parts of ``points`` points, as (N,).

        A remainder at the end is covered by a last part that overlaps the one before.
        """
        horizon = plans_NHX.shape[1]
        begins = sorted({*range(0, horizon - self.points + 1, self.points), horizon - self.points})
        parts = np.stack([plans_NHX[:, begin : begin + self.points] for begin in begins], axis=1)
        distances = self.distance(rearrange(parts, "n k p x -> (n k) p x"))
        return rearrange(distances, "(n k) -> n k", k=len(begins)).max(1)


def route(plan_HX: np.ndarray, maze: MazeMap) -> tuple[tuple[int, int], ...]:
    """The cells that a plan visits, in order, each named once per visit."""
    cells = maze.xy_to_cell(plan_HX)
    moved = np.concatenate([[True], (np.diff(cells, axis=0) != 0).any(1)])
    return tuple((int(row), int(column)) for row, column in cells[moved])


def distinct_routes(plans_NMHX: np.ndarray, maze: MazeMap, data_longest_step_m: float) -> list[tuple[int, int]]:
    """Per problem the number of distinct routes among its plans (N, M, H, 2), and among its valid plans."""
    counts = []
    for plans_MHX in plans_NMHX:
        routes = [route(plan, maze) for plan in plans_MHX]
        valid = plan_measures(plans_MHX, maze, data_longest_step_m)["plan_valid"]
        counts.append((len(set(routes)), len({one for one, good in zip(routes, valid, strict=True) if good})))
    return counts
