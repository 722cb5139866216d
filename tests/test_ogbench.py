import json
import sys
import tempfile
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from conftest import TINY
from test_rollout import Oracle
from wanted import needs_ogbench

from envs.collect import collect
from envs.maps import from_env_spec, get_map
from envs.ogbench_maze import next_centers
from envs.point_maze import make_env
from envs.splits import stitched
from groundwork.errors import UserError
from planner.comparison.countable import counting_rule
from planner.config import DataConfig
from planner.data import load_data
from planner.execution import execute_one
from planner.plan import Planner
from planner.rollout import RolloutSettings, can_be_done, choose_tasks, rollout, task_length_m
from planner.training.train import train
from planner.training.trainer import make_network

MEDIUM = get_map("ogbench-medium")
STITCH = "mazes/ogbench-medium-stitch600-v0"


@pytest.fixture(scope="module")
def demonstrations(datasets_root):
    return collect(MEDIUM, "stitch", 600, 0, STITCH, progress=False)


@needs_ogbench
def test_steps_rewards_and_ends_are_those_of_the_environment_that_ogbench_registers():
    """Towards the goal of task 4 along the oracle's way, from the same start: until both end there."""
    ours, theirs = make_env(MEDIUM), gymnasium.make("pointmaze-medium-v0")
    state, _ = ours.reset(seed=0, options={"start_cell": (6, 5), "goal_cell": (6, 1)})
    theirs.reset(seed=0, options={"task_id": 4})
    theirs.unwrapped.set_xy(state["observation"])
    theirs.unwrapped.set_goal(goal_xy=state["desired_goal"])
    aims, ended, steps = next_centers(MEDIUM, (6, 1)), False, 0
    aims[6, 1] = state["desired_goal"]
    while not ended and steps < 300:
        ahead = aims[tuple(MEDIUM.xy_to_cell(state["observation"]))] - state["observation"]
        action = np.clip(3 * ahead, -1, 1).astype(np.float32)
        state, reward, ended, truncated, info = ours.step(action)
        observation, *rest, their_info = theirs.step(action)
        assert (observation == state["observation"]).all()
        assert rest == [reward, ended, truncated]
        assert info["success"] == bool(their_info["success"]) == ended
        steps += 1
    assert reward == 1.0
    assert 60 < steps < 200
    assert np.linalg.norm(state["observation"] - state["desired_goal"]) <= 1.0


@needs_ogbench
def test_a_seed_alone_determines_start_and_goal_within_ogbenchs_noise():
    env = make_env(MEDIUM)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the generator that OGBench itself draws from)
    ends = np.array(
        [
            [observation["observation"], observation["desired_goal"]]
            for observation, _ in (
                env.reset(seed=seed % 20, options={"start_cell": (1, 1), "goal_cell": (6, 6)}) for seed in range(40)
            )
        ]
    )
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert (ends[:20] == ends[20:]).all()
    off = ends[:20] - MEDIUM.cell_to_xy([(1, 1), (6, 6)])
    assert 0.9 < np.abs(off).max() <= 1.0
    assert len(np.unique(off)) == off.size


@needs_ogbench
def test_where_nothing_is_asked_one_of_the_five_tasks_is_drawn():
    env = make_env(MEDIUM)
    found = set()
    for seed in range(40):
        observation, _ = env.reset(seed=seed)
        ends = MEDIUM.xy_to_cell([observation["observation"], observation["desired_goal"]])
        found.add(tuple(map(tuple, ends.tolist())))
    assert found == {(task.start, task.goal) for task in MEDIUM.tasks}


@needs_ogbench
def test_no_file_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_env(MEDIUM).close()
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_map_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench.locomaze.maze", None)
    with pytest.raises(UserError, match=r"ogbench-giant needs OGBench: pip install 'temporal-norm-planner\[ogbench\]'"):
        make_env(get_map("ogbench-giant"))


@needs_ogbench
@pytest.mark.parametrize("name", ["ogbench-medium", "ogbench-giant"])
def test_the_demonstrator_heads_where_ogbenchs_oracle_does(name):
    maze = get_map(name)
    oracle = make_env(maze).unwrapped.ogbench
    rng = np.random.default_rng(0)
    for _ in range(40):
        goal, here = (maze.free_cells[index] for index in rng.integers(len(maze.free_cells), size=2))
        expected, _ = oracle.get_oracle_subgoal(maze.cell_to_xy(here), maze.cell_to_xy(goal))
        assert next_centers(maze, goal)[here].tolist() == list(expected)


@needs_ogbench
def test_demonstrations_lead_to_goals_four_cells_away_and_have_ogbenchs_length_and_noise(demonstrations):
    episodes = list(demonstrations.iterate_episodes())
    assert [len(episode.actions) for episode in episodes] == [200, 200, 200]
    for episode in episodes:
        states, goal = episode.observations["observation"], episode.observations["desired_goal"][0]
        assert states.shape == (201, 2)
        start_cell, goal_cell = (tuple(cell) for cell in MEDIUM.xy_to_cell([states[0], goal]).tolist())
        assert MEDIUM.distances_from(start_cell)[goal_cell] == 4
        for xy, cell in ((states[0], start_cell), (goal, goal_cell)):
            assert np.abs(xy - MEDIUM.cell_to_xy(cell)).max() <= 1.0
        assert (MEDIUM.xy_to_cell(states[150:]) == goal_cell).all()
        ahead = next_centers(MEDIUM, goal_cell)[tuple(MEDIUM.xy_to_cell(states[:-1]).T)] - states[:-1]
        noise = episode.actions - ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
        free = np.abs(episode.actions) < 1
        assert 0.35 < noise[free].std() < 0.55
        assert np.abs(episode.actions).max() == 1


@needs_ogbench
def test_demonstrations_are_the_environments_own_steps_to_the_bit(demonstrations):
    env = make_env(MEDIUM).unwrapped
    for episode in demonstrations.iterate_episodes([0, 2]):
        states, goal = episode.observations["observation"], episode.observations["desired_goal"][0]
        env.reset(options={"start_xy": states[0], "goal_xy": goal})
        for action, state, reward in zip(episode.actions, states[1:], episode.rewards, strict=True):
            observation, own, *_ = env.step(action)
            assert (observation["observation"] == state).all()
            assert reward == own


@needs_ogbench
def test_the_dataset_is_of_ogbenchs_map_and_its_five_tasks_are_held_out(demonstrations):
    assert from_env_spec(demonstrations.env_spec) == MEDIUM
    assert demonstrations.recover_environment().spec.id == "maze/ogbench-medium-v0"
    data = load_data(DataConfig(dataset=STITCH, horizon=32, stride=2, validation_share=0.0))
    assert data.statistics.maze == stitched(MEDIUM)
    assert (data.statistics.layout.state_dim, data.statistics.layout.goal_dims) == (2, 2)
    assert data.training.series_ND.shape == (603, 2)


@needs_ogbench
def test_the_same_seed_collects_the_same_data(demonstrations, datasets_root):
    again = collect(MEDIUM, "stitch", 600, 0, "mazes/ogbench-again-v0", progress=False)
    other = collect(MEDIUM, "stitch", 600, 1, "mazes/ogbench-other-v0", progress=False)
    first, same, another = (
        np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
        for dataset in (demonstrations, again, other)
    )
    assert (first == same).all()
    assert (first != another).any()


def test_other_recipes_are_refused_in_one_line(datasets_root):
    for recipe in ("tasks", "navigate"):
        with pytest.raises(UserError, match=f"recipe: {recipe} is no recipe of OGBench's.*allowed: stitch"):
            collect(MEDIUM, recipe, 600, 0, "mazes/never-v0", progress=False)
    assert not (datasets_root / "mazes" / "never-v0").exists()


def published(demonstrations, path, **changed):
    """The demonstrations as a file of OGBench's layout, whose last action of an episode leads to nothing in it."""
    parts = list(demonstrations.iterate_episodes())
    states = np.concatenate([part.observations["observation"] for part in parts])
    terminals = np.concatenate([np.arange(len(part.actions) + 1) == len(part.actions) for part in parts])
    arrays = {
        "observations": states.astype(np.float32),
        "actions": np.concatenate([np.concatenate([part.actions, np.ones((1, 2), np.float32)]) for part in parts]),
        "terminals": terminals,
        "qpos": states,
        "qvel": np.zeros_like(states),
    }
    np.savez_compressed(path, **{name: value for name, value in (arrays | changed).items() if value is not None})
    return Path(path)


@needs_ogbench
def test_ogbenchs_own_file_becomes_the_same_episodes_and_trains(command, demonstrations, tmp_path):
    path = published(demonstrations, tmp_path / "pointmaze-medium-stitch-v0.npz")
    done = command("envs.main", "convert", path, "--id", "mazes/ogbench-published-v0")
    assert done.returncode == 0, done.stderr
    assert "3 episodes, 600 steps" in done.stdout
    converted = minari.load_dataset("mazes/ogbench-published-v0")
    for theirs, ours in zip(converted.iterate_episodes(), demonstrations.iterate_episodes(), strict=True):
        states = ours.observations["observation"].astype(np.float32)
        assert (theirs.observations["observation"] == states).all()
        assert (theirs.actions == ours.actions).all()
        assert (theirs.observations["desired_goal"] == states[-1]).all()
        assert theirs.infos["success"][-1]
        assert theirs.truncations[-1]
        assert set(theirs.infos) == set(ours.infos)
    data = load_data(DataConfig(dataset="mazes/ogbench-published-v0", horizon=32, stride=2, validation_share=0.0))
    assert data.statistics.maze == stitched(MEDIUM)


@needs_ogbench
def test_a_file_that_is_damaged_or_foreign_is_one_line(refused, demonstrations, datasets_root, tmp_path):
    def line(name="pointmaze-medium-stitch-v0.npz", **changed):
        path = published(demonstrations, tmp_path / name, **changed)
        return refused("envs.main", "convert", path, "--id", "mazes/bad-v0")

    rows = 603
    walls, cut, leap = np.full((rows, 2), 6.0), np.zeros(rows, bool), np.zeros((rows, 2), np.float32)
    walls[:] = MEDIUM.cell_to_xy((0, 0))
    cut[200] = True
    leap[300:] = 4.0
    every = np.zeros(rows, bool)
    every[[200, 201, 602]] = True
    holed = np.ones((rows, 2), np.float32)
    holed[9] = np.nan
    for changed, words in (
        ({"terminals": None}, ["no terminals", "layout"]),
        ({"observations": np.zeros((rows, 29))}, ["observations", "(603, 29)", "(603, 2)"]),
        ({"actions": np.zeros((7, 2))}, ["actions", "(7, 2)"]),
        ({"actions": holed}, ["actions", "NaN", "row 9"]),
        ({"observations": walls}, ["map", "0%", "ogbench-medium"]),
        ({"terminals": cut}, ["terminals does not end the last episode", "602"]),
        ({"terminals": every}, ["one row", "201"]),
        ({"observations": leap}, ["leaps", "row 299"]),
        ({"observations": np.zeros((0, 2))}, ["no steps"]),
        ({"observations": np.array([{}] * rows, dtype=object)}, ["damaged"]),
    ):
        found = line(**changed)
        assert all(word in found for word in words), found
    assert "--map" in line("antmaze-medium-stitch-v0.npz")
    whole = published(demonstrations, tmp_path / "pointmaze-medium-stitch-v0.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no data at all", b""):
        (tmp_path / "pointmaze-medium-cut-v0.npz").write_bytes(content)
        found = refused("envs.main", "convert", tmp_path / "pointmaze-medium-cut-v0.npz", "--id", "mazes/bad-v0")
        assert "damaged" in found
    assert "no file" in refused("envs.main", "convert", tmp_path / "pointmaze-giant-x-v0.npz", "--id", "mazes/bad-v0")
    path = tmp_path / "pointmaze-medium-stitch-v0.npz"
    assert "allowed: ogbench-medium" in refused("envs.main", "convert", path, "--id", "mazes/bad-v0", "--map", "medium")
    assert not (datasets_root / "mazes" / "bad-v0").exists()


@pytest.fixture(scope="module")
def oracle(demonstrations):
    from planner.config import from_dict, merge

    config = from_dict(merge(TINY, {"data": {"dataset": STITCH, "horizon": 32, "stride": 2}}))
    statistics = load_data(config.data).statistics
    return Oracle(make_network(config, 2), config, statistics)


@needs_ogbench
def test_perfect_plans_do_ogbenchs_five_tasks_and_an_episode_ends_at_its_goal(oracle):
    tasks = choose_tasks(oracle.statistics.maze, ["held_out"])
    result = rollout(oracle, tasks, RolloutSettings(episodes=2, horizon=320))
    assert {row["score"] for row in result.rows} == {None}  # it counts steps at the goal, and the episode ends there
    assert [row["family"] for row in result.rows[::2]] == ["task1", "task2", "task3", "task4", "task5"]
    assert all(row["success"] and row["plan_valid"] for row in result.rows)
    assert result.positions.shape == (10, 1001, 2), "the limit is the benchmark's, however long a plan is"
    for row, path in zip(result.rows, result.positions, strict=True):
        arrived = row["steps_to_goal"]
        assert (path[arrived:] == path[arrived]).all()
        assert (path[arrived] != path[arrived - 1]).any()
        assert row["wall_contact"] == 0
        assert row["tracking_error"] < 1e-3, "the reference goes on behind the end, and that does not count"


@needs_ogbench
def test_longer_plans_than_the_limit_do_not_lengthen_the_episode(oracle):
    task = choose_tasks(oracle.statistics.maze, ["task1"])
    result = rollout(oracle, task, RolloutSettings(episodes=1, horizon=2000))
    assert result.positions.shape == (1, 1001, 2)
    assert not result.rows[0]["success"]


@needs_ogbench
def test_ways_are_measured_in_meters(oracle):
    maze = oracle.statistics.maze
    (task,) = choose_tasks(maze, ["task4"])
    assert task_length_m(maze, task) == 4.0 * maze.distances_from(task.start)[task.goal]
    assert can_be_done(maze, task, 4, oracle.statistics.median_step_m)  # OGBench counts every episode
    assert counting_rule([], maze).startswith("Every task counts")
    path = maze.cell_to_xy(np.array([(6, 1), (6, 2)]))
    walked = execute_one(oracle, np.linspace(*path, 16))
    assert np.allclose(walked[-1], path[1])


@needs_ogbench
def test_a_planner_of_ogbenchs_data_trains_plans_and_rolls_out_by_command(demonstrations, tiny, command, tmp_path):
    run = tmp_path / "run"
    train(tiny(data={"dataset": STITCH, "horizon": 32, "stride": 2}), run, "cpu", progress=False)
    plans = Planner.from_run(run, device="cpu").plan((0.0, 0.0), (20.0, 20.0))
    assert plans.shape == (1, 32, 2)
    done = command("planner.main", "rollout", run, "--tasks", "task1,task5", "--episodes", 1, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert {row["family"] for row in json.loads(done.stdout)["rows"]} == {"task1", "task5"}
    shown = command("planner.main", "show", run)
    assert shown.returncode == 0, shown.stderr
    assert "task3 (held out)" in shown.stdout
