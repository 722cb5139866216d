"""Initial prejudice: batched networks are networks, the theory's law is the law, prejudice is found and lost."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from norm_study.init_bias.data import blobs
from norm_study.init_bias.guesses import (
    PAPER_VARIANTS,
    measure_networks,
    measure_outputs,
    run_init_bias,
    summarize_init_bias,
)
from norm_study.init_bias.networks import CNNChunk, MLPChunk, covariance_root
from norm_study.init_bias.settings import InitBiasConfig, InitBiasTrainingConfig
from norm_study.init_bias.theory import distances, gamma_of, summarize_shares, theory_median, verdict
from norm_study.init_bias.training import first_for_good, run_init_bias_training
from norm_study.main import main
from norm_study.reproduce.experiments import run_experiment
from norm_study.reproduce.figures import draw_figures
from norm_study.reproduce.init_bias_figures import INIT_BIAS_FIGURES
from norm_study.reproduce.init_bias_tables import allowed_difference, shares_table, training_table
from norm_study.reproduce.parts import Collected, load_parts, parts_file
from planner.norms import make_norm

CPU = torch.device("cpu")
SMALL = InitBiasConfig(depth=3, width=12, inits=40, points=60, dimensions=20)


def f0_of(config, seed=0):
    return measure_networks(config, [(config.norm, config.place)], seed, CPU)[config.norm, config.place]["f0"]


def plain_mlp(chunk, which, norm, place, activation, depth_index):
    """The same network out of torch's layers."""
    config = chunk.config
    layers = []
    for layer in range(config.depths[depth_index]):
        weight = chunk.first_weights[which] if layer == 0 else chunk.hidden_weights[which, layer - 1]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight)
        normal = {"none": nn.Identity(), "batch": nn.BatchNorm1d(config.width), "layer": nn.LayerNorm(config.width)}
        block = [normal[norm], activation]
        layers += [linear, *(block if place == "pre" else block[::-1])]
    out = nn.Linear(config.width, config.classes, bias=False)
    out.weight = nn.Parameter(chunk.out_weights[which, depth_index])
    return nn.Sequential(*layers, out)


@pytest.mark.parametrize(("norm", "place"), PAPER_VARIANTS)
@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_every_batched_network_is_the_network_that_torchs_layers_make(norm, place, kind):
    config = replace(SMALL, activation=kind, classes=3)
    x = blobs(60, 20, 3, 0)[0]
    chunk = MLPChunk(config, 5, [0, 1, 7], x)
    activation = {"relu": nn.ReLU(), "tanh": nn.Tanh()}[kind]
    for depth_index, (outputs, _) in enumerate(chunk.outputs(norm, place)):
        for which in range(3):
            network = plain_mlp(chunk, which, norm, place, activation, depth_index)
            torch.testing.assert_close(outputs[which].T, network(x), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "group", "instance", "layer", "batch", "channel", "rms"])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_every_batched_cnn_is_the_network_that_torchs_layers_make(norm, place):
    config = replace(SMALL, network="cnn", depth=2)
    x = torch.randn(9, 2, 6)
    chunk = CNNChunk(config, 0, [0, 1, 2], x)
    outputs, _ = list(chunk.outputs(norm, place))[-1]
    for which in range(3):
        h = x
        for weight in chunk.weights:
            own = weight.view(3, config.width, -1, 3)[which]
            normalize = make_norm(norm, config.width, groups=4)
            z = nn.functional.conv1d(h, own, padding=1)
            h = torch.relu(normalize(z)) if place == "pre" else normalize(torch.relu(z))
        torch.testing.assert_close(outputs[which].T, h.mean(-1) @ chunk.out_weights[which, -1].T, atol=2e-5, rtol=1e-4)


def test_a_network_does_not_depend_on_its_chunk():
    x = blobs(60, 20, 2, 0)[0]
    together = list(MLPChunk(SMALL, 3, range(4), x).outputs("layer", "post"))[-1][0]
    alone = list(MLPChunk(SMALL, 3, [2], x).outputs("layer", "post"))[-1][0]
    torch.testing.assert_close(together[2], alone[0])


def test_first_layer_weights_are_kaiming_normal():
    x = blobs(60, 20, 2, 0)[0]
    weights = MLPChunk(SMALL, 0, range(200), x).first_weights.flatten()
    assert weights.std().item() == pytest.approx(math.sqrt(2 / 20), rel=0.02)
    assert stats.kstest(weights[:5000].numpy() / math.sqrt(2 / 20), "norm").pvalue > 1e-3


def test_the_root_of_a_covariance_squares_to_it_even_where_rows_sum_to_zero():
    rows = torch.randn(5, 8, 30)
    rows -= rows.mean(1, keepdim=True)
    root = covariance_root(rows)
    torch.testing.assert_close(root @ root.mT, rows @ rows.mT, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("norm", "place"), [("none", "pre"), ("batch", "pre"), ("layer", "post")])
def test_drawing_only_what_few_points_feel_gives_the_same_law_as_drawing_all_weights(norm, place, monkeypatch):
    config = replace(SMALL, norm=norm, place=place, width=64, points=16, dimensions=100, depth=4, inits=1500)
    few = measure_networks(config, [(norm, place)], 0, CPU)[norm, place]
    monkeypatch.setattr("norm_study.init_bias.networks.felt_inputs", lambda points, inputs: inputs)
    full = measure_networks(config, [(norm, place)], 0, CPU)[norm, place]
    for name in ("f0", "mean", "deviation"):
        assert not np.array_equal(few[name], full[name])
        assert stats.ks_2samp(few[name][-1], full[name][-1]).pvalue > 1e-3


@pytest.mark.parametrize("gamma", [0.02, 0.5, 1.0, 9.0])
def test_shares_drawn_from_the_theory_lie_at_its_distance_zero_and_gamma_comes_back(gamma):
    rng, points, inits = np.random.default_rng(0), 2000, 4000
    mean = rng.normal(size=inits) * math.sqrt(gamma)
    f0 = np.rint(stats.norm.cdf(mean) * points) / points
    ones = np.ones(inits)
    measured = {"f0": f0, "max_fraction": np.maximum(f0, 1 - f0), "mean": mean, "deviation": ones}
    found = summarize_shares({**measured, "scaled_mean": mean / 2, "scaled_deviation": ones}, points)
    assert found["gamma_low"] < gamma < found["gamma_high"]
    assert found["ks"] < 2 * found["ks_floor"]
    assert found["median_max_fraction"] == pytest.approx(theory_median(gamma), abs=0.01)
    assert found["own_ks"] < 0.02
    other = distances(f0[None], np.array([gamma * 3]), points)[0][0]
    assert other > 5 * found["ks"]


def test_scales_of_points_change_the_moments_but_neither_a_guess_nor_the_scaled_gamma():
    x = blobs(60, 20, 2, 0)[0]
    factors = torch.rand(60, 1, generator=torch.Generator().manual_seed(1)) * 3 + 0.1
    plain, stretched = (
        measure_outputs(*list(MLPChunk(SMALL, 0, range(20), data).outputs("none", "pre"))[-1])
        for data in (x, factors * x)
    )
    torch.testing.assert_close(plain["f0"], stretched["f0"])
    torch.testing.assert_close(plain["scaled_mean"], stretched["scaled_mean"], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(plain["mean"], stretched["mean"], rtol=0.05)


def test_gamma_one_is_the_uniform_law_and_bounds_the_verdicts():
    uniform = (np.arange(1001) / 1001)[None]
    assert distances(uniform, np.array([1.0]), 1000)[0][0] < 0.002
    assert [verdict(g) for g in (0.0, 0.049, 0.05, 0.99, 1.0)] == [
        "neutral",
        "neutral",
        "prejudiced",
        "prejudiced",
        "deeply prejudiced",
    ]
    assert gamma_of(np.array([1.0, -1.0]), np.array([1.0, 1.0])) == pytest.approx(2.0)


def test_one_relu_layer_without_norm_has_the_gamma_of_the_arc_cosine_kernel():
    config = InitBiasConfig(depth=1, inits=1500, points=400, width=100, dimensions=400)
    found = summarize_init_bias(config, run_init_bias(config, [0], CPU))
    exact = (1 / math.pi) / (1 - 1 / math.pi)  # inputs that are all but orthogonal
    assert found["gamma_low"] - 0.02 < exact < found["gamma_high"] + 0.02
    assert found["verdict"] == "prejudiced"


def test_a_norm_after_the_activation_is_neutral_and_none_is_deeply_prejudiced():
    config = InitBiasConfig(suite="paper", depth=8, inits=60, points=400, dimensions=100)
    table = summarize_init_bias(config, run_init_bias(config, [0], CPU))["table"]
    deep = {(line["norm"], line["place"]): line["verdict"] for line in table if line["depth"] == 8}
    assert deep == {
        ("none", "pre"): "deeply prejudiced",
        ("batch", "pre"): "prejudiced",
        ("batch", "post"): "neutral",
        ("layer", "pre"): "deeply prejudiced",
        ("layer", "post"): "neutral",
    }


def test_command_gives_the_promised_summary_and_rows(capsys):
    sizes = ["--depth", "2", "--width", "8", "--inits", "5", "--points", "20", "--dimensions", "10"]
    assert main(["init-bias", "--norm", "batch", "--place", "post", *sizes, "--classes", "4", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"median_max_fraction", "p_over_95", "gamma", "verdict"} <= set(result["summary"])
    assert "ks" not in result["summary"]  # the law is that of two classes
    assert len(result["rows"]) == 5
    assert all(0 <= row["f0"] <= row["max_fraction"] <= 1 for row in result["rows"])


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_digits_need_no_download(network):
    pytest.importorskip("sklearn")
    config = InitBiasConfig(network=network, data="digits", norm="layer", depth=2, width=8, inits=6, points=30)
    assert f0_of(config).shape == (2, 6)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--norm", "instance"], "norm = instance"),
        (["--network", "cnn", "--norm", "group", "--groups", "7"], "groups = 7"),
        (["--network", "cnn", "--suite", "paper"], "suite = paper"),
        (["--data", "digits", "--points", "3000"], "points = 3000"),
        (["--norm", "packnorm_isolated"], "packnorm_isolated"),
        (["--inits", "1"], "inits = 1"),
        (["--network", "cnn", "--norm", "instance", "--place", "post"], "norm = instance"),
    ],
)
def test_mistakes_are_one_line(capsys, argv, named):
    try:
        code = main(["init-bias", *argv])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert named in capsys.readouterr().err


def test_first_for_good_is_not_fooled_by_a_return():
    held = np.array([[True, False, False], [False, True, False], [True, True, False], [True, True, False]])
    assert first_for_good(held, [0, 2, 4, 6]).tolist() == [4.0, 2.0, math.inf]


TRAINING = InitBiasTrainingConfig(
    data="blobs", dimensions=8, classes=2, depth=6, width=16, networks=3, steps=60, held_out=200, learning_rate=3e-3
)


def test_stacked_training_equals_training_one_seed_at_a_time():
    config = replace(TRAINING, norm="layer", steps=12)
    together = run_init_bias_training(config, [0, 1], CPU)
    alone = run_init_bias_training(config, [1], CPU)
    np.testing.assert_allclose(together[1]["curves"]["class_loss"], alone[0]["curves"]["class_loss"], atol=2e-3)


def test_a_prejudiced_start_loses_its_bias_and_a_neutral_one_never_had_it():
    deep = run_init_bias_training(replace(TRAINING, norm="none", depth=12, even_within=0.15), [0, 1], CPU)
    neutral = run_init_bias_training(
        replace(TRAINING, norm="batch", place="post", depth=2, even_within=0.15), [0, 1], CPU
    )
    for prejudiced, even in zip(deep, neutral, strict=True):
        assert prejudiced["initial_bias"] > 2 * even["initial_bias"]
        assert prejudiced["gone_step"] > even["gone_step"]
        assert prejudiced["gone_share"] > 0.5
        assert prejudiced["accuracy"] > 0.6


def test_bench_prints_both_speeds(capsys):
    sizes = ["--depth", "2", "--width", "8", "--inits", "4", "--points", "20", "--dimensions", "40", "--repeats", "1"]
    assert main(["init-bias-bench", *sizes, "--json", "-"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["speedup"] > 0
    assert summary["matmul_share"] > 0
    assert 0 < summary["draws_avoided"] < 1


def test_parts_give_their_figures_and_one_table_line_per_network(tmp_path):
    pytest.importorskip("sklearn")
    small = {
        "init-bias": {"depth": 20, "width": 6, "inits": 20, "points": 20, "dimensions": 10},
        "init-bias-training": {"width": 6, "networks": 1, "steps": 4},
    }
    results = {}
    for part in load_parts(parts_file()):
        if part.experiment in small:
            tiny = replace(part, sizes={**part.sizes, **small[part.experiment]})
            rows = run_experiment(part.experiment, tiny.config(), [0, 1], CPU)["rows"]
            results[part.name] = Collected(tiny, rows, 1.0, False)
    assert draw_figures(INIT_BIAS_FIGURES, results, tmp_path) == list(INIT_BIAS_FIGURES)
    assert len(list(tmp_path.iterdir())) == 2 * len(INIT_BIAS_FIGURES)
    tables = [line for table in (shares_table, training_table) for line in table(results).markdown().splitlines()]
    assert sum(line.startswith(("| none | ", "| batch ", "| layer ")) for line in tables) == 5 * 5 + 10
    assert sum("±" in line for line in tables) == 10


def test_the_allowed_difference_is_wider_than_either_error():
    summary = {"median_max_fraction_low": 0.60, "median_max_fraction_high": 0.62, "inits": 1200}
    assert allowed_difference(summary, 1000) == pytest.approx(0.01 * 2 + 0.001)
