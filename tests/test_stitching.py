"""Stitching: which tasks count, what a gap is, how far plans are from the data, and which factor gets the credit."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY

from envs.maps import get_map
from groundwork.errors import UserError
from norm_study.main import PROGRAM, main
from norm_study.stitching.cells import Change, FactorRun, Grid
from norm_study.stitching.chances import CHANGES, UNCHANGED, chances_of
from norm_study.stitching.dose import whole_reach
from norm_study.stitching.effects import effects, explained
from norm_study.stitching.figures import FIGURES, outcomes
from norm_study.stitching.grid import Budget, answered_runs, answers_in, stored_runs
from norm_study.stitching.intervention import InterventionSettings, _Problem
from norm_study.stitching.novelty import NearestWindows, distinct_routes, route
from norm_study.stitching.rates import best_rate, read_rates
from norm_study.stitching.settings import StitchOptions, StitchSettings
from norm_study.stitching.summary import summarize
from planner.config import Config, from_dict, load_preset, merge, to_dict
from planner.data import load_data
from planner.norm_layers import DynamicTanh
from planner.norms import NORM_KINDS, mixes_time
from planner.plan import Planner
from planner.rollout import can_be_done, task_length_m
from planner.training.run import RunFolder
from planner.training.train import train
from planner.training.trainer import make_network


def task_of(maze, family):
    return next(task for task in maze.tasks if task.family == family)


def test_a_task_counts_when_the_horizon_covers_its_path_at_the_data_speed():
    maze = get_map("hash")
    turn = task_of(maze, "turn")
    assert task_length_m(maze, turn) == 8
    assert not can_be_done(maze, turn, 100, 8 / (0.8 * 100))
    assert can_be_done(maze, turn, 101, 8 / (0.8 * 100) * 1.001)
    assert task_length_m(maze, task_of(maze, "return")) == 2


def row(run, split, valid, multiple=1, countable=True):
    measures = dict.fromkeys(("success", "longest_step", "end_gap", "tracking_error"), 1.0)
    return {
        "run": run,
        "run_seed": 0,
        "split": split,
        "multiple": multiple,
        "countable": countable,
        "plan_valid": valid,
        **measures,
    }


def test_the_gap_is_demonstrated_minus_held_out_over_seeds_and_ignores_what_cannot_be_done():
    rows = []
    for run, held_out in (("a", 0.4), ("b", 0.5), ("c", 0.6)):
        rows += [row(run, "demonstrated", True) for _ in range(10)]
        rows += [row(run, "held_out", index < 10 * held_out) for index in range(10)]
        rows += [row(run, "held_out", False, countable=False) for _ in range(50)]
    summary = summarize(rows)
    gap = summary["gap"]["plan_valid"]
    assert gap["over"] == "seeds"
    assert gap["n"] == 3
    assert gap["mean"] == pytest.approx(0.5)
    # Student's interval of 0.4, 0.5, 0.6: 4.303 * 0.1 / sqrt(3)
    assert gap["high"] - gap["mean"] == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert summary["by_horizon"]["1"]["held_out"] == summary["held_out"]


def test_a_plan_that_is_not_valid_jumps_or_else_leads_through_a_wall():
    plans = [(True, 2.0), (False, 2.1), (False, 2.1), (False, 2.0)]  # valid?, longest step over the data's
    rows = [row("a", "held_out", valid) | {"longest_step": longest} for valid, longest in plans]
    held_out = summarize(rows)["held_out"]
    assert {name: held_out[name]["mean"] for name in ("plan_valid", "jumps", "through_wall")} == {
        "plan_valid": 0.25,
        "jumps": 0.5,
        "through_wall": 0.25,
    }
    assert all(held_out[name]["over"] == "episodes" for name in ("jumps", "through_wall"))


def test_seeds_that_agree_leave_the_gap_to_the_episodes():
    rows = [row(run, split, split == "demonstrated") for run in "abc" for split in ("demonstrated", "held_out")] * 4
    gap = summarize(rows)["gap"]["plan_valid"]
    assert gap["over"] == "episodes"
    assert gap["mean"] == 1
    assert 0.5 < gap["low"] < 1 == gap["high"]


def test_one_pair_of_runs_has_an_effect_without_an_interval():
    runs = [stored(FactorRun(norm, "zeros", "half", 0), norm == "channel") for norm in ("group", "channel")]
    found = next(entry for entry in effects(runs) if entry["factor"] == "norm")
    assert found["mean"] == 1
    assert found["low"] is None


def test_with_fewer_than_three_seeds_the_interval_is_over_episodes():
    rows = [row("a", split, index % 2 == 0) for split in ("demonstrated", "held_out") for index in range(10)]
    summary = summarize(rows)
    assert summary["gap"]["plan_valid"]["over"] == summary["held_out"]["plan_valid"]["over"] == "episodes"
    assert summary["gap"]["plan_valid"]["low"] < 0 < summary["gap"]["plan_valid"]["high"]


def test_a_split_without_any_task_that_can_be_done_says_so_by_none():
    summary = summarize([row("a", "held_out", True), row("a", "demonstrated", True, countable=False)])
    assert summary["demonstrated"]["plan_valid"]["mean"] is None
    assert summary["gap"]["plan_valid"]["mean"] is None


def test_a_stitched_plan_is_far_as_a_whole_and_near_in_each_piece(hash_dataset, tiny):
    data = load_data(tiny().data)
    whole, piece = (NearestWindows(data.training, data.statistics.normalizer, points) for points in (32, 16))
    windows = data.training.gather(torch.arange(0, len(data.training), 7)).transpose(1, 2)
    positions = data.statistics.normalizer.denormalize(windows)[..., :2].numpy()
    assert np.allclose(whole.farthest_part(positions[:5]), 0, atol=2e-3)
    stitched = np.concatenate([positions[:1, :16], positions[-1:, 16:]], axis=1)
    assert piece.farthest_part(stitched)[0] < 2e-3
    assert whole.farthest_part(stitched)[0] > 0.05
    one_part_moved = positions[:1].copy()
    one_part_moved[:, 16:] += 50
    assert piece.farthest_part(one_part_moved)[0] > 10


def test_the_distance_to_a_window_moved_by_ten_centimetres_is_ten_centimetres(hash_dataset, tiny):
    data = load_data(tiny().data)
    one_window = type(data.training)(data.training.series_ND, data.training.starts_W[:1], data.training.offsets_T)
    nearest = NearestWindows(one_window, data.statistics.normalizer, 32)
    points = data.statistics.normalizer.denormalize(one_window.gather(torch.tensor([0])).transpose(1, 2))
    assert nearest.distance(points[..., :2].numpy() + [0.06, 0.08]) == pytest.approx(0.1, abs=1e-4)


def test_routes_are_told_apart_by_their_cells():
    maze = get_map("hash")
    right = np.linspace(maze.cell_to_xy((3, 1)), maze.cell_to_xy((3, 9)), 64)
    there_and_back = np.concatenate([right, right[::-1]])
    assert route(right, maze) == tuple((3, column) for column in range(1, 10))
    assert len(route(there_and_back, maze)) == 17
    through_walls = np.linspace(maze.cell_to_xy((3, 1)), maze.cell_to_xy((7, 9)), 64)
    assert distinct_routes(np.stack([right, right + 0.01, through_walls])[None], maze, 1.0) == [(2, 1)]


def grid_of(share):
    """Runs of two norms, paddings and reaches over three seeds, ``share`` of four episodes valid in each."""
    found = []
    for norm, padding, reach, seed in itertools.product((0, 1), (0, 1), (0, 1), range(3)):
        run = FactorRun(("group", "channel")[norm], ("zeros", "replicate")[padding], ("half", "whole")[reach], seed)
        valid = round(4 * share(norm, padding, reach))
        found.append((run, {"rows": [row(run.name, "held_out", episode < valid) for episode in range(4)]}))
    return found


def test_what_a_factor_explains_is_its_part_of_the_variance_between_cells():
    additive = explained(grid_of(lambda norm, padding, reach: 0.5 * norm + 0.25 * padding))[0]
    # Variances of ±0.25 and ±0.125: four to one.
    shares = {name: additive[name]["mean"] for name in ("norm", "padding", "reach", "interactions")}
    assert shares == pytest.approx({"norm": 0.8, "padding": 0.2, "reach": 0, "interactions": 0})
    crossed = explained(grid_of(lambda norm, padding, reach: float(norm != reach)))[0]
    assert crossed["interactions"]["mean"] == pytest.approx(1)
    assert crossed["norm"]["mean"] == pytest.approx(0)


def test_factors_are_explained_one_by_one_where_cells_are_missing():
    runs = [
        (run, result)
        for run, result in grid_of(lambda norm, padding, reach: norm / 2 + reach / 4)
        if (run.padding, run.reach) != ("replicate", "whole")
    ]
    of_padding, of_field = explained(runs)
    assert (of_padding["reaches"], of_field["paddings"]) == (["half"], ["zeros"])
    assert of_padding["norm"]["mean"] == pytest.approx(1)
    assert of_field["reach"]["mean"] == pytest.approx(0.2)
    assert "padding" not in of_field


def test_nothing_is_explained_where_cells_are_equal_or_of_one_norm():
    assert explained(grid_of(lambda *_: 0.5)) == []
    assert explained([pair for pair in grid_of(lambda _, padding, __: padding) if pair[0].norm == "group"]) == []


def test_effects_of_padding_are_told_norm_by_norm():
    found = {
        entry["within"]: entry["mean"]
        for entry in effects(grid_of(lambda norm, padding, _: norm * padding))
        if entry["factor"] == "padding"
    }
    assert found == {"all": 0.5, "group": 0, "channel": 1}


def test_the_effect_of_a_norm_is_told_over_all_cells_and_at_the_reference_padding_and_field():
    runs = grid_of(lambda norm, padding, reach: norm * (1 + padding + 2 * reach) / 4)
    found = {entry["within"]: (entry["mean"], entry["cells"]) for entry in effects(runs) if entry["factor"] == "norm"}
    assert found == {"all": (0.625, 4), "zeros, half": (0.25, 1)}
    alone = [pair for pair in runs if (pair[0].padding, pair[0].reach) == ("zeros", "half")]
    assert [entry["within"] for entry in effects(alone)] == ["all"]


def test_what_a_norms_plans_are_fills_its_bar():
    held_out = outcomes(grid_of(lambda norm, *_: 0.75 * norm)).axes[1]
    names = [label.get_text() for label in held_out.get_yticklabels()]
    found = {
        bars.get_label(): dict(zip(names, (bar.get_width() for bar in bars), strict=True))
        for bars in held_out.containers
    }
    assert found == {
        "valid": {"group": 0, "channel": 75},
        "through a wall, no jump": {"group": 100, "channel": 25},
        "jump": {"group": 0, "channel": 0},
    }


def problem(hash_dataset, **model):
    config = from_dict(merge(TINY, {"model": {"dim_mults": [1], **model}}))
    data = load_data(config.data)
    network = make_network(config, data.statistics.layout.transition_dim)
    planner = Planner(network, config, data.statistics)
    return _Problem(planner, data.training, InterventionSettings(samples=8, contexts=2, lengths=(1, 2)))


@pytest.mark.parametrize("norm", [kind for kind in NORM_KINDS if not mixes_time(kind, training=False)])
def test_one_evaluation_moves_nothing_beyond_the_receptive_field_without_a_norm_over_time(hash_dataset, norm):
    asked = problem(hash_dataset, norm=norm)
    for part in asked.network.modules():
        if isinstance(part, DynamicTanh):
            part.alpha.data.fill_(1)  # a half, its start, damps what a later evaluation carries on
    assert asked.horizon >= 4 * max(asked.left, asked.right)
    assert asked.after_one_evaluation(0.5) < 1e-5
    assert asked.over_lengths(0.5) < 1e-5
    moved = asked.after_denoising()
    assert moved[8] > 1e-6 > moved[1]  # several evaluations carry information on, with any norm


@pytest.mark.parametrize("norm", [kind for kind in NORM_KINDS if mixes_time(kind, training=False)])
def test_one_evaluation_moves_with_a_norm_over_time(hash_dataset, norm):
    asked = problem(hash_dataset, norm=norm)
    assert asked.after_one_evaluation(0.5) > 1e-3
    assert asked.over_lengths(0.5) > 1e-3


def stored(run, valid):
    return run, {"rows": [row(run.name, "held_out", valid)]}


def test_an_effect_is_measured_between_runs_that_differ_in_nothing_else():
    runs = []
    for seed in range(3):
        runs += [stored(FactorRun("group", "zeros", "half", seed), False)]
        runs += [stored(FactorRun("channel", "zeros", "half", seed), True)]
        # has no partner with the norm "group", so it must not count for the norm
        runs += [stored(FactorRun("channel", "replicate", "half", seed), seed > 0)]
    found = {(entry["factor"], entry["level"]): entry for entry in effects(runs)}
    channel = found["norm", "channel"]
    assert (channel["mean"], channel["cells"]) == (1, 1)
    assert channel["over"] == "episodes", "the seeds agree"
    assert 0 < channel["low"] < 1
    assert found["padding", "replicate"]["mean"] == pytest.approx(-1 / 3)
    assert found["padding", "replicate"]["n"] == 3


def stitch_options(*words):
    return PROGRAM.read(["stitch", *words])[1][0]


def test_the_command_asks_for_the_whole_grid_unless_told_otherwise():
    assert stitch_options("--suite", "factors").grid == Grid()


def test_a_quick_study_has_every_norm_once_and_folders_of_its_own():
    whole, quick = (stitch_options("--suite", "factors", "--budget", it) for it in ("full", "quick"))
    assert sorted(run.norm for run in quick.grid.runs()) == sorted(Grid.norms)
    assert not set(whole.folders) & set(quick.folders)


def test_a_quick_study_does_what_is_asked_otherwise():
    asked = stitch_options("--suite", "factors", "--budget", "quick", "--horizons", "1,2,4", "--seeds", "2")
    assert (asked.settings.multiples, asked.settings.episodes, asked.seeds, asked.steps) == ((1, 2, 4), 4, 2, 3000)


def test_the_grid_holds_each_cell_once_and_packed_norms_at_one_place_only():
    runs = Grid().runs()
    assert len({run.name for run in runs}) == len(runs) == (7 * 2 * 3 + 2) * 3
    with pytest.raises(UserError, match="norms = gruop is not one of .*group.*channel"):
        Grid(norms=("gruop",))


def test_a_stored_answer_cut_short_or_to_another_question_does_not_count(tmp_path):
    grid, run = Grid(("none",), ("zeros",), ("half",), 1), FactorRun("none", "zeros", "half", 0)
    budget = Budget(Config(), StitchSettings())
    assert not answered_runs(tmp_path, grid.runs(), budget)
    store = answers_in(tmp_path)
    store.keep(budget.question(run), {"rows": [1]})
    assert answered_runs(tmp_path, grid.runs(), budget) == [(run, {"rows": [1]})] == stored_runs(tmp_path, grid.runs())
    other = replace(budget, base=Config(steps=7))
    assert not answered_runs(tmp_path, grid.runs(), other)
    assert not answered_runs(tmp_path, grid.runs(), replace(budget, rates={"none": 5e-3}))
    path = store.path(budget.question(run))
    path.write_bytes(path.read_bytes()[:-12])
    assert not answered_runs(tmp_path, grid.runs(), budget)


def test_a_suite_trains_measures_draws_and_does_nothing_twice(hash_dataset, tmp_path, capsys):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    argv = [
        "stitch",
        "--suite",
        "factors",
        "--norms",
        "none,group",
        "--paddings",
        "zeros",
        "--reaches",
        "half",
        "--seeds",
        "1",
        "--horizons",
        "1,2",
        "--episodes",
        "1",
        "--best-of",
        "2",
        "--preset",
        str(preset),
        "--out",
        str(tmp_path / "out"),
        "--runs-folder",
        str(tmp_path / "runs"),
    ]
    assert main(argv) == 0
    results = list(stored_runs(tmp_path / "out", Grid(("none", "group"), ("zeros",), ("half",), 1).runs()))
    assert [run.norm for run, _ in results] == ["none", "group"]
    summary = results[0][1]["summary"]
    assert set(summary) == {"demonstrated", "held_out", "gap", "by_horizon"}
    assert set(summary["gap"]["plan_valid"]) == {"mean", "median", "low", "high", "n", "over"}
    for name in ("tables.md", "summary.json", "section.json", *(f"{figure}.png" for figure in FIGURES)):
        assert (tmp_path / "out" / name).stat().st_size > 100
    (path, _) = (tmp_path / "out" / "rows").glob("*.json.gz")
    before = path.stat().st_mtime_ns
    assert main(argv) == 0
    assert path.stat().st_mtime_ns == before
    more = [*argv, "--seeds", "2", "--stored-only"]
    assert main(more) == 0
    assert "2 of 4 runs of this grid are stored" in (tmp_path / "out" / "tables.md").read_text()
    capsys.readouterr()
    assert main([*more, "--episodes", "2"]) == 2
    assert "holds no run of this grid and these settings" in capsys.readouterr().err


def test_rates_are_chosen_on_demonstrated_tasks_and_the_grid_trains_with_them(hash_dataset, tmp_path, capsys):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    common = [
        "--preset",
        str(preset),
        "--norms",
        "none",
        "--episodes",
        "1",
        "--jobs",
        "1",
        "--runs-folder",
        str(tmp_path / "runs"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["stitch", "--suite", "rates", "--rates", "1e-3,5e-3", *common]) == 0
    rows = json.loads(gzip.decompress((tmp_path / "out" / "rates_rows.json.gz").read_bytes()))
    assert {row["split"] for row in rows} == {"demonstrated"}
    assert {row["rate"] for row in rows} == {1e-3, 5e-3}
    assert "**" in (tmp_path / "out" / "rates.md").read_text()
    (tmp_path / "out" / "rates.json").write_text('{"none": 0.005}')
    grid = ["--paddings", "zeros", "--reaches", "half", "--seeds", "1", "--horizons", "1", "--best-of", "1"]
    assert (
        main(["stitch", "--suite", "factors", "--rates-from", str(tmp_path / "out" / "rates.json"), *grid, *common])
        == 0
    )
    assert RunFolder(tmp_path / "runs" / "none-zeros-half-seed0").config().learning_rate == 5e-3
    base = replace(from_dict(TINY), learning_rate=5e-3)
    one = Grid(("none",), ("zeros",), ("half",), 1)
    assert answered_runs(tmp_path / "out", one.runs(), Budget(base, StitchSettings((1,), 1, 1)))
    assert not answered_runs(tmp_path / "out", one.runs(), Budget(from_dict(TINY), StitchSettings((1,), 1, 1)))
    capsys.readouterr()


def test_the_best_rate_is_the_one_with_most_valid_plans_and_the_smallest_of_equals():
    rows = [
        {"rate": rate, "plan_valid": valid}
        for rate, valid in [(4e-3, True), (4e-3, True), (2e-3, True), (2e-3, True), (1e-3, True), (1e-3, False)]
    ]
    assert best_rate(rows) == 2e-3


@pytest.mark.parametrize("text", ["[]", '{"none": "fast"}', '{"none": 2.0}', "{"])
def test_rates_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(UserError, match=r"rates\.json"):
        read_rates(tmp_path / "rates.json")


@pytest.mark.parametrize(
    "argv",
    [
        *([], ["--run", "nowhere"], ["--run", "x", "--suite", "factors"], ["--run", "x", "--episodes", "0"]),
        ["--suite", "chances", "--changes", "groups-1", "--norms", "channel"],
    ],
)
def test_stitch_refuses_in_one_line(argv, capsys):
    assert main(["stitch", *argv]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_fix_keeps_every_weight_but_the_norm_and_reports_each_stage(tiny_run, tmp_path, capsys):
    sizes = ["--steps", "4", "--every", "2", "--horizons", "1,4", "--episodes", "1", "--best-of", "1"]
    argv = [
        "stitch",
        "--suite",
        "fix",
        "--from",
        str(tiny_run),
        *sizes,
        "--out",
        str(tmp_path),
        "--runs-folder",
        str(tmp_path / "runs"),
    ]
    assert main(argv) == 0
    rows = json.loads(gzip.decompress((tmp_path / "fix.json.gz").read_bytes()))
    stages = {how: {row["steps_spent"] for row in rows if row["how"] == how} for how in ("exchanged", "from scratch")}
    assert stages == {"exchanged": {None, 1, 2, 4}, "from scratch": {2, 4}}
    one, other = (RunFolder(tmp_path / "runs" / f"tiny-to-channel{end}").config() for end in ("", "-scratch"))
    assert (one.init_from, other) == (str(tiny_run), replace(one, init_from=""))
    assert (tmp_path / "fix.png").stat().st_size > 100
    before = RunFolder(tiny_run).load_network("ema").state_dict()
    after = RunFolder(tmp_path / "runs" / "tiny-to-channel-exchanged").load_network("ema")
    assert after.config["norm"] == "channel"
    moved = max((value - before[name]).abs().max().item() for name, value in after.state_dict().items())
    fresh = make_network(RunFolder(tiny_run).config(), 4).state_dict()
    trained = max((fresh[name] - before[name]).abs().max().item() for name in before if ".norm." not in name)
    assert moved < 6e-4 < trained  # one step of Adam in the warm-up, against a whole training
    capsys.readouterr()


def test_beginning_with_weights_of_another_shape_is_refused(tiny, tiny_run, hash_dataset, tmp_path):
    config = tiny(init_from=str(tiny_run), model={"dim": 16})
    with pytest.raises(UserError, match="init_from = .*: tensor .* of another shape"):
        train(config, str(tmp_path / "other"), "cpu", progress=False)


def test_the_dose_reaches_from_no_time_to_the_whole_plan_and_the_control_keeps_the_count_of_numbers():
    runs = stitch_options("--suite", "dose", "--seeds", "1").grid.runs()
    assert len({run.name for run in runs}) == len(runs)
    half = [run for run in runs if run.reach == "half"]
    assert {run.window for run in half if run.norm == "group_window" and not run.control} == {1, 2, 4, 8, 16, 32, 68}
    control = [run for run in half if run.control]
    assert {run.window for run in control} == {2, 4, 16, 32}
    for run in control:
        config = run.config(Config(), {})
        assert FactorRun.of(to_dict(config)) == run
        assert config.model.dim // config.model.norm_groups * config.model.norm_window == 32  # as 8 groups of 8 points


def test_the_whole_reach_is_that_of_the_convolutions_and_of_every_window_on_the_way():
    at = {
        window: whole_reach(FactorRun("group_window", "zeros", "half", 0, window), Config().model) for window in (1, 2)
    }
    channel = whole_reach(FactorRun("channel", "zeros", "half", 0), Config().model)
    assert at[1] == channel == 31
    assert at[2] == 31 + 6  # one point left for each norm of the upper level on a path: windows of 1 below it


def test_the_suite_of_doses_trains_audits_draws_and_does_nothing_twice(hash_dataset, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    argv = ["stitch", "--suite", "dose", "--windows", "1,4", "--reaches", "half", "--seeds", "1", "--horizons", "1,2"]
    argv += ["--episodes", "1", "--best-of", "1", "--jobs", "1", "--preset", str(preset)]
    argv += ["--out", str(tmp_path / "out"), "--runs-folder", str(tmp_path / "runs")]
    assert main(argv) == 0
    table = (tmp_path / "out" / "dose.md").read_text()
    assert "5 of 5 runs are stored" in table
    windows = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| half")]
    assert windows == ["1", "4", "whole plan", "1", "4"]
    assert (tmp_path / "out" / "dose.png").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "runs")
    assert main([*argv, "--stored-only"]) == 0
    assert (tmp_path / "out" / "dose.md").read_text().splitlines()[2:] == table.splitlines()[2:]


def test_every_chance_changes_one_setting_of_the_grid_and_can_be_built():
    base = from_dict(load_preset("hash"))
    asked = StitchOptions.from_options({"suite": "chances"})
    chances = chances_of(asked.norms, asked.changes, 1)
    assert {(chance.change, chance.norm) for chance in chances} == {
        (name, norm) for name, change in CHANGES.items() for norm in change.norms
    }
    assert {chance.change for chance in chances} == set(get_args(Change)) == set(CHANGES) - {UNCHANGED}
    for chance in chances:
        plain = replace(chance, change=UNCHANGED).config(base)
        assert plain == FactorRun(chance.norm, "zeros", "half", 0).config(base, {})
        flat = [flatten(to_dict(config)) for config in (plain, chance.config(base))]
        assert sum(flat[0][key] != flat[1][key] for key in flat[0]) == 1, chance
        make_network(chance.config(base), 4)


def flatten(values, name=""):
    if not isinstance(values, dict):
        return {name: values}
    return {key: found for part in values for key, found in flatten(values[part], f"{name}.{part}").items()}


def test_the_suite_of_chances_stands_beside_the_grid_and_does_nothing_twice(hash_dataset, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    argv = ["--seeds", "1", "--horizons", "1,2", "--episodes", "1", "--best-of", "1", "--jobs", "1", "--norms", "group"]
    argv += ["--preset", str(preset), "--out", str(tmp_path / "out"), "--runs-folder", str(tmp_path / "runs")]
    chances = ["stitch", "--suite", "chances", "--changes", "groups-4,noise", *argv]
    assert main(["stitch", "--suite", "factors", "--paddings", "zeros", "--reaches", "half", *argv]) == 0
    assert main(chances) == 0
    table = (tmp_path / "out" / "chances.md").read_text()
    assert "2 of 2 runs are stored" in table
    changed = [line.split(" | ")[0] for line in table.splitlines() if " | group | " in line]
    assert changed == ["| as in the grid", "| 4 groups", "| noise predicted"]
    assert (tmp_path / "out" / "chances.png").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "runs")
    assert main([*chances, "--stored-only"]) == 0
    assert (tmp_path / "out" / "chances.md").read_text().splitlines()[2:] == table.splitlines()[2:]
