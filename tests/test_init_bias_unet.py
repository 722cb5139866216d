"""The planner's part: what untrained U-Nets predict, by norm and placement."""

from __future__ import annotations

import pytest
import torch
import yaml

from norm_study.init_bias.settings import InitBiasUNetConfig
from norm_study.init_bias.unet import prediction_row, run_init_bias_unet, summarize_init_bias_unet
from norm_study.main import main
from planner.comparison.compare import _labels
from planner.training.run import RunFolder
from planner.training.train import train

CPU = torch.device("cpu")


@pytest.fixture
def config(hash_dataset, tiny_preset):
    return InitBiasUNetConfig(
        preset=tiny_preset, dataset=hash_dataset, norms=("channel",), inits=5, windows=6, loss_steps=12
    )


@pytest.fixture
def tiny_preset(tmp_path):
    from conftest import TINY

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


def test_gamma_is_the_ratio_of_the_moments_that_were_put_in():
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(20_000, 2, 4, generator=generator)
    row = prediction_row(means, torch.full_like(means, 2.0))
    assert row["gamma"] == pytest.approx(9 / 4, rel=0.02)
    assert row["over_data"] == pytest.approx(2.0)
    assert len(row["over_inits_by_time"]) == 2
    assert len(row["over_inits_by_time"][0]) == 4


def test_every_norm_is_measured_in_both_places_and_again_the_same(config):
    rows = run_init_bias_unet(config, [0, 1], CPU)
    assert [(r["seed"], r["norm"], r["placement"]) for r in rows] == [
        (seed, *variant) for seed in (0, 1) for variant in (("none", "pre"), ("channel", "pre"), ("channel", "post"))
    ]
    assert len({row["gamma"] for row in rows}) == 6
    assert run_init_bias_unet(config, [1], CPU) == rows[3:]
    table = summarize_init_bias_unet(config, rows)["table"]
    assert all(line["gamma"]["low"] < line["gamma"]["mean"] < line["gamma"]["high"] for line in table)


def test_first_losses_are_those_of_the_trainer(config, tiny, tmp_path):
    """A run's first logged loss is the mean over the steps that it covers."""
    row = next(r for r in run_init_bias_unet(config, [3], CPU) if (r["norm"], r["placement"]) == ("channel", "post"))
    over = {"log_every": 10, "checkpoint_every": 10, "model": {"norm": "channel", "norm_placement": "post"}}
    run = train(tiny(seed=3, **over), tmp_path / "run", "cpu", progress=False)
    assert row["losses"][0] == pytest.approx(run.metrics()[0]["loss"], rel=1e-3)


def test_compare_tells_placements_apart_and_joins_their_seeds(tiny, tmp_path, hash_dataset):
    folders = []
    for norm, place, seed in (
        ("none", "pre", 0),
        ("channel", "pre", 0),
        ("channel", "post", 0),
        ("channel", "post", 1),
    ):
        over = {"seed": seed, "steps": 1, "model": {"norm": norm, "norm_placement": place}}
        folders.append(RunFolder(train(tiny(**over), tmp_path / f"{norm}{place}{seed}", "cpu", progress=False).path))
    assert _labels(folders) == ["none", "channel, pre", "channel, post", "channel, post"]
    assert _labels(folders[:2]) == ["none", "channel"]


def test_unknown_norms_are_refused_on_one_line(capsys):
    assert main(["init-bias-unet", "--norms", "group,foo"]) == 2
    assert "norms = foo" in capsys.readouterr().err
