"""The console command as a user types it."""

import html
import json
import shutil
import subprocess
import sys

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from PIL import Image

from envs.collect import collect
from envs.maps import get_map
from planner.comparison.compare import compare
from planner.config import to_yaml
from planner.plan import Planner
from planner.rollout import RolloutSettings, can_be_done
from planner.training.run import RunFolder
from planner.training.train import train


@pytest.fixture(scope="module")
def spoilt(hash_dataset, datasets_root):
    """A copy of the dataset with one NaN, and one cut in half; their ids."""
    episodes = list(minari.load_dataset(hash_dataset).iterate_episodes())
    buffers = []
    for index, episode in enumerate(episodes[:3]):
        observations = {key: np.array(value) for key, value in episode.observations.items()}
        if index == 1:
            observations["observation"][5, 2] = np.nan
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=observations,
                actions=list(episode.actions),
                rewards=list(episode.rewards),
                terminations=list(episode.terminations),
                truncations=list(episode.truncations),
            )
        )
    minari.create_dataset_from_buffers("mazes/nan-v0", buffers, env="maze/hash-v0")
    collect(get_map("hash"), "tasks", 2000, 1, "mazes/half-v0", progress=False)
    file = next((datasets_root / "mazes" / "half-v0" / "data").glob("*.hdf5"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "mazes/nan-v0", "mazes/half-v0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.norm", "goup"], ["model.norm", "goup", "channel"]),
        (["--data.horizon", "50", "--model.dim_mults", "1,2,4"], ["50", "4"]),
        (["--steps", "many"], ["steps", "many"]),
        (["--steps", "2.5"], ["steps", "2.5"]),
        (["--steps", "nan"], ["steps", "nan"]),
        (["--data.dataset", "mazes/nowhere-v0"], ["mazes/nowhere-v0", "collect"]),
        (["--nrom", "none"], ["--nrom"]),
    ],
)
def test_a_mistake_in_training_is_one_line(refused, hash_dataset, tmp_path, arguments, words):
    line = refused("planner.main", "train", "hash", "--run", tmp_path / "run", *arguments)
    for word in words:
        assert word in line


def test_in_a_process_of_its_own_a_mistake_is_one_line_and_exit_code_two(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "planner.main", "rollout", str(tmp_path)], capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_damaged_data_are_one_line(refused, spoilt, tmp_path):
    nan, half = spoilt
    short = ["--data.horizon", "8", "--run", tmp_path / "run"]
    assert "NaN" in refused("planner.main", "train", "hash", "--data.dataset", nan, *short)
    assert "again" in refused("planner.main", "train", "hash", "--data.dataset", half, *short)


def test_a_missing_dataset_says_what_collects_it_and_collect_does_so(refused, command, datasets_root, tmp_path):
    name = "mazes/hash-tasks1500-v0"
    train = ["train", "hash", "--run", tmp_path / "run", "--data.dataset", name, "--data.horizon", "16"]
    train += ["--steps", "2", "--model.dim", "8", "--diffusion.sampling_steps", "4"]
    line = refused("planner.main", *train)
    collect = f"maze-data collect hash --recipe tasks --env-steps 1500 --id {name}"
    assert collect in line
    assert "--collect" in line
    assert command("planner.main", *train, "--collect").returncode == 0
    collected = minari.load_dataset(name)
    assert command("envs.main", *collect.split()[1:-1], "mazes/hash-again1500-v0").returncode == 0
    again = minari.load_dataset("mazes/hash-again1500-v0")
    for one, other in zip(collected.iterate_episodes(), again.iterate_episodes(), strict=True):
        assert np.array_equal(one.observations["observation"], other.observations["observation"])


def test_an_unknown_key_in_a_preset_is_one_line(refused, tmp_path):
    (tmp_path / "mine.yaml").write_text("model:\n  nrom: none\n")
    assert "model.nrom" in refused("planner.main", "train", tmp_path / "mine.yaml")


def test_a_map_with_a_hole_in_its_wall_is_one_line(refused, datasets_root, tmp_path):
    (tmp_path / "hole.txt").write_text("#####\n#   #\n#    \n#####\n")
    line = refused("envs.main", "collect", tmp_path / "hole.txt", "--recipe", "navigate", "--steps", 100)
    assert "row 2" in line
    assert "column 4" in line


def test_a_folder_in_use_is_one_line(refused, hash_dataset, tiny, tmp_path):
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny()))
    folder = RunFolder(tmp_path / "run")
    with folder.claim():
        assert "in use" in refused("planner.main", "train", tmp_path / "tiny.yaml", "--run", tmp_path / "run")


def test_a_folder_that_is_no_run_is_one_line(refused, tmp_path):
    assert "no run folder" in refused("planner.main", "rollout", tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", 10**20], "seed"),
        (["--seed", -1], "seed"),
        (["--horizon", 10**12], "not enough memory"),
        (["--num-plans", 10**12], "not enough memory"),
    ],
)
def test_numbers_beyond_the_machine_are_one_line(refused, tiny_run, tmp_path, options, words):
    problem = ["plan", tiny_run, "--start=-4,2", "--goal=2,4", "--out", tmp_path / "plan.json"]
    assert words in refused("planner.main", *problem, *options)


def test_a_rollouts_seed_is_bounded(refused, tiny_run):
    assert "seed" in refused("planner.main", "rollout", tiny_run, "--seed", 2**31)


def test_plan_draws_png_gif_and_writes_json(command, tiny_run, tmp_path):
    for name in ("plan.png", "new/plan.gif", "plan.json"):
        done = command(
            "planner.main",
            "plan",
            tiny_run,
            "--start=-4,2",
            "--goal=2,4",
            "--out",
            tmp_path / name,
            "--num-plans",
            2,
            *(("--avoid=0,2,0.5", "--avoid_scale", 2) if name == "plan.json" else ()),
        )
        assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "plan.png").size[0] > 300
    assert Image.open(tmp_path / "new" / "plan.gif").n_frames > 3
    assert np.shape(json.loads((tmp_path / "plan.json").read_text())["plans"]) == (2, 32, 4)


def test_rollout_writes_the_promised_json(command, tiny_run, tmp_path):
    done = command(
        "planner.main", "rollout", tiny_run, "--episodes", 1, "--tasks", "held_out", "--best-of", 2, "--json", "-"
    )
    result = json.loads(done.stdout)
    held_out = result["summary"]["held_out"]
    for name in ("success", "plan_valid", "longest_step", "end_gap", "steps_to_goal"):
        assert set(held_out[name]) == {"mean", "median", "low", "high", "n"}
    assert len(result["rows"]) == held_out["success"]["n"]
    expected = {
        "task",
        "split",
        "seed",
        "wall_contact",
        "tracking_error",
        "score",
        "planning_ms",
        "success",
        "valid_among_n",
    }
    assert expected <= set(result["rows"][0])


def test_compare_wants_finished_runs_each_once(refused, tiny_run, tmp_path):
    out = ["--out", tmp_path / "out", "--episodes", 1]
    assert "named twice" in refused("planner.main", "compare", tiny_run, f"{tiny_run}/", *out)
    shutil.copytree(tiny_run, tmp_path / "half")
    (tmp_path / "half" / "DONE").unlink()
    assert "is not finished" in refused("planner.main", "compare", tiny_run, tmp_path / "half", *out)
    assert not (tmp_path / "out").exists()


def test_how_a_training_was_watched_makes_no_other_setting(tiny_run, tiny, hash_dataset, tmp_path):
    watched = train(tiny(seed=1, log_every=3, evaluate_every=0), tmp_path / "watched", "cpu", False).path
    compare([tiny_run, watched], tmp_path / "out", RolloutSettings(episodes=1), multiples=(1,), device="cpu")
    assert list(json.loads((tmp_path / "out" / "comparison.json").read_text())["summary"]) == ["group"]


def test_runs_of_one_name_and_different_settings_keep_their_own_rows(tiny_run, tiny, hash_dataset, tmp_path):
    folders = [train(tiny(steps=steps), tmp_path / str(steps) / "same", "cpu", False).path for steps in (12, 13)]
    compare(folders, tmp_path / "out", RolloutSettings(episodes=1), multiples=(1, 1), device="cpu")
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(result["summary"]) == ["group", "group, steps 13"]
    assert result["config"]["multiples"] == [1]


def test_compare_writes_page_table_and_figures_and_reuses_rollouts(tiny_run, tiny, hash_dataset, tmp_path):
    other = train(tiny(model={"norm": "none"}, evaluate_every=12, evaluate_episodes=1), tmp_path / "none", "cpu", False)
    settings = RolloutSettings(episodes=1)
    page = compare([tiny_run, other.path], tmp_path / "out", settings, multiples=(1,), device="cpu")
    text = page.read_text()
    assert "group" in text
    assert "training windows" in text
    assert "<script" not in text
    assert 'src="http' not in text
    assert f"tensorboard --logdir {tiny_run}" in html.unescape(text)
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert set(result["summary"]) == {"group", "none"}
    assert result["reference"]["plan_valid"]["mean"] > 0.99
    assert len(list((other.path / "rollouts").glob("*.json"))) == 1
    compare([tiny_run, other.path], tmp_path / "out", settings, multiples=(1,), device="cpu")
    assert len(list((other.path / "rollouts").glob("*.json"))) == 1
    # an answer from before a setting existed is an answer with its default
    stored = next((other.path / "rollouts").glob("*.json"))
    answer = json.loads(stored.read_text())
    del answer["question"]["settings"]["best_of"], answer["sha256"]
    stored.write_text(json.dumps(answer))
    compare([tiny_run, other.path], tmp_path / "out", settings, multiples=(1,), device="cpu")
    assert len(list((other.path / "rollouts").glob("*.json"))) == 1
    families = (tmp_path / "out" / "families.md").read_text()
    assert "| return, 1× horizon | none |" in families
    assert "| straight, 1× horizon (too short) | none |" in families
    for name in ("example.png", "bars.png", "plans_1x.png"):
        assert Image.open(tmp_path / "out" / name).size[0] > 400
    for name in ("rollout_group.gif", "rollout_none.gif"):
        assert Image.open(tmp_path / "out" / name).n_frames > 10


def test_compare_counts_the_tasks_that_fit_the_horizon_and_says_which(tiny_run, tmp_path):
    page = compare([tiny_run], tmp_path / "out", RolloutSettings(episodes=1), multiples=(1, 8), device="cpu")
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    statistics = RunFolder(tiny_run).statistics()
    for row in result["rows"]:
        task = next(task for task in statistics.maze.tasks if task.name == row["task"])
        assert row["countable"] == can_be_done(statistics.maze, task, row["horizon"], statistics.median_step_m)
    columns = result["summary"]["group"]
    # of 32 points' 2.2 m there and back takes 2, everything else 8 or more
    assert list(columns) == [
        "demonstrated, 1× horizon (too short)",
        "held out, 1× horizon",
        "demonstrated, 8× horizon",
        "held out, 8× horizon",
    ]
    here = [row for row in result["rows"] if row["split"] == "held_out" and row["multiple"] == 1]
    assert columns["held out, 1× horizon"]["success"]["n"] == sum(row["family"] == "return" for row in here) < len(here)
    assert "Too far at 1× the training horizon: double-turn, straight, turn." in result["counted"]
    for text in (page.read_text(), (tmp_path / "out" / "comparison.md").read_text()):
        assert result["counted"] in html.unescape(text)


def test_a_dataset_that_is_no_maze_trains_and_plans_and_says_what_needs_a_maze(
    command, refused, tiny, datasets_root, tmp_path
):
    environment = gymnasium.make("Pendulum-v1")
    environment.action_space.seed(0)
    buffers = []
    for index in range(3):
        observations, actions, rewards = [environment.reset(seed=index)[0]], [], []
        truncated = False
        while not truncated:
            actions.append(environment.action_space.sample())
            observation, reward, _, truncated, _ = environment.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        count = len(actions)
        ends = [False] * (count - 1) + [True]
        buffers.append(EpisodeBuffer(index, None, None, observations, actions, rewards, [False] * count, ends))
    minari.create_dataset_from_buffers("flat/pendulum-v0", buffers, env="Pendulum-v1")
    config = tiny(data={"dataset": "flat/pendulum-v0", "actions": True}, evaluate_every=12)
    run = train(config, tmp_path / "run", "cpu", progress=False).path
    plans = Planner.from_run(run, device="cpu").plan([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], num_plans=2)
    assert plans.shape == (2, 32, 3 + 1)
    assert (plans[:, -1, :3] == np.float32([0, 1, 0])).all()
    problem = ["plan", run, "--start", "1,0,0", "--goal", "0,1,0", "--out", tmp_path / "p.json"]
    done = command("planner.main", *problem)
    assert done.returncode == 0, done.stderr
    assert "--avoid needs a maze" in refused("planner.main", *problem, "--avoid", "1,2,3")
    assert "best_of needs a maze" in refused("planner.main", *problem, "--best-of", 2)
    assert "Pendulum-v1" in refused("planner.main", "rollout", run)
    assert "maze" in refused(
        "planner.main", "plan", run, "--start", "1,0,0", "--goal", "0,1,0", "--out", tmp_path / "p.png"
    )
