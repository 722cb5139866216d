"""The kinds of world that mazes stand in: what moves there, how large a cell is, and when an episode is a success.

This is the table of them; the environments are in :mod:`envs.point_maze` and :mod:`envs.ogbench_maze`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """What holds in every maze of one kind.

    Attributes:
        name: as stored with a map.
        state_dim: what is observed: the position, and behind it the velocity where it is 4.
        cell_m: side of a cell.
        corner_m: x and y of the outer corner of the map's first cell, from where x runs along the columns and y down
            the rows; ``None``: the origin is in the middle of the map and y runs up.
        dt_s: duration of an environment step.
        cell_noise_m: starts and goals lie up to this far from a cell's center, in x and in y.
        goal_tolerance_m: the goal is reached within this distance.
        ends_at_goal: whether an episode ends there. Such a world's episode limit is its benchmark's and never grows.
        requirement: what its environments come from, as pip names it.
        body_radius_m: a point that is nearer to a wall is none that the body can be at.
    """

    name: str
    state_dim: int
    cell_m: float
    corner_m: tuple[float, float] | None
    dt_s: float
    cell_noise_m: float
    goal_tolerance_m: float
    ends_at_goal: bool
    requirement: str
    body_radius_m: float


POINT_MAZE = World(
    name="point_maze",
    state_dim=4,
    cell_m=1.0,
    corner_m=None,
    dt_s=0.01,
    cell_noise_m=0.25,
    goal_tolerance_m=0.45,
    ends_at_goal=False,
    requirement="gymnasium-robotics>=1.3",
    # The ball's radius is 0.1; pressed into a wall, the contact gives way by up to 0.02 m.
    body_radius_m=0.08,
)
"""Gymnasium-Robotics' ball that is pushed."""

OGBENCH = World(
    name="ogbench",
    state_dim=2,
    cell_m=4.0,
    corner_m=(-6.0, -6.0),
    dt_s=0.1,
    cell_noise_m=1.0,
    goal_tolerance_m=1.0,
    ends_at_goal=True,
    requirement="ogbench>=1.2.2",
    # The ball's radius is 0.7; pressed into a wall, the contact gives way by up to 0.06 m.
    body_radius_m=0.64,
)
"""OGBench's point that is set 0.2 times the action farther."""

WORLDS = {world.name: world for world in (POINT_MAZE, OGBENCH)}
