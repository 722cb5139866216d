import gzip
import json

import numpy as np
import pytest

from groundwork.errors import UserError
from planner.comparison.sampler_ablation import AblationSettings, ablate, fewest_steps, paired_difference


def test_the_paired_interval_covers_the_difference_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        outcome = rng.choice(4, size=300, p=(0.85, 0.06, 0.02, 0.07))  # both, only ours, only the reference's, neither
        cell = paired_difference(outcome <= 1, (outcome == 0) | (outcome == 2))
        covered += cell["low"] <= 0.04 <= cell["high"]
    assert 0.93 < covered / 1000 < 0.985


def test_no_episode_that_differs_still_leaves_doubt():
    cell = paired_difference([True] * 50, [True] * 50)
    assert cell["mean"] == 0
    assert cell["low"] < -0.03
    assert paired_difference([True] * 1000, [True] * 1000)["low"] > -0.03


def test_the_fewest_steps_are_those_whose_lower_bound_stays_above_minus_three_points():
    def entry(steps, low, milliseconds):
        return {"steps": steps, "difference": {"low": low}, "milliseconds": milliseconds}

    entries = [entry(64, -0.01, 9.0), entry(4, -0.029, 3.0), entry(4, -0.02, 2.0), entry(2, -0.031, 1.0)]
    assert fewest_steps(entries) is entries[2]
    assert fewest_steps([entry(2, -0.2, 1.0)]) is None


def test_every_setting_is_measured_on_the_same_episodes_and_kept(tiny_run, tmp_path):
    settings = AblationSettings(("ddim",), (1, 4, 1000), ("straight",), 1)
    table = ablate(tiny_run, settings, tmp_path, "cpu", "planner samplers")
    entries = json.loads((tmp_path / "samplers.json").read_text())["summary"]["settings"]
    assert [(entry["sampler"], entry["steps"]) for entry in entries][1:] == [("ddim", 1), ("ddim", 4)]
    assert entries[0]["sampler"] == "ddpm"  # the reference comes first
    assert entries[0]["difference"]["mean"] == 0
    rows = json.loads(gzip.decompress((tmp_path / "samplers_rows.json.gz").read_bytes()))
    episodes = {(row["sampler"], row["steps"]): [] for row in rows}
    for row in rows:
        episodes[row["sampler"], row["steps"]].append((row["task"], row["seed"]))
    assert len({tuple(value) for value in episodes.values()}) == 1
    assert "Fewest steps" in table.read_text() or "No setting" in table.read_text()
    assert (tmp_path / "samplers.png").stat().st_size > 1000


def test_what_is_no_sampler_is_refused():
    with pytest.raises(UserError, match="samplers = euler is not one of ddpm, ddim, dpm"):
        AblationSettings(samplers=("euler",))
    with pytest.raises(UserError, match="episodes = 0"):
        AblationSettings(episodes=0)
