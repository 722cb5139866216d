import importlib.metadata
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
from wanted import OGBENCH_MAPS, POINT_MAZE_MAPS

from envs.maps import get_map, map_from_rows
from envs.point_maze import make_env, register_envs
from groundwork.errors import UserError

ROOM = ["######", "#....#", "#....#", "######"]


@pytest.mark.parametrize("name", [*POINT_MAZE_MAPS, *OGBENCH_MAPS])
def test_every_registered_environment_passes_gymnasiums_check(name):
    check_env(gymnasium.make(f"maze/{name}-v0").unwrapped, skip_render_check=True)


def test_a_users_map_passes_gymnasiums_check():
    check_env(make_env(map_from_rows(ROOM)).unwrapped, skip_render_check=True)


def test_the_entry_point_registers_and_a_second_registration_changes_nothing():
    (entry,) = [e for e in importlib.metadata.entry_points(group="gymnasium.envs") if e.name == "maze"]
    assert entry.load() is register_envs
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_envs()
    assert dict(gymnasium.registry) == before


def test_a_fresh_process_makes_an_environment_by_module_and_id_and_prints_nothing():
    code = "import gymnasium; gymnasium.make('envs.point_maze:maze/hash-v0').reset(seed=0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""


def test_seeded_environments_stay_equal_bit_for_bit():
    pair = [gymnasium.make("maze/medium-v0") for _ in range(2)]
    for seed in (3, 4):
        observations = [env.reset(seed=seed)[0] for env in pair]
        rng = np.random.default_rng(seed)
        for _ in range(300):
            for key in observations[0]:
                assert (observations[0][key] == observations[1][key]).all()
            action = rng.uniform(-1, 1, size=2).astype(np.float32)
            observations = [env.step(action)[0] for env in pair]


def test_physics_are_the_librarys():
    maze = get_map("umaze")
    ours, library = make_env(maze).unwrapped, PointMazeEnv(maze.to_gymnasium(), reset_target=False)
    os.unlink(library.tmp_xml_file_path)
    options = {"reset_cell": np.array([1, 1]), "goal_cell": np.array([3, 1])}
    for env in (ours, library):
        env.reset(seed=5, options=options)
    rng = np.random.default_rng(0)
    for _ in range(400):
        action = np.clip(rng.normal(0.5, 1, size=2), -1, 1).astype(np.float32)
        here, there = ours.step(action), library.step(action)
        assert (here[0]["observation"] == there[0]["observation"]).all()
        assert here[1:] == there[1:]


def test_exact_start_and_goal_are_exact_and_cells_keep_the_librarys_noise():
    env = make_env(get_map("hash"))
    observation, info = env.reset(seed=0, options={"start_xy": (-4.1, 2.05), "goal_xy": [4.0, 2.0]})
    assert observation["observation"].tolist() == [-4.1, 2.05, 0.0, 0.0]
    assert observation["desired_goal"].tolist() == [4.0, 2.0]
    assert info["success"] is False
    assert env.reset(options={"start_xy": (4.0, 1.8), "goal_xy": [4.0, 2.0]})[1]["success"] is True
    for key in ("start_cell", "reset_cell"):
        observation, _ = env.reset(options={key: (3, 1), "goal_cell": (3, 9)})
        offset = np.abs(observation["achieved_goal"] - [-4.0, 2.0])
        assert (offset > 0).all()
        assert (offset <= 0.25).all()
        assert (np.abs(observation["desired_goal"] - [4.0, 2.0]) <= 0.25).all()


def test_the_goal_stays_when_it_is_reached_and_moves_on_request():
    env = make_env(get_map("cross"))
    env.reset(seed=0, options={"start_xy": (0, 0), "goal_xy": (0, 0)})
    observation, reward, terminated, _, info = env.step(np.zeros(2, dtype=np.float32))
    assert (reward, terminated, info["success"]) == (1.0, False, True)
    assert observation["desired_goal"].tolist() == [0, 0]
    env.unwrapped.set_goal((1, 0))
    observation, reward, *_ = env.step(np.zeros(2, dtype=np.float32))
    assert observation["desired_goal"].tolist() == [1, 0]
    assert reward == 0.0


def test_rewards_and_ends_of_many_goals_are_those_of_each():
    for continuing in (False, True):
        env = gymnasium.make("maze/umaze-v0", continuing_task=continuing).unwrapped
        goal = env.reset(seed=0)[0]["desired_goal"]
        reached = goal + np.array([[[0.0], [5.0]], [[0.3], [0.4]]])
        wanted = np.broadcast_to(goal, reached.shape)
        for compute in (env.compute_reward, env.compute_terminated, env.compute_truncated):
            every = compute(reached, wanted, {})
            assert every.tolist() == [[compute(one, goal, {}) for one in row] for row in reached]
        assert env.compute_terminated(reached, wanted, {}).tolist() == [
            [not continuing, False],
            [not continuing, False],
        ]
        assert env.compute_terminated(goal, goal, {}) is (not continuing)
        assert env.compute_truncated(goal, goal, {}) is False


def test_a_goal_drawn_anew_shows_in_the_very_observation():
    env = gymnasium.make("maze/umaze-v0", reset_target=True)
    observation, _ = env.reset(seed=0, options={"start_cell": (1, 1), "goal_cell": (1, 2)})
    changes = 0
    for _ in range(300):
        before = env.unwrapped.goal.copy()
        push = 10 * (observation["desired_goal"] - observation["achieved_goal"]) - observation["observation"][2:]
        observation, reward, _, _, info = env.step(np.clip(push, -1, 1).astype(np.float32))
        changed = not np.array_equal(before, env.unwrapped.goal)
        assert np.array_equal(observation["desired_goal"], env.unwrapped.goal)
        assert info["success"] == bool(reward) == changed  # of the goal that was reached
        changes += changed
    assert changes >= 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"start_cell": (0, 0)}, "start_cell"),
        ({"goal_cell": (-1, -1)}, "goal_cell"),
        ({"goal_cell": (99, 1)}, "goal_cell"),
        ({"start_xy": (0, 0)}, "start_xy"),
        ({"goal_xy": (np.nan, 0)}, "goal_xy"),
        ({"goal_xy": "here"}, "goal_xy"),
        ({"start_xy": (1, 2, 3)}, "start_xy"),
        ({"start_cel": (3, 1)}, "start_cel"),
        ({"start_cell": (3, 1), "start_xy": (-4, 2)}, "start_xy"),
    ],
)
def test_an_impossible_reset_option_is_refused_by_name(options, word):
    with pytest.raises(UserError, match=word):
        make_env(get_map("hash")).reset(seed=0, options=options)


def test_wall_contact_is_felt_at_walls_only():
    env = make_env(get_map("hash"))
    env.reset(seed=0, options={"start_xy": (-4, 2), "goal_xy": (4, 2)})
    contacts = []
    for step in range(200):
        push = (1.0, 0.0) if step < 50 else (0.0, 1.0)
        observation, *_ = env.step(np.array(push, dtype=np.float32))
        contacts.append(env.unwrapped.wall_contact)
        gap = abs(observation["achieved_goal"][1] - 2.0)
        assert gap > 0.35 or not contacts[-1]
    assert contacts[-1]
    assert not any(contacts[:50])


def test_no_file_is_left_behind_even_if_nobody_closes(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = make_env(get_map("umaze"))
    assert list(tmp_path.iterdir()) == []
    env.close()
    with pytest.raises(TypeError):
        make_env(get_map("umaze"), no_such_argument=1)
    assert list(tmp_path.iterdir()) == []


def test_the_episode_limit_is_the_maps():
    maze = get_map("cross")
    assert make_env(maze).spec.max_episode_steps == maze.episode_limit == 400
    custom = map_from_rows(ROOM)
    assert make_env(custom).spec.max_episode_steps == custom.episode_limit


def test_an_environment_survives_pickling_and_its_spec_goes_through_json():
    env = make_env(map_from_rows(ROOM), reward_type="dense")
    again = pickle.loads(pickle.dumps(env.unwrapped))
    from_json = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    for other in (again, from_json.unwrapped):
        assert other.maze_layout.rows == tuple(ROOM)
        assert other.reward_type == "dense"
        assert (other.reset(seed=1)[0]["observation"] == env.reset(seed=1)[0]["observation"]).all()


def test_a_hundred_environments_are_built_within_seconds():
    began = time.process_time()
    for _ in range(20):
        make_env(get_map("large"))
    assert (time.process_time() - began) / 20 < 0.05
