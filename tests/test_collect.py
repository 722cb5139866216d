import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import minari
import numpy as np
import pytest

from envs.collect import collect
from envs.dataset_folder import HIDDEN_PREFIX
from envs.geometry import segments_free
from envs.main import main
from envs.maps import from_env_spec, get_map, map_from_rows
from envs.point_maze import make_env
from groundwork.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty Minari folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def run(monkeypatch, *arguments):
    """Exit code of ``maze-data`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["maze-data", *arguments])
    try:
        return main()
    except SystemExit as exit_code:
        return exit_code.code


def small(recipe, dataset_id, steps=1500, seed=0, name="hash", **kwargs):
    return collect(get_map(name), recipe, steps, seed, dataset_id, progress=False, **kwargs)


def arrays(dataset):
    for episode in dataset.iterate_episodes():
        yield from episode.observations.values()
        yield from episode.infos.values()
        yield from (episode.actions, episode.rewards, episode.terminations, episode.truncations)


@pytest.mark.parametrize("recipe", ["tasks", "navigate", "stitch"])
def test_same_seed_same_data_and_another_seed_other_data(folder, recipe):
    one, same, other = (
        small(recipe, f"mazes/{name}-v0", seed=seed) for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    for mine, theirs in zip(arrays(one), arrays(same), strict=True):
        assert np.array_equal(mine, theirs)
    assert not np.array_equal(one[0].observations["observation"][0], other[0].observations["observation"][0])


@pytest.mark.parametrize("recipe", ["tasks", "navigate", "stitch"])
def test_a_dataset_has_the_form_of_d4rls_pointmaze(folder, recipe):
    dataset = small(recipe, "mazes/form-v0")
    assert dataset.total_steps == sum(len(episode) for episode in dataset.iterate_episodes()) == 1500
    for episode in dataset.iterate_episodes():
        steps = len(episode.actions)
        assert episode.actions.dtype == np.float32
        assert episode.rewards.shape == episode.truncations.shape == episode.terminations.shape == (steps,)
        assert episode.truncations.tolist() == [False] * (steps - 1) + [True]
        assert not episode.terminations.any()
        shapes = {key: (value.shape, value.dtype) for key, value in episode.observations.items()}
        assert shapes == {
            "observation": ((steps + 1, 4), np.float64),
            "achieved_goal": ((steps + 1, 2), np.float64),
            "desired_goal": ((steps + 1, 2), np.float64),
        }
        assert set(episode.infos) == {"goal", "qpos", "qvel", "success"}
        state = episode.observations["observation"]
        assert np.array_equal(np.hstack([episode.infos["qpos"], episode.infos["qvel"]]), state)
        distance = np.linalg.norm(state[:, :2] - episode.infos["goal"], axis=1)
        assert np.array_equal(episode.infos["success"], distance <= 0.45)
        assert np.array_equal(episode.rewards, (distance[1:] <= 0.45).astype(float))
        assert dataset.observation_space.contains({k: v[0] for k, v in episode.observations.items()})
        assert dataset.action_space.contains(episode.actions[0])


@pytest.mark.parametrize("recipe", ["tasks", "stitch", "navigate"])
def test_replaying_the_actions_in_the_recovered_environment_gives_the_same_observations(folder, recipe):
    dataset = small(recipe, "mazes/replay-v0", name="medium")
    env = dataset.recover_environment()
    for number, episode in enumerate(dataset.iterate_episodes()):
        states, goal = episode.observations["observation"], episode.observations["desired_goal"][0]
        if number == 0 or recipe != "navigate":  # navigate is one long walk, cut into episodes
            observation, _ = env.reset(options={"start_xy": states[0, :2], "goal_xy": goal})
            assert np.array_equal(observation["observation"], states[0])
        for action, state in zip(episode.actions, states[1:], strict=True):
            observation, *_ = env.step(action)
            assert np.array_equal(observation["observation"], state)


def test_the_environment_and_the_recipe_are_recovered(folder):
    dataset = small("tasks", "mazes/meta-v0", seed=7)
    assert from_env_spec(dataset.env_spec) == get_map("hash")
    assert dataset.recover_environment().spec.id == "maze/hash-v0"
    metadata = dataset.storage.metadata
    assert metadata["maze"] == get_map("hash").to_dict()
    assert (metadata["recipe"], metadata["seed"], metadata["order"]) == ("tasks", 7, "breadth")
    for key in ("author", "algorithm_name", "description", "requirements", "dataset_size"):
        assert metadata[key]


def test_tasks_are_the_demonstrated_passages_each_as_often_as_the_others(folder):
    maze = get_map("cross")
    dataset = small("tasks", "mazes/passages-v0", steps=4500, name="cross")
    walked = []
    for episode in list(dataset.iterate_episodes())[:-1]:  # the last one is cut
        ends = maze.xy_to_cell(episode.observations["achieved_goal"][[0, -1]]).tolist()
        walked.append(tuple(map(tuple, ends)))
        assert episode.infos["success"][-1]
        assert np.linalg.norm(episode.infos["qvel"][0]) == 0
    demonstrated = {(task.start, task.goal) for task in maze.tasks if task.split == "demonstrated"}
    assert set(walked) == demonstrated
    counts = [walked.count(passage) for passage in demonstrated]
    assert max(counts) - min(counts) <= 1


def test_navigate_cuts_one_stream_at_each_goal_reached(folder):
    episodes = list(small("navigate", "mazes/stream-v0").iterate_episodes())
    assert len(episodes) > 3
    for before, after in pairwise(episodes):
        assert before.infos["success"].tolist() == [False] * len(before.actions) + [True]
        assert np.array_equal(before.observations["observation"][-1], after.observations["observation"][0])
        assert (after.observations["desired_goal"] == after.observations["desired_goal"][0]).all()


def test_stitch_goals_lie_exactly_four_cells_away(folder):
    maze = get_map("medium")
    starts = set()
    for episode in small("stitch", "mazes/four-v0", steps=6000, name="medium").iterate_episodes():
        ends = np.stack([episode.observations["achieved_goal"][0], episode.observations["desired_goal"][0]])
        start, goal = (tuple(cell) for cell in maze.xy_to_cell(ends).tolist())
        assert maze.distances_from(start)[goal] == 4
        starts.add(start)
    assert len(starts) > 8


def test_the_experts_segments_are_free_and_their_steps_bounded(folder):
    maze = get_map("hash")
    for episode in small("tasks", "mazes/free-v0", steps=8000).iterate_episodes():
        waypoints = episode.observations["achieved_goal"][::4]
        assert segments_free(maze, waypoints[:-1], waypoints[1:], 0.08).all()
        assert np.linalg.norm(np.diff(waypoints, axis=0), axis=1).max() < 0.22  # 5.5 m/s, to catch up


def test_a_users_map_is_collected_and_recovered(folder):
    room = map_from_rows(["######", "#....#", "#.##.#", "#....#", "######"], name="ring")
    dataset = collect(room, "tasks", 300, 0, "mazes/ring-tasks-v0", progress=False)
    assert from_env_spec(dataset.env_spec).rows == room.rows
    assert dataset.recover_environment().unwrapped.maze_layout.rows == room.rows
    tiny = map_from_rows(["####", "#..#", "####"], name="tiny")
    with pytest.raises(UserError, match="stitch"):
        collect(tiny, "stitch", 300, 0, "mazes/tiny-v0", progress=False)


def test_an_existing_dataset_is_refused_and_replaced_only_on_request(folder):
    small("tasks", "mazes/taken-v0", steps=100)
    with pytest.raises(UserError, match="--overwrite"):
        small("tasks", "mazes/taken-v0", steps=200)
    assert minari.load_dataset("mazes/taken-v0").total_steps == 100
    assert small("tasks", "mazes/taken-v0", steps=200, overwrite=True).total_steps == 200
    assert not list(folder.glob(".*"))


def test_a_collection_that_fails_midway_leaves_the_old_dataset_and_nothing_else(folder, monkeypatch):
    small("tasks", "mazes/kept-v0", steps=100)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", fail)
    with pytest.raises(OSError, match="space"):
        small("tasks", "mazes/kept-v0", steps=200, overwrite=True)
    assert list(minari.list_local_datasets()) == ["mazes/kept-v0"]
    assert minari.load_dataset("mazes/kept-v0").total_steps == 100
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_collection_leaves_nothing_visible(folder, kill):
    command = [sys.executable, "-m", "envs.main", "collect", "hash", "--steps", "100000000"]
    # A shell's background jobs, such as these tests may be, have Ctrl-C switched off, and hand that on.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    for _ in range(600):
        if list(folder.glob(f"{HIDDEN_PREFIX}*/new/data/main_data.hdf5")):
            break
        time.sleep(0.05)
    process.send_signal(kill)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    assert minari.list_local_datasets() == {}
    assert bool(list(folder.glob(".*"))) == (kill == signal.SIGKILL)


def test_the_command_collects_lists_and_shows(folder, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "collect", "cross", "--recipe", "tasks", "--steps", "400", "--seed", "1") == 0
    assert "mazes/cross-tasks-v0" in capsys.readouterr().out
    assert run(monkeypatch, "list") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "mazes/" in line]
    name, environment, _, steps, _, recipe = line.split()
    assert (name, environment, steps, recipe) == ("mazes/cross-tasks-v0", "maze/cross-v0", "400", "tasks")
    picture = tmp_path / "picture.png"
    assert run(monkeypatch, "show", "mazes/cross-tasks-v0", "--out", str(picture)) == 0
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["collect", "hash", "--env-steps", "0"], "env_steps = 0"),
        (["collect", "hash", "--steps", "nan"], "'nan'"),
        (["collect", "hash", "--steps", "1.5"], "'1.5'"),
        (["collect", "hash", "--seed", "-1"], "seed = -1"),
        (["collect", "hsah"], "hsah"),
        (["collect", "hash", "--recipe", "walk"], "walk"),
        (["collect", "hash", "--id", "no id"], "no id"),
        (["collect", "hash", "--id", "mazes/noversion"], "mazes/noversion"),
        (["collect", "hash", "--id", "../up-v0"], "../up-v0"),
        (["collect", "hash", "--id", "mazes/here-v0/inside-v0"], "inside"),
        (["collect", "hash", "--id", "mazes/here-v0"], "--overwrite"),
        (["show", "mazes/missing-v0", "--out", "picture.png"], "mazes/missing-v0"),
        (["show", "mazes/here-v0", "--out", "picture.bmp"], "picture.bmp"),
        (["fetch"], "fetch"),
    ],
)
def test_a_users_mistake_ends_with_one_line_and_exit_code_2(folder, monkeypatch, capsys, arguments, word):
    small("tasks", "mazes/here-v0", steps=20)
    capsys.readouterr()
    assert run(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert word in errors


def test_a_picture_goes_into_a_folder_that_is_made_for_it(folder, monkeypatch):
    small("tasks", "mazes/here-v0", steps=20)
    assert run(monkeypatch, "show", "mazes/here-v0", "--out", str(folder.parent / "new" / "picture.png")) == 0
    assert (folder.parent / "new" / "picture.png").stat().st_size > 1000


def test_a_datasets_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    assert run(monkeypatch, "collect", "hash", "--steps", "10") == 2
    assert "datasets folder" in capsys.readouterr().err


def test_a_file_cut_in_half_is_one_line(folder, monkeypatch, capsys):
    small("tasks", "mazes/half-v0", steps=1000)
    data = folder / "mazes/half-v0/data/main_data.hdf5"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    capsys.readouterr()
    assert run(monkeypatch, "show", "mazes/half-v0", "--out", str(folder / "x.png")) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "mazes/half-v0" in errors


def test_five_thousand_steps_per_second_on_one_core(folder):
    make_env(get_map("hash"))
    began = time.process_time()
    small("tasks", "mazes/speed-v0", steps=10_000)
    assert 10_000 / (time.process_time() - began) > 5_000
