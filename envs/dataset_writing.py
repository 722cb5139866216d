"""How episodes become a Minari dataset, whoever walked them: what it tells of itself, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from tqdm import tqdm

from envs import dataset_folder
from envs.maze_map import MazeMap

EPISODES_PER_WRITE = 64


def metadata(
    dataset_id: str, maze: MazeMap, algorithm: str, description: str, recipe: str, **more: Any
) -> dict[str, Any]:
    """What a dataset tells of itself.

    Args:
        dataset_id: Minari's id.
        maze: the map, with the tasks that the episodes demonstrate.
        algorithm: what walked.
        description: behind the maze's name.
        recipe: of the demonstrations.
        more: plain values beside these.
    """
    return {
        "dataset_id": dataset_id,
        "minari_version": minari.__version__,
        "author": {"temporal-norm-planner"},
        "algorithm_name": algorithm,
        "description": f"Maze {maze.name}. {description}",
        "requirements": ["temporal-norm-planner", maze.world.requirement],
        "maze": maze.to_dict(),
        "recipe": recipe,
        **more,
    }


def write_dataset(
    env: gymnasium.Env,
    about: dict[str, Any],
    episodes: Iterable[EpisodeBuffer],
    steps: int,
    overwrite: bool = False,
    progress: bool = True,
) -> minari.MinariDataset:
    """Writes episodes as they come into a dataset that appears when it is whole, and closes the environment.

    Args:
        env: gives the spaces and the spec that ``recover_environment`` reads.
        about: see :func:`metadata`.
        episodes: with one action per step.
        steps: how many there are in all, for the bar.
        overwrite: whether to replace a dataset of that id.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: the folder cannot be written, or the id was taken meanwhile.
        OSError: the disk is full.
    """
    name, buffers = about["dataset_id"], list[EpisodeBuffer]()
    try:
        with (
            dataset_folder.written_aside(name, overwrite, env, about) as storage,
            tqdm(total=steps, unit="step", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            for episode in episodes:
                buffers.append(episode)
                bar.update(len(episode.actions))
                if len(buffers) == EPISODES_PER_WRITE:
                    storage.update_episodes(buffers)
                    buffers.clear()
            storage.update_episodes(buffers)
    finally:
        env.close()
    return minari.load_dataset(name)


def episode_buffer(
    states: np.ndarray, actions: np.ndarray, rewards: np.ndarray, goal: np.ndarray, maze: MazeMap
) -> EpisodeBuffer:
    """An episode in Minari's form; it ends truncated.

    Args:
        states: (T + 1, S) positions and, in PointMaze, velocities.
        actions: (T, 2).
        rewards: (T,).
        goal: (2,) of the whole episode.
        maze: whose world tells how near the goal is a success.
    """
    steps = len(actions)
    positions, velocities = states[:, :2], states[:, 2:]
    goals = np.tile(goal, (steps + 1, 1))
    ends = np.zeros(steps, dtype=bool)
    ends[-1] = True
    success = np.linalg.norm(positions - goals, axis=1) <= maze.world.goal_tolerance_m
    moved = {"qpos": positions, "qvel": velocities} if velocities.size else {"qpos": positions}
    return EpisodeBuffer(
        observations={"observation": states, "achieved_goal": positions, "desired_goal": goals},
        actions=actions,
        rewards=rewards,
        terminations=np.zeros(steps, dtype=bool),
        truncations=ends,
        infos={"goal": goals, **moved, "success": success},
    )
