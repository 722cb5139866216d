"""A run of an earlier day stays a run: it loads, resumes with equal bits, and gives the rows that it gave then.

`fixtures/run` is the tiny run of conftest.py, killed at step 7 of 12, with a rollout that was asked of its checkpoint.
`fixtures/expected.json` holds what the same code made of it: metrics and weights of the finished run, its rows, and
rows of every shipped planner.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundwork.files import with_checksum
from planner.comparison import kept
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout
from planner.training.find import shipped_names
from planner.training.run import RunFolder
from planner.training.train import train

FIXTURES = Path(__file__).resolve().parent / "fixtures"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
OF_THE_PLAN = {"longest_step", "end_gap", "free_share", "valid_among_n"}
KEPT = RolloutSettings(episodes=1, horizon=32, sampler="ddim", sampling_steps=2)


@pytest.fixture
def stored(tmp_path):
    """A copy of the stored run that may be written to."""
    return Path(shutil.copytree(FIXTURES / "run", tmp_path / "run"))


def rows_of(run):
    planner = Planner.from_run(run, device="cpu")
    tasks = choose_tasks(planner.statistics.maze, ["demonstrated"])[:2]
    return rollout(planner, tasks, RolloutSettings(episodes=1, sampler="ddim", sampling_steps=4)).rows


def assert_equal_rows(found, expected):
    """Equal words and outcomes; numbers as far as processors agree, of whose last bits MuJoCo's contacts make more."""
    assert len(found) == len(expected)
    for row, stored in zip(found, expected, strict=True):
        for name, value in stored.items():
            if isinstance(value, bool | str | None):
                assert row[name] == value, name
            else:
                assert row[name] == pytest.approx(value, rel=1e-4 if name in OF_THE_PLAN else 1e-2, abs=1e-5), name


def test_a_stored_run_resumes_with_the_bits_of_one_never_stopped_and_with_the_numbers_of_its_day(
    stored, hash_dataset, tmp_path
):
    config = RunFolder(stored).config()
    resumed = train(config, stored, "cpu", progress=False)
    whole = train(config, tmp_path / "whole", "cpu", progress=False)
    for weights in ("model", "ema"):
        ours, theirs = (run.load_network(weights).state_dict() for run in (resumed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    expected = EXPECTED["run"]
    for row, old in zip(resumed.metrics(), expected["metrics"], strict=True):
        assert {name: row[name] for name in old} == pytest.approx(old, rel=1e-4)
    state = resumed.load_network("ema").state_dict()
    assert set(state) == set(expected["ema"])
    for name, (mean, root_mean_square) in expected["ema"].items():
        values = state[name].double()
        assert values.mean().item() == pytest.approx(mean, abs=1e-5), name
        assert values.square().mean().sqrt().item() == pytest.approx(root_mean_square, abs=1e-5), name
    assert_equal_rows(rows_of(resumed.path), expected["rows"])


def test_a_rollout_that_was_kept_then_is_found_now(stored, monkeypatch):
    monkeypatch.setattr(kept, "rollout", None)  # nothing is rolled out anew
    rows = kept.run_rollout(stored, KEPT, ("straight",), "cpu")
    assert {row["family"] for row in rows} == {"straight"}


@pytest.mark.parametrize("asked", [{}, {"sampler": "ddpm", "resample": 8}])
def test_a_rollout_that_was_kept_while_commands_alone_took_steps_again_is_found_now(stored, monkeypatch, asked):
    """It says that none was, between levels that meant nothing then, or how often and between which."""
    (file,) = (stored / "rollouts").glob("*.json")
    answer = json.loads(file.read_text())
    answer["question"]["settings"] |= {"resample": 0, "resample_levels": [0.25, 0.5]} | asked
    file.unlink()
    del answer["sha256"]
    (stored / "rollouts" / "another-name.json").write_text(with_checksum(answer) + "\n")
    monkeypatch.setattr(kept, "rollout", None)  # nothing is rolled out anew
    assert kept.run_rollout(stored, replace(KEPT, **asked), ("straight",), "cpu") == answer["rows"]


@pytest.mark.parametrize("name", sorted(EXPECTED["shipped"]))
def test_a_shipped_planner_gives_the_rows_that_it_gave(name):
    assert name in shipped_names()
    assert_equal_rows(rows_of(name), EXPECTED["shipped"][name])
