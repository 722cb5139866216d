import numpy as np
import pytest
from wanted import OGBENCH_MAPS

from envs.maps import get_map
from envs.point_maze import make_env
from envs.side_by_side import SideBySide
from envs.worlds import OGBENCH


@pytest.mark.parametrize("name", ["umaze", "hash", *OGBENCH_MAPS])
def test_balls_side_by_side_move_as_in_environments_of_their_own_bit_for_bit(name):
    """Full pushes in changing directions, so that they hit walls and the speed limit, where there is one."""
    maze, count, steps = get_map(name), 4, 250
    environments = [make_env(maze, disable_env_checker=True) for _ in range(count)]
    starts = [environment.reset(seed=index)[0]["observation"] for index, environment in enumerate(environments)]
    spare = make_env(maze, disable_env_checker=True)
    balls = SideBySide(spare, np.array(starts))
    rng, touched, fastest = np.random.default_rng(0), 0, 0.0
    for step in range(steps):
        if step % 40 == 0:
            actions = rng.uniform(-1.5, 1.5, size=(count, 2)).astype(np.float32)
        states, contact = balls.step(actions)
        for index, environment in enumerate(environments):
            observation, *_ = environment.step(actions[index])
            assert (states[index] == observation["observation"]).all()
            assert contact[index] == environment.unwrapped.wall_contact
        touched, fastest = touched + contact.sum(), max(fastest, np.abs(states[:, 2:]).max(initial=0.0))
    assert touched > 50
    assert fastest > 4.5 or maze.world == OGBENCH
    for environment in [spare, *environments]:
        environment.close()


def test_balls_do_not_feel_each_other():
    maze = get_map("umaze")
    env = make_env(maze, disable_env_checker=True)
    start = np.array([*maze.cell_to_xy((1, 1)), 0.0, 0.0])
    alone, together = SideBySide(env, start[None]), SideBySide(env, np.tile(start, (3, 1)))
    for _ in range(60):
        (one,), _ = alone.step(np.float32([[1, 0.2]]))
        three, _ = together.step(np.float32([[1, 0.2]] * 3))
        assert (three == one).all()
    env.close()


def test_balls_that_are_not_to_move_stay_and_touch_nothing():
    maze = get_map("umaze")
    env = make_env(maze, disable_env_checker=True)
    starts = np.array([[*maze.cell_to_xy((1, 1)), 0.0, 0.0]] * 2)
    balls = SideBySide(env, starts)
    for _ in range(60):
        states, contact = balls.step(np.float32([[-1, 0]] * 2), np.array([False, True]))
    assert (states[0] == starts[0]).all()
    assert states[1, 0] < starts[1, 0]
    assert contact.tolist() == [False, True]
    env.close()
