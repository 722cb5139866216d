"""What a random policy and the expert earn on this environment: the ends 0 and 100 of a score.

D4RL's own ends were measured on its own simulation, start noise and controller. These are measured here, by
``maze-data references``, and shipped in ``references.json``.

A return is D4RL's: the number of steps that end within 0.5 m of the goal, over the map's episode limit and without
an end at the goal. *single_task* has D4RL's goal and any start, *multi_task* any goal and any other start.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from envs.expert import WaypointExpert
from envs.maze_map import Cell, MazeMap
from envs.point_maze import PointMaze, make_env
from groundwork.errors import UserError

Protocol = Literal["single_task", "multi_task"]
Policy = Literal["random", "expert"]

SINGLE_TASK_GOALS: dict[str, Cell] = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}
"""D4RL's goals, marked G in its maps."""
SCORE_TOLERANCE_M = 0.5
SHIPPED = Path(__file__).with_name("references.json")


def score_pairs(maze: MazeMap, protocol: Protocol) -> list[tuple[Cell, Cell]]:
    """All (start, goal) of a protocol.

    Raises:
        UserError: single_task on a map for which D4RL has no goal.
    """
    pairs = list(itertools.permutations(maze.free_cells, 2))
    match protocol:
        case "single_task":
            if maze.name not in SINGLE_TASK_GOALS:
                raise UserError(f"tasks: single_task has a goal on {', '.join(SINGLE_TASK_GOALS)}, not on {maze.name}")
            return [pair for pair in pairs if pair[1] == SINGLE_TASK_GOALS[maze.name]]
        case "multi_task":
            return pairs


def measure_references(maze: MazeMap, episodes: int, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """Mean returns of both policies in each protocol that the map has.

    Episodes go round the pairs of start and goal in random order, so that each pair comes about equally often.

    Args:
        maze: the map.
        episodes: per policy and protocol.
        seed: of everything that is drawn.
        progress: whether to show a bar on standard error.

    Returns:
        ``{"episode_limit", "episodes", "seed", PROTOCOL: {POLICY: {"mean", "standard_error"}}}``.

    Raises:
        UserError: fewer than two episodes.
    """
    if episodes < 2:
        raise UserError(f"episodes: {episodes}; allowed: a whole number from 2")
    protocols = [name for name in get_args(Protocol) if name != "single_task" or maze.name in SINGLE_TASK_GOALS]
    result: dict[str, Any] = {"episode_limit": maze.episode_limit, "episodes": episodes, "seed": seed}
    env = make_env(maze)
    physics = env.unwrapped
    assert isinstance(physics, PointMaze)
    total = episodes * len(protocols) * len(get_args(Policy))
    try:
        with tqdm(total=total, unit="episode", desc=maze.name, disable=not progress) as bar:
            for protocol in protocols:
                result[protocol] = {}
                for policy in get_args(Policy):
                    rng = np.random.default_rng(seed)
                    returns = []
                    for start, goal in _rounds(score_pairs(maze, protocol), episodes, rng):
                        returns.append(_return(physics, maze, policy, start, goal, rng))
                        bar.update()
                    error = float(np.std(returns, ddof=1) / np.sqrt(episodes))
                    result[protocol][policy] = {"mean": float(np.mean(returns)), "standard_error": error}
    finally:
        env.close()
    return result


def _rounds(pairs: list[tuple[Cell, Cell]], count: int, rng: np.random.Generator) -> list[tuple[Cell, Cell]]:
    rounds = -(-count // len(pairs))
    return [pairs[index] for _ in range(rounds) for index in rng.permutation(len(pairs))][:count]


def _return(env: PointMaze, maze: MazeMap, policy: Policy, start: Cell, goal: Cell, rng: np.random.Generator) -> int:
    """Steps of one episode that end within 0.5 m of the goal."""
    seed = int(rng.integers(2**31))
    observation = env.reset(seed=seed, options={"start_cell": start, "goal_cell": goal})[0]
    goal_xy, state = observation["desired_goal"], observation["observation"]
    expert = WaypointExpert(maze, rng, action_noise=0.0)
    expert.aim(state[:2], goal_xy)
    (goal_x, goal_y), near = goal_xy.tolist(), 0
    for _ in range(maze.episode_limit):
        match policy:
            case "random":
                action = rng.uniform(-1, 1, size=2).astype(np.float32)
            case "expert":
                action = expert.action(state)
        # The registered environment's own physics, without the reward and info that nobody reads here.
        state = env.point_env.step(action)[0]
        near += (state[0] - goal_x) ** 2 + (state[1] - goal_y) ** 2 <= SCORE_TOLERANCE_M**2
    return near


@cache
def _shipped() -> dict[str, Any]:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def reference_returns(maze: MazeMap, protocol: str) -> tuple[float, float] | None:
    """The shipped mean returns (random, expert) of a map, or ``None`` where none were measured at its limit."""
    known = _shipped().get(maze.name)
    if known is None or known["episode_limit"] != maze.episode_limit or protocol not in known:
        return None
    return known[protocol]["random"]["mean"], known[protocol]["expert"]["mean"]
