"""The command: JSON as promised, one-line refusals, and a reproduction that never does a part twice."""

from __future__ import annotations

import json
import re

import pytest
import torch
from wanted import TINY_PARTS

from groundwork.jobs import LocalExecutor
from norm_study.main import main
from norm_study.reproduce import parts as reproduction
from norm_study.reproduce.parts import collect, load_parts, run_parts
from norm_study.reproduce.results import write_results

SMALL = ["--length", "24", "--depth", "3", "--kernel", "3", "--width", "8", "--batch", "4", "--steps", "3"]
TESTS = ["--predictions", "40"]
PROBES = ["--probe-steps", "2", "--probe-width", "4", "--probe-batch", "2"]
INTERVAL = {"mean", "median", "low", "high", "n"}


def run_json(capsys, *argv):
    assert main([*argv, "--seeds", "2", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"config", "rows", "summary"}
    assert result["config"]["seeds"] == [0, 1]
    return result


@pytest.mark.parametrize("norm", ["none", "group", "instance", "layer", "batch", "channel", "rms"])
def test_localize_json(capsys, norm):
    result = run_json(capsys, "localize", *SMALL, *TESTS, "--norm", norm)
    assert {"mse", "floor", "localization_distance", "length", "receptive_field"} <= set(result["summary"])
    assert set(result["summary"]["mse"]) == INTERVAL
    assert result["summary"]["receptive_field"] == 3
    assert len(result["rows"]) == 2


def test_multihop_json(capsys):
    summary = run_json(capsys, "multihop", *SMALL, *TESTS)["summary"]
    assert summary["single_hop_reach"] == 9


def test_packnorm_json(capsys):
    sizes = ["--length", "9", "--depth", "3", "--kernel", "3", "--width", "4", "--batch", "2", "--steps", "2"]
    result = run_json(capsys, "packnorm", *sizes, *TESTS, "--overlap", "4", "--no-coupled")
    assert set(result["summary"]) == {"mse", "overlap", "length", "coupled"}
    assert result["summary"]["coupled"] is False


def test_groups_json(capsys):
    result = run_json(
        capsys, "groups", *SMALL, *TESTS, *PROBES, "--group-counts", "1,4", "--learning-rates", "1e-3,1e-2"
    )
    assert {"groups", "learning_rate", "seed", "mse", "localization_distance"} <= set(result["rows"][0])
    assert len(result["rows"]) == 2 * 2 * 2


def test_batchnorm_json(capsys):
    summary = run_json(capsys, "batchnorm", *SMALL, *TESTS, "--calibration", "4")["summary"]
    assert {"mse_minibatch", "mse_running", "distance_minibatch", "distance_running", "floor"} <= set(summary)


def test_probe_json(capsys):
    rows = run_json(capsys, "probe", *SMALL, *TESTS, *PROBES)["rows"]
    assert [row["layer"] for row in rows] == [1, 2, 1, 2]
    assert all(isinstance(row["localized"], list) and "distance" in row for row in rows)


def test_unet_json(capsys):
    sizes = [
        "--length",
        "24",
        "--dim",
        "4",
        "--groups",
        "4",
        "--dim-mults",
        "1",
        "--kernel",
        "3",
        "--batch",
        "2",
        "--steps",
        "2",
    ]
    summary = run_json(capsys, "unet", *sizes, *TESTS)["summary"]
    assert summary["receptive_field"] == [9, 9]
    assert summary["interior_localized"]["n"] == 2


def test_bench_json(capsys):
    assert main(["bench", "--steps", "2", "--networks", "2", "--repeats", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["ratio"] > 0


def test_json_file_and_readable_summary(capsys, tmp_path):
    assert main(["localize", *SMALL, *TESTS, "--json", str(tmp_path / "a.json")]) == 0
    assert "mse:" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "a.json").read_text())["rows"]) == 1


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["localize", "--kernel", "4"], "kernel = 4"),
        (["localize", "--depth", "1"], "depth = 1"),
        (["localize", "--norm", "group", "--groups", "5"], "groups = 5"),
        (["localize", "--learning-rate", "nan"], "learning_rate = nan"),
        (["localize", "--steps", "-3"], "steps = -3"),
        (["localize", "--alpha", "2"], "alpha = 2"),
        (["localize", "--seeds", "0"], "seeds = 0"),
        (["localize", "--seed", "-1"], "seed = -1"),
        (["localize", "--norm", "foo"], "foo"),
        (["localize", "--norm", "packnorm_isolated"], "packnorm_isolated"),
        (["localize", "--norm", "batch", "--batch", "5"], "minibatch = 2"),
        (["localize", *SMALL, *TESTS, "--learning-rate", "1e30", "--steps", "30"], "diverged"),
        (["packnorm", "--overlap", "34"], "overlap = 34"),
        (["packnorm", "--length", "24"], "length = 24"),
        (["multihop", "--length", "40"], "length = 40"),
        (["groups", "--group-counts", "3"], "group_counts = 3"),
        (["groups", "--group-counts", "1,x"], "1,x"),
        (["unet", "--length", "33", "--dim-mults", "1,2"], "length = 33"),
        (["unet", "--length", "30"], "receptive field"),
        (["localize", *SMALL, *TESTS, "--json", "/dev/null/a.json"], "/dev/null"),
        (["nothing"], "nothing"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(capsys, argv, named):
    try:
        code = main(argv)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert named in captured.err


def test_cuda_without_a_gpu_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["localize", "--device", "cuda"]) == 2
    assert "device = cuda" in capsys.readouterr().err


@pytest.fixture
def tiny_parts(tmp_path, monkeypatch):
    path = tmp_path / "parts.yaml"
    path.write_text(TINY_PARTS)
    monkeypatch.setattr("norm_study.reproduce.results.parts_file", lambda: path)
    return load_parts(path)


def test_an_interrupted_run_goes_on_and_repeats_nothing(tmp_path, tiny_parts, monkeypatch):
    ran, real = [], reproduction.run_experiment

    def counted(name, config, seeds, device):
        if len(ran) == 3:
            ran.append("interrupted")
            raise KeyboardInterrupt
        ran.append((name, tuple(seeds)))
        return real(name, config, seeds, device)

    monkeypatch.setattr(reproduction, "run_experiment", counted)
    with pytest.raises(KeyboardInterrupt):
        run_parts(tiny_parts, tmp_path / "rows", torch.device("cpu"), LocalExecutor())
    before = {path.name: path.read_bytes() for path in (tmp_path / "rows").glob("*.json")}
    run_parts(tiny_parts, tmp_path / "rows", torch.device("cpu"), LocalExecutor())
    after = {path.name: path.read_bytes() for path in (tmp_path / "rows").glob("*.json")}
    assert len(before) == 3
    assert len(after) == 6
    assert len(ran) == 7  # three, the interruption, and the three that were missing
    assert all(after[name] == content for name, content in before.items())
    assert run_parts(tiny_parts, tmp_path / "rows", torch.device("cpu"), LocalExecutor()) == []


def test_changed_sizes_and_half_written_files_are_run_again(tmp_path, tiny_parts):
    part = tiny_parts[0]
    run_parts([part], tmp_path, torch.device("cpu"), LocalExecutor())
    path = reproduction.answers_in(tmp_path).path(part.question(0))
    path.write_text(path.read_text()[:50])
    assert run_parts([part], tmp_path, torch.device("cpu"), LocalExecutor()) == [f"{part.name}-seed0"]
    other = reproduction.Part(part.name, part.experiment, part.budgets, part.seeds, {**part.sizes, "steps": 3})
    assert len(run_parts([other], tmp_path, torch.device("cpu"), LocalExecutor())) == 2


def test_quick_borrows_the_slow_parts_and_says_so(tmp_path, tiny_parts, capsys):
    full, quick = tmp_path / "full", tmp_path / "quick"
    assert main(["reproduce", "--budget", "full", "--out", str(full)]) == 0
    assert main(["reproduce", "--budget", "quick", "--out", str(quick), "--full-rows", str(full / "rows")]) == 0
    assert not list((quick / "rows").glob("multihop*"))
    claims = json.loads((quick / "claims.json").read_text())
    assert {claim["part"] for claim in claims if claim["from_full_rows"]} == {"multihop"}
    assert "full rows" in capsys.readouterr().out
    assert "from the full rows" in (quick / "report.html").read_text()
    assert {path.name for path in (full / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("figure1a", "multihop") for kind in ("svg", "png")
    }


def test_a_prefix_of_no_part_is_refused_with_those_known(tmp_path, tiny_parts, refused):
    said = refused("norm_study.main", "reproduce", "--only", "nope", "--out", tmp_path / "out")
    assert "only = nope begins no part of budget quick; its parts are localize-none, localize-instance" in said
    assert not (tmp_path / "out").exists()


def test_the_page_needs_nothing_from_outside(tmp_path, tiny_parts):
    run_parts(tiny_parts, tmp_path / "rows", torch.device("cpu"), LocalExecutor())
    write_results(tmp_path, collect(tiny_parts, tmp_path / "rows", None))
    page = (tmp_path / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!#|data:image/)[^\"]*\"", page)
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"", page)) <= set(ids)


def test_two_at_a_time_give_the_rows_of_one_at_a_time(tiny_parts, tmp_path):
    for jobs in (1, 2):
        told = run_parts(tiny_parts[:1], tmp_path / str(jobs), torch.device("cpu"), LocalExecutor(jobs))
        assert told == [f"{tiny_parts[0].name}-seed{seed}" for seed in tiny_parts[0].seeds]
    for alone in sorted((tmp_path / "1").glob("*.json")):
        together = json.loads((tmp_path / "2" / alone.name).read_text())
        assert together["rows"] == json.loads(alone.read_text())["rows"]
