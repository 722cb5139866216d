"""Measures of a plan that success hides: jumps at what was conditioned, steps too long, paths through walls.

Definitions: the docs' metric glossary. Shapes: N plans, H points, positions in metres.
"""

from __future__ import annotations

import numpy as np

from envs.geometry import points_free, segments_free
from envs.maps import MazeMap

BODY_RADIUS_M = 0.08
"""The ball's radius is 0.1; pressed into a wall, the contact gives way by up to 0.02 m."""

LONGEST_VALID_STEP = 2.0
"""A valid plan's longest step, in multiples of the training split's longest."""


def plan_measures(positions_NHX: np.ndarray, maze: MazeMap, data_longest_step_m: float) -> dict[str, np.ndarray]:
    """What a plan is worth before it is executed.

    Args:
        positions_NHX: (N, H, 2) planned positions in metres, H ≥ 2.
        maze: the walls.
        data_longest_step_m: longest step of the training split at the same stride.

    Returns:
        Arrays (N,): ``longest_step`` (multiple of the data's longest), ``end_gap`` (metres: the larger of the
        first and the last step), ``free_share`` (of the points, for a body of radius 0.08 m) and
        ``plan_valid`` (every segment free for that body and the longest step at most twice the data's).
    """
    steps = np.linalg.norm(np.diff(positions_NHX, axis=1), axis=-1)
    longest_step = steps.max(1) / data_longest_step_m
    free = segments_free(maze, positions_NHX[:, :-1], positions_NHX[:, 1:], BODY_RADIUS_M).all(1)
    return {
        "longest_step": longest_step,
        "end_gap": np.maximum(steps[:, 0], steps[:, -1]),
        "free_share": points_free(maze, positions_NHX, BODY_RADIUS_M).mean(1),
        "plan_valid": free & (longest_step <= LONGEST_VALID_STEP),
    }


def path_length_m(positions_NHX: np.ndarray) -> np.ndarray:
    """Lengths (…,) of paths (…, H, 2), in metres."""
    return np.linalg.norm(np.diff(positions_NHX, axis=-2), axis=-1).sum(-1)


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
