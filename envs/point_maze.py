"""Our mazes as Gymnasium environments ``maze/NAME-v0``, on Gymnasium-Robotics' MuJoCo PointMaze.

Physics, observations, rewards and success (within 0.45 m of the goal) are the library's. Added are start and
goal by cell or by exact position, wall contact, ends of episodes for many goals at once, observations that show the
goal that now holds, and no file left behind in the temporary folder.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils.ezpickle import EzPickle

from envs.expert import tracking_action
from envs.maps import get_map, map_from_rows, map_names
from envs.maze_map import MazeMap
from envs.reset_options import free_position, read_options
from envs.worlds import OGBENCH, POINT_MAZE

with contextlib.redirect_stderr(io.StringIO()):  # on import it prints news about its robot hands
    from gymnasium_robotics.envs.maze.maze_v4 import MazeEnv
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

SPEED_LIMIT_M_S = 5.0
"""The library clips each component of the velocity to this before a step."""

CUSTOM_ID = "maze/custom-v0"


class _LeanMazeEnv(MazeEnv):
    """Shrinks the sky in the library's XML: its 11 MB take MuJoCo 90 ms to paint and each model to hold."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        tree = ElementTree.parse(self.tmp_xml_file_path)
        sky = tree.find(".//texture[@name='skybox']")
        if sky is not None:
            sky.set("width", "64")
            sky.set("height", "64")
        tree.write(self.tmp_xml_file_path)


class PointMaze(PointMazeEnv, _LeanMazeEnv):
    """A force-actuated ball in a maze that is given by its rows.

    Unlike the library's, the goal stays where it is when it is reached (``reset_target=False``).

    Args:
        rows: the map, see :class:`envs.maze_map.MazeMap`.
        render_mode: ``human``, ``rgb_array`` or ``depth_array``; ``None`` renders nothing.
        reward_type: ``sparse`` (1 within 0.45 m of the goal) or ``dense``.
        continuing_task: whether an episode goes on when the goal is reached.
        reset_target: whether a continuing task draws a new goal when one is reached.
        **kwargs: for Gymnasium's ``MujocoEnv``.
    """

    def __init__(
        self,
        rows: Sequence[str],
        render_mode: str | None = None,
        reward_type: str = "sparse",
        continuing_task: bool = True,
        reset_target: bool = False,
        **kwargs: Any,
    ):
        self.maze_layout = map_from_rows(rows)
        try:
            super().__init__(
                self.maze_layout.to_gymnasium(),
                render_mode=render_mode,
                reward_type=reward_type,
                continuing_task=continuing_task,
                reset_target=reset_target,
                **kwargs,
            )
        finally:
            # MuJoCo has compiled the model by now; the library would leave its XML file behind for ever.
            if hasattr(self, "tmp_xml_file_path"):
                Path(self.tmp_xml_file_path).unlink(missing_ok=True)
        # Pickling calls the constructor again, so it must store our arguments, not the library's.
        EzPickle.__init__(self, rows, render_mode, reward_type, continuing_task, reset_target, **kwargs)
        self.is_block = np.array(
            [self.model.geom(index).name.startswith("block_") for index in range(self.model.ngeom)]
        )

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: of the environment's generator; ``None`` goes on with it.
            options: ``start_cell`` (or the library's ``reset_cell``) and ``goal_cell``: (row, column), to
                which the library adds uniform noise of up to 0.25 m each way; ``start_xy`` and ``goal_xy``:
                exact, in metres. What is not given is drawn.

        Raises:
            UserError: an unknown option, a cell or position that is not free, or a cell beside a position.
        """
        ends = read_options(self.maze_layout, options)
        cells = {"reset_cell": ends.start_cell, "goal_cell": ends.goal_cell}
        given = {key: np.array(cell) for key, cell in cells.items() if cell is not None}
        observation, info = super().reset(seed=seed, options=given or None)
        if ends.goal_xy is None and ends.start_xy is None:
            return observation, info
        if ends.goal_xy is not None:
            self.set_goal(ends.goal_xy)
        if ends.start_xy is not None:
            self.reset_pos = ends.start_xy
            self.point_env.set_state(ends.start_xy, np.zeros(2))
        observation = self._get_obs(self.point_env.state_vector())
        info["success"] = self._is_reached(observation["achieved_goal"])
        return observation, info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """One step of 0.01 s; where it draws a new goal, the observation shows that one, and all else is of the old."""
        observation, reward, terminated, truncated, info = super().step(action)
        observation["desired_goal"] = self.goal.copy()
        return observation, reward, terminated, truncated, info

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """Whether each goal (…, 2) is reached and ends its episode: a bool, or bools (…)."""
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        ended = (distance <= POINT_MAZE.goal_tolerance_m) & (not self.continuing_task)
        return ended if ended.ndim else bool(ended)

    def compute_truncated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """Never, for each goal (…, 2): a bool, or bools (…); the time limit is the wrapper's."""
        never = np.zeros(np.shape(achieved_goal)[:-1], bool)
        return never if never.ndim else False

    def set_goal(self, xy: Any) -> None:
        """Moves the goal to an exact position in metres; it shows in the next observation."""
        self.goal = free_position(self.maze_layout, xy, "goal_xy")
        self.update_target_site_pos()

    @property
    def wall_contact(self) -> bool:
        """Whether the ball touched a wall in the last step.

        MuJoCo looks for contacts before it moves the ball, so this is the contact that acted on the step.
        The ground, which the ball always touches, does not count.
        """
        return bool(self.is_block[self.data.contact.geom].any())

    @staticmethod
    def move(model: mujoco.MjModel, ball: mujoco.MjData, action: np.ndarray) -> None:
        """Moves a ball (in place) by one step, as the library does."""
        ball.qvel[:] = np.minimum(np.maximum(ball.qvel, -SPEED_LIMIT_M_S), SPEED_LIMIT_M_S)
        mujoco.mj_forward(model, ball)
        ball.ctrl[:] = action
        mujoco.mj_step(model, ball)

    @staticmethod
    def track(states_N4: np.ndarray, reference_N4: np.ndarray) -> np.ndarray:
        """The PD controller's actions (N, 2) float32: a = clip(10 (x_ref − x) + (v_ref − v), −1, 1)."""
        position, velocity = states_N4[:, :2], states_N4[:, 2:]
        return tracking_action(reference_N4[:, :2], reference_N4[:, 2:], position, velocity).astype(np.float32)

    def _is_reached(self, xy: np.ndarray) -> bool:
        return bool(np.linalg.norm(xy - self.goal) <= POINT_MAZE.goal_tolerance_m)


def register_envs() -> None:
    """Registers ``maze/NAME-v0`` for every shipped map and ``maze/custom-v0``, which takes ``rows=[...]``."""
    entry_point = f"{PointMaze.__module__}:{PointMaze.__name__}"
    for name in map_names():
        if f"maze/{name}-v0" not in gymnasium.registry:
            maze, entry, kwargs = get_map(name), entry_point, dict[str, Any](rows=list(get_map(name).rows))
            if maze.world == OGBENCH:
                entry, kwargs = "envs.ogbench_maze:OGBenchMaze", {"maze_type": name.removeprefix(f"{OGBENCH.name}-")}
            gymnasium.register(
                f"maze/{name}-v0", entry_point=entry, max_episode_steps=maze.episode_limit, kwargs=kwargs
            )
    if CUSTOM_ID not in gymnasium.registry:
        gymnasium.register(CUSTOM_ID, entry_point=entry_point)


def make_env(maze: MazeMap, **kwargs: Any) -> gymnasium.Env:
    """The environment of any maze.

    Args:
        maze: a :class:`envs.maze_map.MazeMap`, shipped or a user's.
        **kwargs: for :func:`gymnasium.make`.
    """
    if maze.name in map_names() and get_map(maze.name).rows == maze.rows:
        return gymnasium.make(f"maze/{maze.name}-v0", max_episode_steps=maze.episode_limit, **kwargs)
    return gymnasium.make(CUSTOM_ID, max_episode_steps=maze.episode_limit, rows=list(maze.rows), **kwargs)


register_envs()
