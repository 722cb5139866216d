"""Walks of an expert through a maze, written as a Minari dataset like D4RL's pointmaze v2.

Same seed, same data. A dataset appears under its id only when it is whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import gymnasium
import minari
import numpy as np

from envs import dataset_folder
from envs.dataset import local_id
from envs.dataset_writing import EPISODES_PER_WRITE, episode_buffer, metadata, write_dataset
from envs.expert import SetPointExpert, WaypointExpert, tracking_action
from envs.maps import get_map
from envs.maze_map import Cell, MazeMap
from envs.ogbench_maze import ORACLE, next_centers
from envs.point_maze import PointMaze, make_env
from envs.settings import PathOrder, Recipe, collection_of
from envs.side_by_side import SideBySide
from envs.splits import STITCH_CELLS, pairs_apart, stitched
from envs.worlds import OGBENCH, POINT_MAZE
from groundwork.errors import UserError

STITCH_ACTION_NOISE = 0.5
"""OGBench's noise on the actions of its stitch data."""

DESCRIPTIONS: dict[Recipe, str] = {
    "tasks": "The demonstrated tasks over and over in random order, one passage per episode, following a "
    "set point that varies its speed, sometimes pauses at a crossing, and rests at start and goal.",
    "navigate": "Random goals one after the other in one stream, cut into episodes at each goal reached, as "
    "in Minari's recipe for D4RL's pointmaze sets.",
    "stitch": f"From a random cell to one exactly {STITCH_CELLS} cells away, one passage per episode, "
    "following a set point with noisy actions.",
}
OGBENCH_STEPS = 200
"""Steps of an episode of OGBench's stitch data, which has 201 observations."""
OGBENCH_DESCRIPTION = (
    f"OGBench's recipe: for {OGBENCH_STEPS} steps from a random cell towards one exactly {STITCH_CELLS} cells away, "
    "always to the center of the next cell, at full speed with noisy actions."
)


@dataclass(frozen=True)
class Walk:
    """An episode of T steps: observations (T+1, S), as the world has them; actions (T, 2) float32; goal (2,)."""

    observations: np.ndarray
    actions: np.ndarray
    goal: np.ndarray


def collect(
    maze: MazeMap,
    recipe: Recipe,
    steps: int,
    seed: int,
    dataset_id: str,
    overwrite: bool = False,
    order: PathOrder = "breadth",
    progress: bool = True,
) -> minari.MinariDataset:
    """Collects a dataset and stores it in Minari's local folder.

    Args:
        maze: where to walk.
        recipe: ``tasks``, ``navigate`` or ``stitch``, see :data:`DESCRIPTIONS`.
        steps: environment steps in all; the last episode is cut there.
        seed: of everything that is drawn.
        dataset_id: Minari's id, such as ``mazes/hash-tasks-v0``.
        overwrite: whether to replace a dataset of that id, once the new one is whole.
        order: how the experts look for a path.
        progress: whether to show a bar on standard error.

    Raises:
        UserError: an impossible argument, an id that is taken, or a folder that cannot be written.
    """
    _check_choice("recipe", recipe, get_args(Recipe))
    _check_choice("order", order, get_args(PathOrder))
    if steps < 1:
        raise UserError(f"steps: {steps}; allowed: a whole number from 1")
    if seed < 0:
        raise UserError(f"seed: {seed}; allowed: a whole number from 0")
    dataset_folder.require_vacant(dataset_id, overwrite)
    if maze.world == OGBENCH and recipe != "stitch":
        raise UserError(f"recipe: {recipe} is no recipe of OGBench's, whose map {maze.name} is; allowed: stitch")
    env, rng = make_env(maze), np.random.default_rng(seed)
    physics: Any = env.unwrapped
    if maze.world == OGBENCH:
        walks = _ogbench_walks(env, maze, rng, -(-steps // OGBENCH_STEPS))
    else:
        walks = _walks(physics, maze, recipe, order, rng)
    episodes = (
        episode_buffer(
            walk.observations,
            walk.actions,
            physics.compute_reward(walk.observations[1:, :2], walk.goal, {}),
            walk.goal,
            maze,
        )
        for walk in _cut(walks, steps)
    )
    about = _metadata(maze, recipe, steps, seed, dataset_id, order)
    return write_dataset(env, about, episodes, steps, overwrite, progress)


def collect_missing(dataset_id: str) -> None:
    """Collects a dataset of this project's own that is not here, as its id says; leaves every other one alone."""
    wanted = collection_of(dataset_id)
    if wanted is not None and local_id(dataset_id) is None:
        collect(get_map(wanted.map), wanted.recipe, wanted.all_steps, wanted.seed, dataset_id)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}: {value!r}; allowed: {', '.join(allowed)}")


def _metadata(
    maze: MazeMap, recipe: Recipe, steps: int, seed: int, dataset_id: str, order: PathOrder
) -> dict[str, Any]:
    if maze.world == OGBENCH:
        algorithm, description = ORACLE, OGBENCH_DESCRIPTION
    else:
        expert = "WaypointExpert" if recipe == "navigate" else "SetPointExpert"
        algorithm, description = f"{expert} ({order}-first paths, PD control)", DESCRIPTIONS[recipe]
    if recipe == "stitch":
        maze = stitched(maze)
    more = {"seed": seed, "order": order, "requested_steps": steps}
    return metadata(dataset_id, maze, algorithm, description, recipe, **more)


def _walks(env: PointMaze, maze: MazeMap, recipe: Recipe, order: PathOrder, rng: np.random.Generator) -> Iterator[Walk]:
    match recipe:
        case "tasks":
            expert = SetPointExpert(maze, rng, order)
            return _passages(env, maze, expert, _task_cells(maze, rng), rng)
        case "navigate":
            return _navigate(env, maze, WaypointExpert(maze, rng, order), rng)
        case "stitch":
            expert = SetPointExpert(maze, rng, order, action_noise=STITCH_ACTION_NOISE)
            return _passages(env, maze, expert, _stitch_cells(maze, rng), rng)


def _task_cells(maze: MazeMap, rng: np.random.Generator) -> Iterator[tuple[Cell, Cell]]:
    tasks = [task for task in maze.tasks if task.split == "demonstrated"]
    while True:
        for index in rng.permutation(len(tasks)):
            yield tasks[index].start, tasks[index].goal


def _stitch_cells(maze: MazeMap, rng: np.random.Generator) -> Iterator[tuple[Cell, Cell]]:
    goals: dict[Cell, list[Cell]] = {}
    for start, goal in pairs_apart(maze, STITCH_CELLS):
        goals.setdefault(start, []).append(goal)
    starts = list(goals)
    while True:
        start = starts[rng.integers(len(starts))]
        yield start, goals[start][rng.integers(len(goals[start]))]


def _near(maze: MazeMap, cell: Cell, rng: np.random.Generator) -> np.ndarray:
    noise_m = maze.world.cell_noise_m
    return maze.cell_to_xy(cell) + rng.uniform(-noise_m, noise_m, size=2)


def _ogbench_walks(env: gymnasium.Env, maze: MazeMap, rng: np.random.Generator, episodes: int) -> Iterator[Walk]:
    """OGBench's demonstrations; who is there early goes on to the center of its goal's cell, and trembles about it."""
    cells = _stitch_cells(maze, rng)
    aims_of = {goal: next_centers(maze, goal) for goal in maze.free_cells}
    for first in range(0, episodes, EPISODES_PER_WRITE):
        pairs = list(itertools.islice(cells, min(EPISODES_PER_WRITE, episodes - first)))
        starts, goals = (np.array([_near(maze, cell, rng) for cell in ends]) for ends in zip(*pairs, strict=True))
        aims_NRC2 = np.stack([aims_of[goal] for _, goal in pairs])
        balls, states, actions = SideBySide(env, starts), [starts], []
        for _ in range(OGBENCH_STEPS):
            rows, columns = maze.xy_to_cell(states[-1]).T
            ahead = aims_NRC2[np.arange(len(pairs)), rows, columns] - states[-1]
            direction = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
            noise = rng.normal(scale=STITCH_ACTION_NOISE, size=direction.shape)
            actions.append(np.clip(direction + noise, -1.0, 1.0).astype(np.float32))
            states.append(balls.step(actions[-1])[0])
        for observations, taken, goal in zip(np.stack(states, 1), np.stack(actions, 1), goals, strict=True):
            yield Walk(observations, taken, goal)


def _passages(
    env: PointMaze,
    maze: MazeMap,
    expert: SetPointExpert,
    cells: Iterator[tuple[Cell, Cell]],
    rng: np.random.Generator,
) -> Iterator[Walk]:
    """One episode per pair of cells, from rest to rest."""
    for start_cell, goal_cell in cells:
        start, goal = _near(maze, start_cell, rng), _near(maze, goal_cell, rng)
        reset_observation, _ = env.reset(options={"start_xy": start, "goal_xy": goal})
        reference = expert.reference(start, goal)
        noise = expert.noise(len(reference))
        observation = reset_observation["observation"]
        observations, actions = [observation], []
        for position, velocity, disturbance in zip(reference.positions, reference.velocities, noise, strict=True):
            wanted = tracking_action(position, velocity, observation[:2], observation[2:]) + disturbance
            action = np.clip(wanted, -1.0, 1.0).astype(np.float32)
            # The registered environment's own physics, without the reward and info that nobody reads here.
            observation = env.point_env.step(action)[0]
            observations.append(observation)
            actions.append(action)
        yield Walk(np.array(observations), np.array(actions), goal)


def _navigate(env: PointMaze, maze: MazeMap, expert: WaypointExpert, rng: np.random.Generator) -> Iterator[Walk]:
    """One endless walk; an episode ends within 0.45 m of its goal, the next starts there, still moving."""
    cells = maze.free_cells
    start = _near(maze, cells[rng.integers(len(cells))], rng)
    observation = env.reset(options={"start_xy": start, "goal_xy": start})[0]["observation"]
    while True:
        goal = observation[:2]
        while np.linalg.norm(goal - observation[:2]) <= POINT_MAZE.goal_tolerance_m:
            goal = _near(maze, cells[rng.integers(len(cells))], rng)
        expert.aim(observation[:2], goal)
        goal_x, goal_y = goal.tolist()
        observations, actions = [observation], []
        distance_squared = np.inf
        while distance_squared > POINT_MAZE.goal_tolerance_m**2:
            action = expert.action(observation)
            observation = env.point_env.step(action)[0]
            observations.append(observation)
            actions.append(action)
            distance_squared = (observation[0] - goal_x) ** 2 + (observation[1] - goal_y) ** 2
        yield Walk(np.array(observations), np.array(actions), goal)


def _cut(walks: Iterator[Walk], steps: int) -> Iterator[Walk]:
    """Walks with ``steps`` steps in all; the last one is cut."""
    left = steps
    for walk in walks:
        yield Walk(walk.observations[: left + 1], walk.actions[:left], walk.goal)
        left -= len(walk.actions)
        if left <= 0:
            return
