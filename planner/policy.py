"""Plan → what the controller follows: the reference that a plan means, and what is left of it on the way.

Shapes: N plans, H points, L environment steps.
"""

from __future__ import annotations

import numpy as np


def reference(plans_NHD: np.ndarray, stride: int, state_dim: int) -> np.ndarray:
    """Interpolates planned points to environment steps.

    Args:
        plans_NHD: (N, H, D) plans in data units, beginning with x, y and, where states have them, vx, vy.
        stride: environment steps between planned points.
        state_dim: S, the dimensions of a state.

    Returns:
        (N, L, S) positions and velocities for L = (H − 1)·stride + 1 steps, the first at the plan's start. At
        the last one the reference rests: it is held from there on.
    """
    num_points = plans_NHD.shape[1]
    times = np.arange((num_points - 1) * stride + 1) / stride
    before = np.minimum(times.astype(int), num_points - 2)
    share = (times - before)[None, :, None]
    states = plans_NHD[..., :state_dim]
    along = (1 - share) * states[:, before] + share * states[:, before + 1]
    along[:, -1, 2:] = 0.0
    return along


def shifted(plans_NHD: np.ndarray, steps: int, stride: int, num_points: int) -> np.ndarray:
    """What is left of plans after some environment steps, as plans again.

    Args:
        plans_NHD: (N, H, D) plans in data units.
        steps: environment steps since their start; they need not be a multiple of the stride.
        stride: environment steps between planned points.
        num_points: points of the result; behind the old plan's end its last point is held.

    Returns:
        (N, num_points, D), interpolated.
    """
    last = plans_NHD.shape[1] - 1
    times = np.minimum(steps / stride + np.arange(num_points), last)
    before = np.minimum(times.astype(int), last - 1)
    share = (times - before)[None, :, None].astype(plans_NHD.dtype)
    return (1 - share) * plans_NHD[:, before] + share * plans_NHD[:, before + 1]
