"""Two experts that walk a maze: one hurries from cell to cell, one follows a moving set point.

Full action accelerates the ball (4.2 kg, 100 N) by 24 m/s²; the tracking law below is a spring of 15 rad/s
damped at 0.8 of critical, so a reference that accelerates by a m/s² is missed by a/239 m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.maze_map import Cell, MazeMap
from envs.settings import PathOrder
from envs.worlds import POINT_MAZE

DT_S = POINT_MAZE.dt_s

PROPORTIONAL_GAIN = 10.0
SPEED_RANGE = (1.5, 4.0)
"""Cruising speeds of the set point, m/s."""
SPEED_DRIFT = 0.15
"""Between two cells the cruising speed changes by up to this share, within the range."""
BEND_SPEED = 1.5
"""Largest speed of the set point on the segments before and after a right-angled bend, m/s."""
PAUSE_PROBABILITY = 0.3
PAUSE_RANGE_S = (0.1, 0.8)
START_DWELL_RANGE_S = (0.0, 0.1)
GOAL_DWELL_RANGE_S = (0.4, 0.8)


def tracking_action(
    target: np.ndarray, target_velocity: np.ndarray, position: np.ndarray, velocity: np.ndarray
) -> np.ndarray:
    """The tracking law a = clip(10 (x_ref − x) + (v_ref − v), −1, 1); all (..., 2), metres and m/s."""
    return np.clip(PROPORTIONAL_GAIN * (target - position) + (target_velocity - velocity), -1.0, 1.0)


@dataclass(frozen=True)
class Reference:
    """A moving set point, one row per environment step: positions (T, 2) in m, velocities (T, 2) in m/s."""

    positions: np.ndarray
    velocities: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)


class WaypointExpert:
    """Minari's recipe for D4RL's pointmaze sets: accelerate towards the next cell of a path, then the next.

    Args:
        maze: the maze.
        order: ``breadth`` takes a shortest path, ``depth`` the first path that a depth-first search finds.
        action_noise: standard deviation of the Gaussian noise that is added before clipping.
        rng: draws the noise, and which of several paths is taken.
    """

    THRESHOLD_M = 0.1
    """A waypoint counts as reached within this distance."""

    def __init__(
        self,
        maze: MazeMap,
        rng: np.random.Generator,
        order: PathOrder = "breadth",
        action_noise: float = 0.5,
    ):
        self.maze, self.order, self.action_noise, self.rng = maze, order, action_noise, rng
        self._waypoints: list[list[float]] = []

    def aim(self, position: np.ndarray, goal: np.ndarray) -> None:
        """Plans from a position to a goal, both (2,) in metres."""
        cells = _cells_between(self.maze, position, goal, self.order, self.rng)
        self._waypoints = [*_centres(self.maze, cells[1:-1]).tolist(), goal.tolist()]

    def action(self, observation: np.ndarray) -> np.ndarray:
        """The action (2,), float32 in [−1, 1], for an observation (x, y, vx, vy)."""
        x, y, velocity_x, velocity_y = observation.tolist()
        target_x, target_y = self._waypoints[0]
        near = (target_x - x) ** 2 + (target_y - y) ** 2 <= self.THRESHOLD_M**2
        if near and len(self._waypoints) > 1:
            self._waypoints.pop(0)
            target_x, target_y = self._waypoints[0]
        pull = np.array([target_x - x, target_y - y])
        action = PROPORTIONAL_GAIN * pull - np.array([velocity_x, velocity_y])
        action += self.rng.normal(scale=self.action_noise, size=2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)


class SetPointExpert:
    """Follows a set point along the path, which varies its speed and sometimes stops at a crossing.

    So the data hold every piece of a turn (arriving, standing, leaving each way), but no turn unless the path
    has one.

    Args:
        maze: the maze.
        rng: draws speeds, pauses, dwells, noise, and which of several paths is taken.
        order: as for :class:`WaypointExpert`.
        action_noise: standard deviation of the Gaussian noise that is added before clipping.
    """

    def __init__(
        self,
        maze: MazeMap,
        rng: np.random.Generator,
        order: PathOrder = "breadth",
        action_noise: float = 0.1,
    ):
        self.maze, self.order, self.action_noise, self.rng = maze, order, action_noise, rng

    def reference(self, start: np.ndarray, goal: np.ndarray) -> Reference:
        """A new set point's way from rest at the start to rest at the goal, both (2,) in metres."""
        cells = _cells_between(self.maze, start, goal, self.order, self.rng)
        corners = np.concatenate([start[None], _centres(self.maze, cells[1:-1]), goal[None]])
        stops = {
            index: self.rng.uniform(*PAUSE_RANGE_S)
            for index, cell in enumerate(cells[1:-1], start=1)
            if self.maze.is_crossing(cell) and self.rng.random() < PAUSE_PROBABILITY
        }
        cruise = self._cruising_speeds(len(corners) - 1)
        pieces = [_stand(start, self.rng.uniform(*START_DWELL_RANGE_S))]
        first = 0
        for stop in [*stops, len(corners) - 1]:
            pieces.append(_travel(corners[first : stop + 1], cruise[first:stop]))
            pieces.append(_stand(corners[stop], stops.get(stop, 0.0)))
            first = stop
        pieces.append(_stand(goal, self.rng.uniform(*GOAL_DWELL_RANGE_S)))
        return Reference(
            np.concatenate([piece.positions for piece in pieces]),
            np.concatenate([piece.velocities for piece in pieces]),
        )

    def noise(self, steps: int) -> np.ndarray:
        """Action noise for that many steps, (steps, 2)."""
        return self.rng.normal(scale=self.action_noise, size=(steps, 2))

    def _cruising_speeds(self, segments: int) -> np.ndarray:
        speeds = np.empty(segments)
        speed = self.rng.uniform(*SPEED_RANGE)
        for index in range(segments):
            speeds[index] = speed
            speed = np.clip(speed * self.rng.uniform(1 - SPEED_DRIFT, 1 + SPEED_DRIFT), *SPEED_RANGE)
        return speeds


def _cells_between(
    maze: MazeMap, start: np.ndarray, goal: np.ndarray, order: PathOrder, rng: np.random.Generator
) -> list[Cell]:
    (first_row, first_column), (last_row, last_column) = maze.xy_to_cell(np.stack([start, goal])).tolist()
    return maze.shortest_path((first_row, first_column), (last_row, last_column), order, rng)


def _centres(maze: MazeMap, cells: list[Cell]) -> np.ndarray:
    return maze.cell_to_xy(np.reshape(cells, (-1, 2)))


def _stand(position: np.ndarray, duration_s: float) -> Reference:
    steps = round(duration_s / DT_S)
    return Reference(np.tile(position, (steps, 1)), np.zeros((steps, 2)))


def _travel(corners: np.ndarray, cruise: np.ndarray) -> Reference:
    """Along the corners at one speed per segment: it starts, bends and stops at once, though the ball does not."""
    segments = np.diff(corners, axis=0)
    lengths = np.linalg.norm(segments, axis=1)
    directions = segments / np.maximum(lengths, 1e-9)[:, None]
    bends = np.linalg.norm(np.diff(directions, axis=0), axis=1) > 1.0
    beside_bend = np.concatenate([bends, [False]]) | np.concatenate([[False], bends])
    cruise = np.where(beside_bend, np.minimum(cruise, BEND_SPEED), cruise)
    reached_s = np.concatenate([[0.0], np.cumsum(lengths / cruise)])
    time_T = np.arange(DT_S, reached_s[-1] + DT_S, DT_S).clip(max=reached_s[-1])
    segment_T = np.clip(np.searchsorted(reached_s, time_T, side="right") - 1, 0, len(segments) - 1)
    velocities = (cruise[:, None] * directions)[segment_T]
    return Reference(corners[segment_T] + (time_T - reached_s[segment_T])[:, None] * velocities, velocities)
