import numpy as np
import pytest

from envs.expert import (
    DT_S,
    GOAL_DWELL_RANGE_S,
    PAUSE_RANGE_S,
    SPEED_RANGE,
    SetPointExpert,
    WaypointExpert,
    tracking_action,
)
from envs.geometry import points_free
from envs.maps import get_map
from envs.point_maze import make_env


def references(name, number=20):
    """(maze, start, goal, reference) between far cells, off their centres."""
    maze = get_map(name)
    rng = np.random.default_rng(0)
    expert = SetPointExpert(maze, rng)
    for index in range(number):
        task = maze.tasks[index % len(maze.tasks)]
        if task.start == task.goal:
            continue
        start, goal = maze.cell_to_xy([task.start, task.goal]) + rng.uniform(-0.25, 0.25, size=(2, 2))
        yield maze, start, goal, expert.reference(start, goal)


@pytest.mark.parametrize("name", ["hash", "medium"])
def test_a_reference_goes_from_rest_at_the_start_to_rest_at_the_goal_through_free_space(name):
    for maze, start, goal, reference in references(name):
        step = SPEED_RANGE[1] * DT_S
        assert np.linalg.norm(reference.positions[0] - start) <= step
        np.testing.assert_allclose(reference.positions[-1], goal, atol=1e-9)
        dwell = round(GOAL_DWELL_RANGE_S[0] / DT_S)
        assert (reference.velocities[-dwell:] == 0).all()
        assert points_free(maze, reference.positions, 0.2).all()
        assert np.linalg.norm(np.diff(reference.positions, axis=0), axis=1).max() <= step + 1e-9


def test_a_references_velocity_is_its_positions_derivative_but_where_it_jumps():
    for _, _, _, reference in references("hash"):
        derivative = np.diff(reference.positions, axis=0) / DT_S
        errors = np.linalg.norm(derivative - reference.velocities[1:], axis=1)
        assert np.quantile(errors, 0.9) < 0.01
        assert errors.max() <= SPEED_RANGE[1] + 1e-9


def test_a_reference_moves_within_the_speed_range_or_rests():
    for _, _, _, reference in references("medium"):
        speeds = np.linalg.norm(reference.velocities, axis=1)
        moving = speeds[speeds > 0]
        assert moving.min() >= SPEED_RANGE[0] - 1e-9
        assert moving.max() <= SPEED_RANGE[1] + 1e-9


def test_some_passages_pause_at_crossings_and_only_there():
    maze = get_map("hash")
    crossings = maze.cell_to_xy([cell for cell in maze.free_cells if maze.is_crossing(cell)])
    assert len(crossings) == 4
    start, goal = maze.cell_to_xy([(3, 1), (3, 9)])
    expert = SetPointExpert(maze, np.random.default_rng(0))
    pauses = 0
    for _ in range(100):
        reference = expert.reference(start, goal)
        resting = reference.positions[np.linalg.norm(reference.velocities, axis=1) == 0]
        underway = resting[(np.abs(resting - start).max(axis=1) > 0.1) & (np.abs(resting - goal).max(axis=1) > 0.1)]
        if len(underway):
            pauses += 1
            nearest = np.linalg.norm(underway[:, None] - crossings, axis=-1).min(axis=1)
            assert nearest.max() < 1e-6
            assert PAUSE_RANGE_S[0] - DT_S <= len(underway) * DT_S <= 2 * PAUSE_RANGE_S[1] + 2 * DT_S
    assert 35 <= pauses <= 67  # 1 - 0.7² = 51 of 100, three standard deviations either way


@pytest.mark.parametrize("name", ["hash", "medium"])
def test_the_ball_follows_the_reference_within_centimetres_and_hardly_touches_a_wall(name):
    env = make_env(get_map(name))
    for _, start, goal, reference in references(name, number=8):
        observation, _ = env.reset(options={"start_xy": start, "goal_xy": goal})
        errors, contacts = [], []
        for position, velocity in zip(reference.positions, reference.velocities, strict=True):
            state = observation["observation"]
            action = tracking_action(position, velocity, state[:2], state[2:]).astype(np.float32)
            observation, _, _, _, info = env.step(action)
            errors.append(np.linalg.norm(observation["achieved_goal"] - position))
            contacts.append(env.unwrapped.wall_contact)
        assert np.mean(contacts) < 0.02
        assert np.mean(errors) < 0.08  # of a reference that starts, bends and stops at once
        assert np.max(errors) < 0.42  # 4 m/s at 24 m/s² takes 0.33 m to stop
        assert info["success"]
        assert np.linalg.norm(observation["observation"][2:]) < 0.4


@pytest.mark.parametrize("order", ["breadth", "depth"])
def test_the_waypoint_expert_reaches_every_goal(order):
    maze = get_map("medium")
    env = make_env(maze)
    expert = WaypointExpert(maze, np.random.default_rng(0), order)
    for task in maze.tasks:
        start, goal = maze.cell_to_xy([task.start, task.goal])
        observation, info = env.reset(options={"start_xy": start, "goal_xy": goal})
        expert.aim(start, goal)
        steps = 0
        while not info["success"] and steps < 1500:
            action = expert.action(observation["observation"])
            assert action.dtype == np.float32
            assert np.abs(action).max() <= 1
            observation, _, _, _, info = env.step(action)
            steps += 1
        assert info["success"], task.name
