"""OGBench's own pointmaze files (NumPy's .npz) as Minari datasets like our collections.

Positions and actions are the file's, in OGBench's axes, which are our maps' of its world. A file holds, row by row::

    observations   s0 s1 … sT | s0 s1 …       (N, 2)
    actions        a0 a1 … aT | a0 a1 …       (N, 2)
    terminals       0  0 …  1 |  0  0 …       (N,)

The action of an episode's last row leads to nothing that the file holds, and is left out. The file names no goals: here
an episode's goal is where it ends, and its rewards say how near it is. ``qpos`` and ``qvel`` repeat the observations.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from envs import dataset_folder
from envs.converted_arrays import check_arrays, require_on_map
from envs.dataset_writing import episode_buffer, metadata, write_dataset
from envs.maps import get_map
from envs.maze_map import MazeMap
from envs.ogbench_maze import ORACLE
from envs.point_maze import make_env
from envs.shipped import OGBENCH_TASKS
from envs.worlds import OGBENCH
from groundwork.errors import UserError

WIDTHS = {"observations": 2, "actions": 2, "terminals": None}
"""The arrays that are read and their columns; ``None``: one number per row."""
LEAP_M = 1.0
"""Three times what a step covers at full action in x and in y."""


def map_of_npz(path: Path) -> MazeMap:
    """The map that a file's name tells, as in ``pointmaze-giant-stitch-v0.npz``.

    Raises:
        UserError: it tells none.
    """
    named = re.search(r"pointmaze-([a-z]+)-", path.name)
    name = f"{OGBENCH.name}-{named[1]}" if named else ""
    if name not in OGBENCH_TASKS:
        known = ", ".join(OGBENCH_TASKS)
        raise UserError(
            f"map: the name of {path} tells none of OGBench's pointmaze; allowed: --map with one of {known}"
        )
    return get_map(name)


def convert_npz(
    path: Path, dataset_id: str, maze: MazeMap, overwrite: bool = False, progress: bool = True
) -> minari.MinariDataset:
    """Writes a file of OGBench's pointmaze as a Minari dataset; see the head of this module for what is decided.

    Args:
        path: the .npz file.
        dataset_id: Minari's id, such as ``mazes/ogbench-medium-published-v0``.
        maze: the map that the ball moved in.
        overwrite: whether to replace a dataset of that id, once the new one is whole.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: an id that is taken, a map of another world, or a file that is damaged, of another layout or another
            map, or that holds values that are not finite.
    """
    dataset_folder.require_vacant(dataset_id, overwrite)
    if maze.world != OGBENCH:
        raise UserError(f"map: {maze.name} is none of OGBench's; allowed: {', '.join(OGBENCH_TASKS)}")
    rows = _read(path)
    ends = np.flatnonzero(rows["terminals"])
    _check_episodes(path, rows["observations"], ends, maze)
    env = make_env(maze)
    physics: Any = env.unwrapped
    begins = np.concatenate([[0], ends[:-1] + 1])
    episodes = (
        _episode(rows, begin, end, physics, maze) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    )
    recipe = "stitch" if "-stitch-" in path.name else "converted"
    about = metadata(dataset_id, maze, ORACLE, f"Converted from OGBench's {path.name}.", recipe)
    return write_dataset(env, about, episodes, int((ends - begins).sum()), overwrite, progress)


def _episode(rows: dict[str, np.ndarray], begin: int, end: int, physics: Any, maze: MazeMap) -> EpisodeBuffer:
    states = rows["observations"][begin : end + 1].astype(float)
    rewards = physics.compute_reward(states[1:], states[-1], {})
    return episode_buffer(states, rows["actions"][begin:end], rewards, states[-1], maze)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays, all of one length; a layout that does not fit is a :class:`UserError`."""
    if not path.is_file():
        raise UserError(f"{path} is no file")
    try:
        with np.load(path) as file:  # unpickles nothing
            missing = [name for name in WIDTHS if name not in file]
            rows = {name: np.atleast_1d(file[name]) for name in WIDTHS if name in file}
    except Exception as error:  # what zip and NumPy raise about a damaged file is of many kinds
        raise UserError(f"{path} is damaged or no .npz file ({' '.join(str(error).split())[:100]})") from error
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: it is not of the layout of OGBench's pointmaze")
    check_arrays(path, rows, WIDTHS, "the layout of OGBench's pointmaze")
    return rows | {"actions": np.clip(rows["actions"], -1, 1).astype(np.float32)}


def _check_episodes(path: Path, positions: np.ndarray, ends: np.ndarray, maze: MazeMap) -> None:
    """Refuses positions of another map and episodes that are not whole."""
    require_on_map(path, positions, maze)
    if not len(ends) or ends[-1] != len(positions) - 1:
        raise UserError(f"{path}: terminals does not end the last episode, in row {len(positions) - 1}")
    if (np.diff(ends, prepend=-1) < 2).any():
        raise UserError(
            f"{path}: terminals ends an episode of one row, in row {ends[np.diff(ends, prepend=-1) < 2][0]}"
        )
    leaps = np.linalg.norm(np.diff(positions, axis=0), axis=1) > LEAP_M
    leaps[ends[:-1]] = False
    if leaps.any():
        raise UserError(
            f"{path}: the ball leaps more than {LEAP_M:g} m behind row {leaps.argmax()}, which terminals does not end"
        )
