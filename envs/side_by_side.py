"""Many balls in one maze at once, each as its environment would move it, bit for bit.

A Gymnasium environment per episode spends more than nine tenths of a step outside MuJoCo (wrappers, rewards, infos),
and building it takes longer than an episode. Here all balls share one compiled model.
"""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np

from envs.ogbench_maze import OGBenchMaze
from envs.point_maze import PointMaze


class SideBySide:
    """N independent balls in the maze of one environment.

    Args:
        env: gives the compiled model and how a ball moves; its own ball is left alone.
        states_NS: positions, and velocities where the world has them, to start from, in metres and metres per second.
    """

    def __init__(self, env: gymnasium.Env, states_NS: np.ndarray):
        physics = env.unwrapped
        assert isinstance(physics, PointMaze | OGBenchMaze)
        self._model, self._is_block, self._move = physics.model, physics.is_block, physics.move
        self.track = physics.track
        """States and references (N, S) → the actions (N, 2) that lead there."""
        self._states_NS = np.array(states_NS, dtype=float)
        self._balls = [mujoco.MjData(self._model) for _ in states_NS]
        for ball, state in zip(self._balls, self._states_NS, strict=True):
            ball.qpos[:], ball.qvel[: len(state) - 2] = state[:2], state[2:]
            mujoco.mj_forward(self._model, ball)

    def step(self, actions_N2: np.ndarray, moving_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Moves every ball by one environment step.

        Args:
            actions_N2: in [−1, 1]; what lies outside is clipped.
            moving_N: bool, the balls to move; the others stay where they are and touch nothing. By default all.

        Returns:
            States (N, S) after the step, and (N,) bool, whether each ball touched a wall in it.
        """
        actions = np.clip(actions_N2, -1.0, 1.0)
        contact = np.zeros(len(self._balls), dtype=bool)
        for index in np.flatnonzero(np.ones_like(contact) if moving_N is None else moving_N):
            ball, state = self._balls[index], self._states_NS[index]
            self._move(self._model, ball, actions[index])
            state[:2], state[2:] = ball.qpos, ball.qvel[: len(state) - 2]
            contact[index] = self._is_block[ball.contact.geom].any()
        return self._states_NS.copy(), contact
