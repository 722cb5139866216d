import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.geometry import points_free, segments_free
from envs.maps import get_map, map_names

coordinate = st.floats(-7, 7)
point = st.tuples(coordinate, coordinate)
radius = st.floats(0, 0.7)


def distance_to_walls(maze, xy):
    """By brute force: distance of each point to the nearest wall of the whole map, (...)."""
    centres = maze.cell_to_xy(np.argwhere(maze.walls))
    outside = np.maximum(np.abs(xy[..., None, :] - centres) - maze.world.cell_m / 2, 0)
    return np.linalg.norm(outside, axis=-1).min(axis=-1)


def lies_inside(maze, xy):
    """Whether all points lie within the outer walls' outer faces."""
    side = maze.world.cell_m / 2
    ends = maze.cell_to_xy([(0, 0), (len(maze.rows) - 1, len(maze.rows[0]) - 1)])
    return bool(np.all((xy > ends.min(0) - side) & (xy < ends.max(0) + side)))


@given(st.sampled_from(map_names()), point, point, radius)
def test_a_segment_is_free_exactly_when_all_its_points_keep_the_distance(name, start, end, radius):
    maze = get_map(name)
    start, end = np.array(start), np.array(end)
    samples = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
    nearest = distance_to_walls(maze, samples).min()
    inside = lies_inside(maze, samples)
    spacing = np.linalg.norm(end - start) / 2000
    free = bool(segments_free(maze, start, end, radius))
    if not inside or nearest <= radius:
        assert not free
    elif nearest > radius + spacing:
        assert free


@given(st.sampled_from(map_names()), point, radius)
def test_a_point_is_free_exactly_when_it_keeps_the_distance(name, xy, radius):
    maze = get_map(name)
    xy = np.array(xy)
    inside = lies_inside(maze, xy)
    nearest = distance_to_walls(maze, xy)
    if abs(nearest - radius) > 1e-9:
        assert bool(points_free(maze, xy, radius)) == (inside and nearest > radius)


@given(st.sampled_from(map_names()), point, point, radius, st.floats(0, 0.3))
def test_direction_does_not_matter_and_a_larger_disc_is_never_freer(name, start, end, radius, more):
    maze = get_map(name)
    free = segments_free(maze, start, end, radius)
    assert free == segments_free(maze, end, start, radius)
    assert free or not segments_free(maze, start, end, radius + more)
    assert not free or (points_free(maze, start, radius) and points_free(maze, end, radius))


def test_a_jump_over_a_wall_between_free_cells_is_not_free():
    maze = get_map("hash")
    ends = maze.cell_to_xy([(3, 1), (7, 1), (3, 9)])
    assert points_free(maze, ends, 0.4).all()
    assert not segments_free(maze, ends[0], ends[1], 0.0)
    assert segments_free(maze, ends[0], ends[2], 0.49)
    assert not segments_free(maze, ends[0], ends[2], 0.5)  # touching is not free


def test_the_inside_of_a_thick_wall_the_outside_and_nan_are_not_free():
    maze = get_map("hash")
    points = [[0.0, 0.0], [100.0, 0.0], [-2.0, 5.6], [np.nan, 0.0], [np.inf, 0.0]]
    assert not points_free(maze, points, 0.0).any()
    assert not segments_free(maze, points, maze.cell_to_xy((3, 3)), 0.0).any()


def test_shapes_lead_and_broadcast_and_nonsense_is_refused():
    maze = get_map("cross")
    assert points_free(maze, np.zeros((2, 3, 2)), 0.1).shape == (2, 3)
    assert segments_free(maze, np.zeros((4, 1, 2)), np.zeros((5, 2)), 0.1).shape == (4, 5)
    assert points_free(maze, np.zeros((0, 2)), 0.1).shape == (0,)
    with pytest.raises(ValueError, match="shape"):
        points_free(maze, np.zeros(3), 0.1)
    with pytest.raises(ValueError, match="radius"):
        points_free(maze, np.zeros(2), -1.0)


def test_thirty_thousand_segments_take_well_under_a_second():
    maze = get_map("large")
    rng = np.random.default_rng(0)
    start = rng.uniform(-6, 6, size=(30_000, 2))
    began = time.process_time()
    segments_free(maze, start, start + rng.uniform(-0.2, 0.2, size=start.shape), 0.08)
    assert time.process_time() - began < 0.5
