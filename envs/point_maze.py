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
import numpy as np
from gymnasium.utils.ezpickle import EzPickle

from envs.geometry import require_free
from envs.maps import DT_S as DT_S
from envs.maps import MazeMap, get_map, map_from_rows, map_names
from groundwork.errors import UserError

with contextlib.redirect_stderr(io.StringIO()):  # on import it prints news about its robot hands
    from gymnasium_robotics.envs.maze.maze_v4 import MazeEnv
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

SUCCESS_RADIUS_M = 0.45

CUSTOM_ID = "maze/custom-v0"
RESET_OPTIONS = ("start_cell", "reset_cell", "goal_cell", "start_xy", "goal_xy")
EXCLUSIVE_OPTIONS = (
    ("start_cell", "reset_cell"),
    ("start_cell", "start_xy"),
    ("reset_cell", "start_xy"),
    ("goal_cell", "goal_xy"),
)


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
        rows: the map, see :class:`envs.maps.MazeMap`.
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
        options = {key: value for key, value in (options or {}).items() if value is not None}
        cells, start_xy, goal_xy = self._read_options(options)
        observation, info = super().reset(seed=seed, options=cells or None)
        if goal_xy is None and start_xy is None:
            return observation, info
        if goal_xy is not None:
            self.set_goal(goal_xy)
        if start_xy is not None:
            self.reset_pos = start_xy
            self.point_env.set_state(start_xy, np.zeros(2))
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
        ended = (np.linalg.norm(achieved_goal - desired_goal, axis=-1) <= SUCCESS_RADIUS_M) & (not self.continuing_task)
        return ended if ended.ndim else bool(ended)

    def compute_truncated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """Never, for each goal (…, 2): a bool, or bools (…); the time limit is the wrapper's."""
        never = np.zeros(np.shape(achieved_goal)[:-1], bool)
        return never if never.ndim else False

    def set_goal(self, xy: Any) -> None:
        """Moves the goal to an exact position in metres; it shows in the next observation."""
        self.goal = self._free_position(xy, "goal_xy")
        self.update_target_site_pos()

    @property
    def wall_contact(self) -> bool:
        """Whether the ball touched a wall in the last step.

        MuJoCo looks for contacts before it moves the ball, so this is the contact that acted on the step.
        The ground, which the ball always touches, does not count.
        """
        return bool(self.is_block[self.data.contact.geom].any())

    def _is_reached(self, xy: np.ndarray) -> bool:
        return bool(np.linalg.norm(xy - self.goal) <= SUCCESS_RADIUS_M)

    def _read_options(
        self, options: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
        """Splits checked options into the library's cells, an exact start and an exact goal."""
        unknown = [key for key in options if key not in RESET_OPTIONS]
        if unknown:
            raise UserError(f"reset option {unknown[0]!r}: unknown; allowed: {', '.join(RESET_OPTIONS)}")
        for one, other in EXCLUSIVE_OPTIONS:
            if one in options and other in options:
                raise UserError(f"reset options {one!r} and {other!r}: give one of them")
        cells = {
            key.replace("start", "reset"): np.array(self.maze_layout.require_free(options[key], key))
            for key in ("start_cell", "reset_cell", "goal_cell")
            if key in options
        }
        start_xy = self._free_position(options["start_xy"], "start_xy") if "start_xy" in options else None
        goal_xy = self._free_position(options["goal_xy"], "goal_xy") if "goal_xy" in options else None
        return cells, start_xy, goal_xy

    def _free_position(self, xy: Any, name: str) -> np.ndarray:
        try:
            position = np.array(xy, dtype=float)
        except (TypeError, ValueError):
            position = np.array(np.nan)
        if position.shape != (2,):
            raise UserError(f"{name}: {xy!r} is no position; allowed: two numbers x, y in metres")
        require_free(self.maze_layout, position, name)
        return position


def register_envs() -> None:
    """Registers ``maze/NAME-v0`` for every shipped map and ``maze/custom-v0``, which takes ``rows=[...]``."""
    entry_point = f"{PointMaze.__module__}:{PointMaze.__name__}"
    for name in map_names():
        if f"maze/{name}-v0" not in gymnasium.registry:
            maze = get_map(name)
            gymnasium.register(
                f"maze/{name}-v0",
                entry_point=entry_point,
                max_episode_steps=maze.episode_limit,
                kwargs={"rows": list(maze.rows)},
            )
    if CUSTOM_ID not in gymnasium.registry:
        gymnasium.register(CUSTOM_ID, entry_point=entry_point)


def make_env(maze: MazeMap, **kwargs: Any) -> gymnasium.Env:
    """The environment of any maze.

    Args:
        maze: a :class:`envs.maps.MazeMap`, shipped or a user's.
        **kwargs: for :func:`gymnasium.make`.
    """
    if maze.name in map_names() and get_map(maze.name).rows == maze.rows:
        return gymnasium.make(f"maze/{maze.name}-v0", max_episode_steps=maze.episode_limit, **kwargs)
    return gymnasium.make(CUSTOM_ID, max_episode_steps=maze.episode_limit, rows=list(maze.rows), **kwargs)


register_envs()
