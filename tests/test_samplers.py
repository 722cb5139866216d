import gzip
import json

import pytest

from groundwork.errors import UserError
from planner.comparison.sampler_ablation import AblationSettings, ablate, fewest_steps
from planner.sampling import SAMPLERS
from planner.settings import STEPS
from planner.training.run import RunFolder


def test_the_fewest_steps_are_those_whose_lower_bound_stays_above_minus_three_points():
    def entry(steps, low, milliseconds):
        return {"steps": steps, "difference": {"low": low}, "milliseconds": milliseconds}

    entries = [entry(64, -0.01, 9.0), entry(4, -0.029, 3.0), entry(4, -0.02, 2.0), entry(2, -0.031, 1.0)]
    assert fewest_steps(entries) is entries[2]
    assert fewest_steps([entry(2, -0.2, 1.0)]) is None


def test_every_setting_is_measured_on_the_same_episodes_and_kept(tiny_run, tmp_path):
    settings = AblationSettings(("ddim",), (1, 4), ("straight",), 1)
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


def test_more_steps_than_the_training_has_levels_are_refused_if_asked_for_and_left_out_if_not(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"sampling_steps = 1000 must be at most the \d+ levels of .*'s training"):
        ablate(tiny_run, AblationSettings(("ddim",), (1, 1000), ("straight",), 1), tmp_path, "cpu", "")
    levels = RunFolder(tiny_run).config().diffusion.train_steps
    assert max(STEPS) > levels
    ablate(tiny_run, AblationSettings(("ddim",), tasks=("straight",), episodes=1), tmp_path, "cpu", "")
    stored = json.loads((tmp_path / "samplers.json").read_text())
    assert stored["config"]["steps"] == [steps for steps in STEPS if steps <= levels]


def test_what_is_no_sampler_is_refused():
    with pytest.raises(UserError, match=f"samplers = euler is not one of {', '.join(SAMPLERS)}"):
        AblationSettings(samplers=("euler",))
    with pytest.raises(UserError, match="episodes = 0"):
        AblationSettings(episodes=0)
