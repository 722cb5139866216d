"""D4RL's old maze2d files (HDF5, one long stream of steps) as Minari datasets like our collections.

What is decided where the file leaves it open:

* Axes. D4RL's first coordinate runs down the map's rows and its second along the columns, with the centre of cell
  (row, column) at (row − 0.2, column − 0.2); positions, velocities, actions and goals are turned into ours.
* States come from ``infos/qpos`` and ``infos/qvel``: after each goal, ``observations`` repeats the row before.
* An episode ends where the goal changes, at a timeout, at a terminal, and where the ball leaps farther than a step
  can take it. A file need not have timeouts or terminals: what it has, and its goals, tell the ends.
* The row behind an episode's end is its last observation if a step reaches it; otherwise the last action, whose
  outcome is not in the file, is left out. It is left out at a terminal, too: behind one, another episode begins.
  Episodes end truncated, as in our collections.
* Rewards are the file's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import minari
import numpy as np

from envs import dataset_folder
from envs.converted_arrays import check_arrays, require_on_map
from envs.dataset_writing import episode_buffer, metadata, write_dataset
from envs.maps import get_map
from envs.maze_map import MazeMap
from envs.point_maze import make_env
from groundwork.errors import UserError

WIDTHS = {
    "observations": 4,
    "actions": 2,
    "rewards": None,
    "terminals": None,
    "timeouts": None,
    "infos/goal": 2,
    "infos/qpos": 2,
    "infos/qvel": 2,
}
"""The arrays of a file and their columns; ``None``: one number per step."""
ENDS = ("terminals", "timeouts")
"""Files of other generators lack one of these, or both."""
CELL_CENTRE_OFFSET_M = 0.2
LEAP_M = 0.1
"""Twice what the fastest ball covers in a step."""


def map_of_file(path: Path) -> MazeMap:
    """The map that a file's name tells, as in ``maze2d-umaze-sparse-v1.hdf5``.

    Raises:
        UserError: it tells none.
    """
    for name in ("umaze", "medium", "large"):
        if name in path.name:
            return get_map(name)
    raise UserError(f"map: the name of {path} tells none of umaze, medium, large; allowed: --map NAME")


def convert(
    path: Path, dataset_id: str, maze: MazeMap, overwrite: bool = False, progress: bool = True
) -> minari.MinariDataset:
    """Writes a D4RL file as a Minari dataset; see the head of this module for what is decided.

    Args:
        path: the HDF5 file.
        dataset_id: Minari's id, such as ``mazes/umaze-d4rl-v1``.
        maze: the map that the ball moved in.
        overwrite: whether to replace a dataset of that id, once the new one is whole.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: an id that is taken, a file that is damaged, of another layout or another map, or that holds
            values that are not finite.
    """
    dataset_folder.require_vacant(dataset_id, overwrite)
    steps = _read(path)
    states, actions, goals = _in_our_axes(steps, maze)
    require_on_map(path, states[:, :2], maze)
    spans = _episodes(steps, states)
    if not spans:
        raise UserError(f"{path} holds no episode of a step or more")
    rewards = steps["rewards"].astype(float)
    episodes = (
        episode_buffer(states[first : last + 1], actions[first:last], rewards[first:last], goals[first], maze)
        for first, last in spans
    )
    description = f"Converted from D4RL's {path.name}, in the axes of Gymnasium-Robotics."
    about = metadata(dataset_id, maze, "D4RL's waypoint controller", description, "converted")
    total = sum(last - first for first, last in spans)
    return write_dataset(make_env(maze), about, episodes, total, overwrite, progress)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays, all of one length; a layout that does not fit is a :class:`UserError`."""
    if not path.is_file():
        raise UserError(f"{path} is no file")
    try:
        with h5py.File(path) as file:
            absent = [name for name in WIDTHS if not isinstance(file.get(name), h5py.Dataset)]
            missing = [name for name in absent if name not in ENDS or name in file]
            if missing:
                raise UserError(f"{path} has no {', '.join(missing)}: it is not of D4RL's maze2d layout")
            steps = {name: np.atleast_1d(file[name]) for name in WIDTHS if name not in absent}
    except OSError as error:
        raise UserError(f"{path} is damaged or no HDF5 file ({' '.join(str(error).split())})") from error
    steps |= {name: np.zeros(len(steps["observations"]), bool) for name in absent}
    check_arrays(path, steps, WIDTHS, "D4RL's maze2d layout")
    return steps


def _in_our_axes(steps: dict[str, np.ndarray], maze: MazeMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (N, 4), actions (N, 2) as float32, and goals (N, 2), in our axes."""

    def turned(vectors: np.ndarray) -> np.ndarray:
        return np.stack([vectors[:, 1], -vectors[:, 0]], axis=1)

    def placed(points: np.ndarray) -> np.ndarray:
        return maze.cell_to_xy(points.astype(float) + CELL_CENTRE_OFFSET_M)

    states = np.concatenate([placed(steps["infos/qpos"]), turned(steps["infos/qvel"].astype(float))], axis=1)
    actions = np.clip(turned(steps["actions"]), -1, 1).astype(np.float32)
    return states, actions, placed(steps["infos/goal"])


def _episodes(steps: dict[str, np.ndarray], states: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) observation of each episode; between them lie last − first ≥ 1 steps."""
    leaps = np.linalg.norm(np.diff(states[:, :2], axis=0), axis=1) > LEAP_M
    new_goal = (np.diff(steps["infos/goal"], axis=0) != 0).any(1)
    terminal, timeout = (steps[name].astype(bool)[:-1] for name in ENDS)
    begins = np.concatenate([[0], np.flatnonzero(leaps | new_goal | terminal | timeout) + 1, [len(states)]])
    return list(_spans(begins.tolist(), leaps | terminal))


def _spans(begins: list[int], breaks: np.ndarray) -> Iterator[tuple[int, int]]:
    for begin, behind in zip(begins, begins[1:], strict=False):
        follows = behind <= len(breaks) and not breaks[behind - 1]
        last = behind if follows else behind - 1
        if last > begin:
            yield begin, last
