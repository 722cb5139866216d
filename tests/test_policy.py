import numpy as np
import pytest

from planner.policy import control, reference


def test_the_reference_meets_every_waypoint_and_is_straight_between():
    plans = np.random.default_rng(0).normal(size=(3, 5, 4))
    along = reference(plans, stride=4)
    assert along.shape == (3, 17, 4)
    assert np.allclose(along[:, ::4, :2], plans[..., :2])
    assert np.allclose(along[:, 2, :2], plans[:, :2, :2].mean(1))
    assert np.allclose(along[:, 4, 2:], plans[:, 1, 2:])


def test_the_reference_rests_at_its_end():
    assert (reference(np.ones((1, 3, 4)), stride=2)[:, -1, 2:] == 0).all()


def test_the_controller_pushes_to_the_reference_and_stays_in_the_action_space():
    states = np.zeros((2, 4))
    target = np.array([[0.02, -0.01, 0.0, 0.3], [5.0, -5.0, 0.0, 0.0]])
    actions = control(states, target)
    assert actions.dtype == np.float32
    assert actions[0] == pytest.approx([0.2, 0.2])
    assert actions[1] == pytest.approx([1, -1])
