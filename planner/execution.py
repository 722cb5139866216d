"""Plans executed on MuJoCo: many episodes in lockstep, each ball following its plan, or plans drawn anew on the way.

Shapes: N episodes, H planned points, D transition dimensions, L environment steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.point_maze import make_env
from envs.side_by_side import SideBySide
from planner.measures import Execution
from planner.plan import Planner
from planner.policy import reference

SETTLING_STEPS = 50
"""So much longer than a plan takes is an execution of it at least."""

Replan = Callable[[int, np.ndarray], np.ndarray | None]
"""Environment steps done and states (N, S) → plans (N, H, D) to follow from here on; ``None``: go on."""


def execute(
    balls: SideBySide,
    states_NS: np.ndarray,
    plans_NHD: np.ndarray,
    stride: int,
    limit: int,
    replan: Replan | None = None,
    is_over: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Execution:
    """Follows the plans for ``limit`` steps, all episodes in lockstep.

    Args:
        balls: the episodes, which stand where ``states_NS`` says.
        states_NS: positions and velocities.
        plans_NHD: what to follow.
        stride: environment steps between planned points.
        limit: environment steps.
        replan: asked before each step; without it the plans are followed to their end.
        is_over: states (N, S) after a step → bool (N,), the episodes that end with it; without it all last to the
            limit.
    """
    states, count, state_dim = states_NS, len(states_NS), states_NS.shape[1]
    positions = np.empty((count, limit + 1, 2))
    references = np.empty((count, limit, 2))
    contact, lasted = np.zeros((count, limit), dtype=bool), np.zeros((count, limit), dtype=bool)
    moving = np.ones(count, dtype=bool)
    positions[:, 0] = states[:, :2]
    followed, begin = reference(plans_NHD, stride, state_dim), 0
    for step in range(limit):
        anew = replan(step, states) if replan and moving.any() else None
        if anew is not None:
            followed, begin = reference(anew, stride, state_dim), step
        # The action of this step should lead to the reference's next point.
        target = followed[:, min(step + 1 - begin, followed.shape[1] - 1)]
        lasted[:, step] = moving
        states, contact[:, step] = balls.step(balls.track(states, target), moving)
        positions[:, step + 1] = states[:, :2]
        references[:, step] = target[:, :2]
        if is_over is not None:
            moving = moving & ~is_over(states)
    return Execution(positions, references, contact, lasted)


def execute_one(planner: Planner, plan: np.ndarray) -> np.ndarray:
    """Executes one plan (H, D) on MuJoCo; returns the path (L + 1, 2) in metres.

    Raises:
        UserError: the planner's environment is no maze, or the plan starts in a wall.
    """
    maze, stride = planner.statistics.maze_for("executing a plan"), planner.config.data.stride
    environment = make_env(maze)
    try:
        options = {"start_xy": plan[0, :2], "goal_xy": plan[-1, :2]}
        observation, _ = environment.reset(seed=0, options=options)
        states = observation["observation"][None].copy()
        states[0, 2:] = plan[0, 2 : states.shape[1]]  # the ball starts as fast as the plan does
        limit = (len(plan) - 1) * stride + SETTLING_STEPS
        return execute(SideBySide(environment, states), states, plan[None], stride, limit).positions[0]
    finally:
        environment.close()
