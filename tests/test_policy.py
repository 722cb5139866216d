import numpy as np
import pytest

from envs.ogbench_maze import OGBenchMaze
from envs.point_maze import PointMaze
from planner.policy import reference, shifted


def test_the_reference_meets_every_waypoint_and_is_straight_between():
    plans = np.random.default_rng(0).normal(size=(3, 5, 4))
    along = reference(plans, stride=4, state_dim=4)
    assert along.shape == (3, 17, 4)
    assert np.allclose(along[:, ::4, :2], plans[..., :2])
    assert np.allclose(along[:, 2, :2], plans[:, :2, :2].mean(1))
    assert np.allclose(along[:, 4, 2:], plans[:, 1, 2:])


def test_the_reference_of_positions_alone_has_positions_alone():
    plans = np.random.default_rng(0).normal(size=(3, 5, 4))  # x, y and two actions
    assert np.allclose(reference(plans, stride=1, state_dim=2), plans[..., :2])


def test_the_reference_rests_at_its_end():
    assert (reference(np.ones((1, 3, 4)), stride=2, state_dim=4)[:, -1, 2:] == 0).all()


def test_the_controller_pushes_to_the_reference_and_stays_in_the_action_space():
    states = np.zeros((2, 4))
    target = np.array([[0.02, -0.01, 0.0, 0.3], [5.0, -5.0, 0.0, 0.0]])
    actions = PointMaze.track(states, target)
    assert actions.dtype == np.float32
    assert actions[0] == pytest.approx([0.2, 0.2])
    assert actions[1] == pytest.approx([1, -1])
    actions = OGBenchMaze.track(states[:, :2], target[:, :2])
    assert actions.dtype == np.float32
    assert actions[0] == pytest.approx([0.1, -0.05]), "a step of 0.2 m at full action"
    assert actions[1] == pytest.approx([1, -1])


def test_a_shifted_plan_is_the_rest_of_the_old_one_and_then_holds_its_end():
    plans = np.random.default_rng(0).normal(size=(3, 6, 5))
    assert np.allclose(shifted(plans, steps=8, stride=4, num_points=4), plans[:, 2:])
    between = shifted(plans, steps=6, stride=4, num_points=8)
    assert np.allclose(between[:, 0], plans[:, 1:3].mean(1))
    assert np.allclose(between[:, 4:], plans[:, -1:])


def test_a_shifted_plan_means_the_reference_that_was_being_followed():
    plans = np.random.default_rng(0).normal(size=(2, 6, 4))
    along = reference(shifted(plans, steps=8, stride=4, num_points=4), stride=4, state_dim=4)
    assert np.allclose(along[:, :, :2], reference(plans, stride=4, state_dim=4)[:, 8:, :2])
