"""Denoising: the best that training windows give, and whether a planner is held against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundwork.errors import UserError
from planner.comparison import denoising
from planner.comparison.denoising import BEST, denoise, posterior_mean
from planner.main import main
from planner.plan import Planner
from planner.settings import DenoiseSettings
from planner.training.train import train


def test_the_posterior_mean_is_bayes_rule_over_the_training_windows():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(5, 2, 3, generator=generator, dtype=torch.float64) * 2 - 1
    noisy, kept = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64), 0.3
    found = posterior_mean(noisy, values, kept)
    for one, mean in zip(noisy, found, strict=True):
        normal = torch.distributions.Normal(kept**0.5 * values, (1 - kept) ** 0.5)
        likelihoods = normal.log_prob(one).sum((1, 2)).exp()
        expected = (likelihoods[:, None, None] * values).sum(0) / likelihoods.sum()
        torch.testing.assert_close(mean, expected)


def test_without_noise_the_posterior_mean_is_the_window_itself_and_without_signal_the_mean_of_all():
    values = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 2, 3)
    torch.testing.assert_close(posterior_mean(values, values, 0.9999), values)
    nothing = posterior_mean(torch.randn(3, 2, 3, dtype=torch.float64), values, 1e-12)
    torch.testing.assert_close(nothing, values.mean(0).expand(3, 2, 3), rtol=1e-4, atol=1e-4)


@pytest.fixture
def dropped(tiny, hash_dataset, tmp_path):
    """A run that saw unknown ends."""
    train(tiny(diffusion={"drop_ends": 0.5}), tmp_path / "dropped", "cpu", progress=False)
    return str(tmp_path / "dropped")


def test_a_run_is_measured_at_each_level_and_beside_real_windows(dropped, tmp_path, capsys):
    argv = ["denoise", dropped, "--windows", "16", "--levels", "0.25,0.75", "--out", str(tmp_path)]
    assert main(argv) == 0
    assert "| dropped | real |" in capsys.readouterr().out
    (one,) = json.loads((tmp_path / "denoise.json").read_text()).values()
    first, second = one["levels"]
    assert 0 < first["noise_m"] < second["noise_m"]
    assert first[BEST]["mean"] < second[BEST]["mean"]
    assert first[BEST]["mean"] < first["network"]["mean"], "a network of four training steps has learned nothing"
    real, drawn = one["windows"]["real"], one["windows"]["drawn"]
    assert real["valid"]["mean"] == 1 > drawn["valid"]["mean"]
    assert (tmp_path / "denoise.png").stat().st_size > 10_000


def test_runs_that_tell_nothing_are_refused_before_any_is_measured(
    tiny, hash_dataset, tiny_run, dropped, tmp_path, monkeypatch
):
    monkeypatch.setattr(denoising, "measure", None)
    train(tiny(data={"validation_share": 0.0}, diffusion={"drop_ends": 0.5}), tmp_path / "run", "cpu", progress=False)
    chunks = tiny(model={"overlap": 6}, diffusion={"drop_ends": 0.5})
    train(chunks, tmp_path / "chunks", "cpu", progress=False)
    for runs, line in (
        ([str(tmp_path / "chunks")], "told of their neighbours"),
        ([str(tmp_path / "run")], "kept no validation windows"),
        ([dropped, str(tiny_run)], "always knew both ends"),
        ([dropped, dropped], "names of their own"),
    ):
        with pytest.raises(UserError, match=line):
            denoise(runs, DenoiseSettings(runs=tuple(runs), out=tmp_path), tmp_path, "cpu", "")


def test_windows_are_drawn_as_the_run_draws(dropped):
    """Without noise they are all alike."""
    planner, settings = Planner.from_run(dropped, device="cpu"), DenoiseSettings(runs=(dropped,), out=Path(), windows=4)
    cold = replace(planner.config, diffusion=replace(planner.config.diffusion, temperature=0.0))
    spread = []
    for config in (planner.config, cold):
        planner.config = config
        length = denoising.measure(planner, settings)["windows"]["drawn"]["length"]
        spread.append(length["high"] - length["low"])
    assert spread[0] > 1e-3 > 1e-6 > spread[1]
