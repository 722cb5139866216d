"""OGBench's pointmaze as our environments ``maze/ogbench-SIZE-v0``, and how its demonstrator walks.

Physics, success, reward and the end of an episode at the goal are OGBench's own code (Park et al., ICLR 2025), and so
are the episode limit of 1,000 steps and the noise of starts and goals. Added are start and goal by cell or by exact
position, observations that name the goal, wall contact, noise that a seed determines (OGBench draws it from NumPy's
global generator), and no file left behind in the temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Dict

from envs.maps import get_map
from envs.maze_map import Cell, MazeMap
from envs.reset_options import free_position, read_options
from envs.worlds import OGBENCH
from groundwork.errors import UserError

ORACLE = "OGBench's oracle"
"""What walked its demonstrations, as datasets name it."""
STEP_M = 0.2
"""So far one step sets the ball at full action, in x and in y."""
PHYSICS_STEPS = 5
"""Steps of MuJoCo in a step of the environment; they push the ball out of a wall again."""
LOOK_AROUND = ((-1, 0), (0, -1), (1, 0), (0, 1))
"""(rows down, columns right) in the order in which OGBench's oracle looks for the next cell."""

Observation = dict[str, np.ndarray]


class OGBenchMaze(gymnasium.Env):
    """OGBench's ball in one of its mazes.

    Args:
        maze_type: ``medium``, ``large`` or ``giant``.
        render_mode: ``rgb_array``; ``None`` renders nothing.

    Raises:
        UserError: OGBench is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, maze_type: str = "medium", render_mode: str | None = None):
        try:
            from ogbench.locomaze.maze import make_maze_env
        except ImportError as error:
            raise UserError(
                f"map {OGBENCH.name}-{maze_type} needs OGBench: pip install 'temporal-norm-planner[ogbench]'"
            ) from error
        self.maze_layout = get_map(f"{OGBENCH.name}-{maze_type}")
        self.ogbench = make_maze_env("point", "maze", maze_type=maze_type, render_mode=render_mode)
        # MuJoCo has compiled the model by now; OGBench would leave its XML file behind for ever.
        if Path(self.ogbench.fullpath).parent == Path(tempfile.gettempdir()):
            Path(self.ogbench.fullpath).unlink(missing_ok=True)
        self.render_mode, self.model = render_mode, self.ogbench.model
        self.is_block = np.array(
            [self.model.geom(index).name.startswith("block_") for index in range(self.model.ngeom)]
        )
        self.action_space = self.ogbench.action_space
        position = Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = Dict(observation=position, achieved_goal=position, desired_goal=position)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: of the environment's generator; ``None`` goes on with it.
            options: ``start_cell`` and ``goal_cell``: (row, column), to which OGBench's noise of up to 1 m each way
                is added; ``start_xy`` and ``goal_xy``: exact, in metres. What is not given is a task's, drawn.

        Raises:
            UserError: an unknown option, a cell or position that is not free, or a cell beside a position.
        """
        super().reset(seed=seed)
        ends, maze = read_options(self.maze_layout, options), self.maze_layout
        tasks = [task for task in maze.tasks if task.family.startswith("task")]
        task = tasks[self.np_random.integers(len(tasks))]
        start = ends.start_xy if ends.start_xy is not None else self._near(ends.start_cell or task.start)
        goal = ends.goal_xy if ends.goal_xy is not None else self._near(ends.goal_cell or task.goal)
        super(type(self.ogbench), self.ogbench).reset(seed=seed)  # the ball's: OGBench's own would draw the ends
        self.ogbench.set_xy(start)
        self.set_goal(goal)
        return self._observation(), {"success": self.ogbench.compute_success()}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step of OGBench's; actions beyond [−1, 1] are clipped, as its evaluation does outside the environment."""
        _, reward, terminated, truncated, info = self.ogbench.step(np.clip(action, -1.0, 1.0))
        return self._observation(), reward, terminated, truncated, {"success": bool(info["success"])}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """1 within a metre of the goal and 0 elsewhere, for each of (…, 2) positions."""
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return (distance <= OGBENCH.goal_tolerance_m).astype(float)

    def set_goal(self, xy: Any) -> None:
        """Moves the goal to an exact position in metres; it shows in the next observation."""
        self.ogbench.set_goal(goal_xy=free_position(self.maze_layout, xy, "goal_xy"))

    @property
    def wall_contact(self) -> bool:
        """Whether the ball touched a wall in the last of a step's five steps of MuJoCo."""
        return bool(self.is_block[self.ogbench.data.contact.geom].any())

    @staticmethod
    def move(model: mujoco.MjModel, ball: mujoco.MjData, action: np.ndarray) -> None:
        """Moves a ball (in place) by one step, as OGBench does: it is set farther, and physics keep it out of walls."""
        ball.qpos[:] = ball.qpos + STEP_M * action
        ball.qvel[:] = 0.0
        mujoco.mj_step(model, ball, nstep=PHYSICS_STEPS)

    @staticmethod
    def track(states_N2: np.ndarray, reference_N2: np.ndarray) -> np.ndarray:
        """The actions (N, 2) float32 that lead to the reference, or as near as one step comes in x and in y."""
        return np.clip((reference_N2 - states_N2) / STEP_M, -1.0, 1.0).astype(np.float32)

    def render(self) -> Any:
        """A picture of the maze, uint8 (height, width, 3)."""
        return self.ogbench.render()

    def close(self) -> None:
        """Frees what rendering took."""
        self.ogbench.close()

    def _near(self, cell: Cell) -> np.ndarray:
        noise = self.np_random.uniform(-OGBENCH.cell_noise_m, OGBENCH.cell_noise_m, size=2)
        return self.maze_layout.cell_to_xy(cell) + noise

    def _observation(self) -> Observation:
        xy, goal = self.ogbench.get_xy(), np.array(self.ogbench.cur_goal_xy)
        return {"observation": xy, "achieved_goal": xy.copy(), "desired_goal": goal}


def next_centers(maze: MazeMap, goal: Cell) -> np.ndarray:
    """Where OGBench's demonstrator heads from each cell, (rows, columns, 2) in metres.

    It is the center of the next cell of a shortest path to the goal's cell, the first in the order up, left, down,
    right, and in the goal's cell that cell's own.
    """
    distances = maze.distances_from(goal)
    aims_RC2 = np.indices(maze.walls.shape).transpose(1, 2, 0).copy()
    for (row, column), distance in distances.items():
        around = [(row + down, column + right) for down, right in LOOK_AROUND]
        nearer = [cell for cell in around if distances.get(cell, distance) < distance]
        aims_RC2[row, column] = nearer[0] if nearer else (row, column)
    return maze.cell_to_xy(aims_RC2)
