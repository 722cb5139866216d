"""Many balls in one maze at once, each as :class:`envs.point_maze.PointMaze` would move it, bit for bit.

A Gymnasium environment per episode spends more than nine tenths of a step outside MuJoCo (wrappers, rewards, infos),
and building it takes longer than an episode. Here all balls share one compiled model.
"""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np

from envs.point_maze import PointMaze

SPEED_LIMIT_M_S = 5.0
"""Gymnasium-Robotics clips each component of the velocity to this before a step."""


class SideBySide:
    """N independent balls in the maze of one environment.

    Args:
        env: gives the compiled model; its own ball is left alone.
        states_N4: positions and velocities to start from, in metres and metres per second.
    """

    def __init__(self, env: gymnasium.Env, states_N4: np.ndarray):
        physics = env.unwrapped
        assert isinstance(physics, PointMaze)
        self._model, self._is_block = physics.model, physics.is_block
        self._balls = [mujoco.MjData(self._model) for _ in states_N4]
        for ball, state in zip(self._balls, states_N4, strict=True):
            ball.qpos[:], ball.qvel[:] = state[:2], state[2:]
            mujoco.mj_forward(self._model, ball)

    def step(self, actions_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moves every ball by one environment step.

        Args:
            actions_N2: forces in [−1, 1]; what lies outside is clipped.

        Returns:
            States (N, 4) after the step, and (N,) bool, whether each ball touched a wall in it.
        """
        actions = np.clip(actions_N2, -1.0, 1.0)
        states = np.empty((len(self._balls), 4))
        contact = np.empty(len(self._balls), dtype=bool)
        for index, ball in enumerate(self._balls):
            ball.qvel[:] = np.minimum(np.maximum(ball.qvel, -SPEED_LIMIT_M_S), SPEED_LIMIT_M_S)
            mujoco.mj_forward(self._model, ball)
            ball.ctrl[:] = actions[index]
            mujoco.mj_step(self._model, ball)
            states[index, :2], states[index, 2:] = ball.qpos, ball.qvel
            contact[index] = self._is_block[ball.contact.geom].any()
        return states, contact
