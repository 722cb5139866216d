"""Is a point, or a straight segment, free for a disc of a given radius? Exact, vectorised, memory bounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.maze_map import MazeMap
from groundwork.errors import UserError

CHUNK = 8192
"""Segments handled at once: with 100 walls the largest table is a bool array of under a megabyte."""


def points_free(maze: MazeMap, xy: Any, radius: float) -> np.ndarray:
    """Whether a disc at each point is free of every wall.

    Args:
        maze: the maze.
        xy: (..., 2) metres.
        radius: of the disc, metres, zero or more.

    Returns:
        bool (...): the distance to every wall is strictly larger than the radius. Points outside the map
        and NaN are not free.
    """
    return segments_free(maze, xy, xy, radius)


def require_free(maze: MazeMap, xy: Any, name: str) -> None:
    """Refuses points (..., 2) in metres that lie outside the maze or in a wall.

    Raises:
        UserError: the first of them, as ``name``.
    """
    points_N2 = np.asarray(xy, dtype=float).reshape(-1, 2)
    walled = points_N2[~points_free(maze, points_N2, 0.0)]
    if len(walled):
        x, y = walled[0]
        raise UserError(f"{name}: ({x:g}, {y:g}) is in no free cell; allowed: a point in a free cell")


def segments_free(maze: MazeMap, start: Any, end: Any, radius: float) -> np.ndarray:
    """Whether a disc swept along each straight segment is free of every wall.

    Args:
        maze: the maze.
        start: (..., 2) metres.
        end: (..., 2) metres; broadcast against ``start``.
        radius: of the disc, metres, zero or more.

    Returns:
        bool (...): the distance of the segment to every wall block (a closed square) is strictly larger than
        the radius. Segments with an end outside the map or NaN are not free.

    Raises:
        ValueError: a shape that does not end in 2, or a radius that is negative or not finite.
    """
    points = start is end
    start, end = np.broadcast_arrays(np.asarray(start, dtype=float), np.asarray(end, dtype=float))
    if start.ndim == 0 or start.shape[-1] != 2:
        raise ValueError(f"points of shape {start.shape}; allowed: (..., 2)")
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius {radius}; allowed: a finite number of metres, zero or more")
    start_N2, end_N2 = start.reshape(-1, 2), end.reshape(-1, 2)
    # Ends in free cells make it enough to look at the walls that touch a free cell: nothing else can be
    # reached, or come nearer, without passing one of these. They also exclude the outside and NaN.
    free_N = _in_free_cell(maze, start_N2)
    if not points:
        free_N &= _in_free_cell(maze, end_N2)
    candidates, cell_m = np.flatnonzero(free_N), maze.world.cell_m
    centres_W2 = maze.cell_to_xy(maze.touching_walls) / cell_m  # from here on a cell is a unit square
    for first in range(0, len(candidates), CHUNK):
        chunk = candidates[first : first + CHUNK]
        free_N[chunk] = ~_hits_any(start_N2[chunk] / cell_m, end_N2[chunk] / cell_m, centres_W2, radius / cell_m)
    return free_N.reshape(start.shape[:-1])


def _in_free_cell(maze: MazeMap, xy_N2: np.ndarray) -> np.ndarray:
    low, high = maze.bounds_m
    inside_N = np.all((low < xy_N2) & (xy_N2 < high), axis=-1)
    cells_N2 = maze.xy_to_cell(np.where(inside_N[:, None], xy_N2, (low + high) / 2))
    return inside_N & ~maze.walls[cells_N2[:, 0], cells_N2[:, 1]]


def _hits_any(start_N2: np.ndarray, end_N2: np.ndarray, centres_W2: np.ndarray, radius: float) -> np.ndarray:
    """Whether each segment comes within the radius of any unit square with these centres."""
    reach = 0.5 + radius
    low_N2, high_N2 = np.minimum(start_N2, end_N2) - reach, np.maximum(start_N2, end_N2) + reach
    near_NW = np.ones((len(start_N2), len(centres_W2)), dtype=bool)
    for axis in range(2):
        near_NW &= low_N2[:, None, axis] <= centres_W2[:, axis]
        near_NW &= high_N2[:, None, axis] >= centres_W2[:, axis]
    hit_N = np.zeros(len(start_N2), dtype=bool)
    segment_P, wall_P = np.nonzero(near_NW)
    # A long segment has many near walls, so the pairs are cut into pieces as well.
    for first in range(0, len(segment_P), 16 * CHUNK):
        segments, walls = segment_P[first : first + 16 * CHUNK], wall_P[first : first + 16 * CHUNK]
        centres_P2 = centres_W2[walls]
        distance_P = _distance_to_unit_square(start_N2[segments] - centres_P2, end_N2[segments] - centres_P2)
        hit_N[segments[distance_P <= radius]] = True
    return hit_N


def _distance_to_unit_square(start_P2: np.ndarray, end_P2: np.ndarray) -> np.ndarray:
    """Distance of each segment to the unit square around the origin, 0 where they meet.

    Two convex polygons that do not meet are nearest at a corner of one of them.
    """
    along_P2 = end_P2 - start_P2
    # They meet unless one of three lines separates them: vertical, horizontal, or the segment's own.
    offset_P = np.abs(along_P2[:, 0] * start_P2[:, 1] - along_P2[:, 1] * start_P2[:, 0])
    meets_P = offset_P <= 0.5 * np.abs(along_P2).sum(axis=1)
    meets_P &= np.all(np.minimum(start_P2, end_P2) <= 0.5, axis=1)
    meets_P &= np.all(np.maximum(start_P2, end_P2) >= -0.5, axis=1)
    squared_P = np.full(len(start_P2), np.inf)
    for point_P2 in (start_P2, end_P2):
        outside_P2 = np.maximum(np.abs(point_P2) - 0.5, 0.0)
        squared_P = np.minimum(squared_P, (outside_P2**2).sum(axis=1))
    length_squared_P = np.maximum((along_P2**2).sum(axis=1), np.finfo(float).tiny)
    for corner in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
        to_corner_P2 = np.array(corner) - start_P2
        share_P = np.clip((to_corner_P2 * along_P2).sum(axis=1) / length_squared_P, 0.0, 1.0)
        gap_P2 = to_corner_P2 - share_P[:, None] * along_P2
        squared_P = np.minimum(squared_P, (gap_P2**2).sum(axis=1))
    return np.where(meets_P, 0.0, np.sqrt(squared_P))
