"""Plan → actions: the reference that a plan means, and the controller that follows it.

Shapes: N plans, H points, L environment steps.
"""

from __future__ import annotations

import numpy as np

from envs.expert import tracking_action


def reference(plans_NHS: np.ndarray, stride: int) -> np.ndarray:
    """Interpolates planned points to environment steps.

    Args:
        plans_NHS: (N, H, S ≥ 4) plans in data units, beginning with x, y, vx, vy.
        stride: environment steps between planned points.

    Returns:
        (N, L, 4) positions and velocities for L = (H − 1)·stride + 1 steps, the first at the plan's start. At
        the last one the reference rests: it is held from there on.
    """
    num_points = plans_NHS.shape[1]
    times = np.arange((num_points - 1) * stride + 1) / stride
    before = np.minimum(times.astype(int), num_points - 2)
    share = (times - before)[None, :, None]
    states = plans_NHS[..., :4]
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


def control(states_N4: np.ndarray, reference_N4: np.ndarray) -> np.ndarray:
    """The PD controller a = clip(10 (x_ref − x) + (v_ref − v)), with actions in [−1, 1], as (N, 2) float32."""
    return tracking_action(reference_N4[:, :2], reference_N4[:, 2:], states_N4[:, :2], states_N4[:, 2:]).astype(
        np.float32
    )
