"""What may happen while a study runs or its report is written. Rows that are finished stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY
from PIL import Image
from processes import start
from wanted import TINY_SIZES

from groundwork.files import read_checked, with_checksum
from groundwork.jobs import LocalExecutor
from norm_study.reproduce.parts import answers_in, collect, load_parts, run_parts
from norm_study.reproduce.results import write_results
from norm_study.stitching.cells import Grid
from norm_study.stitching.grid import stored_runs

CPU = torch.device("cpu")


@pytest.fixture
def parts_file(tmp_path):
    """A list of parts of a second each."""
    path = tmp_path / "parts.yaml"
    sizes = TINY_SIZES.replace("steps: 2", "steps: 150").removesuffix("}")
    path.write_text(
        "".join(
            f"- {{name: localize-{norm}, experiment: localize, budgets: [quick, full], seeds: [0, 1, 2], "
            f"sizes: {sizes}, norm: {norm}}}}}\n"
            for norm in ("none", "instance")
        )
    )
    return path


def reproduce(parts: str, out: str, jobs: int) -> int:
    """``norm-study reproduce`` with a list of parts of our own."""
    import norm_study.reproduce.results
    from norm_study.main import main

    norm_study.reproduce.results.parts_file = lambda: Path(parts)
    return main(["reproduce", "--out", out, "--full-rows", out, "--device", "cpu", "--jobs", str(jobs)])


def rows_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "rows").glob("*.json")}


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
def test_a_reproduction_stopped_at_any_time_keeps_its_rows_and_goes_on(parts_file, tmp_path, what):
    out = tmp_path / "out"
    child = start(tmp_path, reproduce, str(parts_file), str(out), 1)
    child.wait_until(lambda: rows_of(out))
    code = child.send(what)
    before = rows_of(out)
    assert 1 <= len(before) < 6
    if what == signal.SIGINT:
        assert code == 130
        assert child.printed().splitlines()[-1] == "interrupted"
        assert "Traceback" not in child.printed()
    run_parts(load_parts(parts_file), out / "rows", CPU, LocalExecutor())
    after = rows_of(out)
    assert len(after) == 6
    assert all(after[name] == content for name, content in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_reproduction_takes_its_workers_along(parts_file, tmp_path, what):
    out = tmp_path / "out"
    parts_file.write_text(parts_file.read_text().replace("steps: 150", "steps: 9000"))
    child = start(tmp_path, reproduce, str(parts_file), str(out), 2)
    child.wait_until(lambda: list((out / "rows").glob(".claims/*")))
    workers = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    assert len(workers) >= 2
    began = time.monotonic()
    code = child.send(what)
    assert time.monotonic() - began < 20  # it does not wait for what is still to do
    if what == signal.SIGINT:
        assert code == 130
        assert "Traceback" not in child.printed()
    while any(alive(pid) for pid in workers):
        assert time.monotonic() - began < 60
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("damage", ["flipped", "cut", "not UTF-8", "list", "empty mapping"])
def test_damaged_rows_are_run_again_and_the_others_are_not(parts_file, tmp_path, damage):
    (part, *_) = load_parts(parts_file)
    run_parts([part], tmp_path, CPU, LocalExecutor())
    path, other = (answers_in(tmp_path).path(part.question(seed)) for seed in (0, 1))
    others = other.stat().st_mtime_ns
    whole = path.read_bytes()
    number = whole.index(b'"mse": ') + 9  # a digit: still JSON
    spoilt = {
        "flipped": whole[:number] + bytes([whole[number] ^ 1]) + whole[number + 1 :],
        "cut": whole[:60],
        "not UTF-8": b"\xff" + whole,
        "list": b"[1, 2]",
        "empty mapping": b"{}",
    }
    path.write_bytes(spoilt[damage])
    assert run_parts([part], tmp_path, CPU, LocalExecutor()) == [f"{part.name}-seed0"]
    assert read_checked(path)["rows"] == json.loads(whole)["rows"]
    assert other.stat().st_mtime_ns == others


def test_a_seal_tells_every_change_of_a_value_and_files_without_one_are_read(tmp_path):
    values = {"config": {"seed": 1, "note": "ä"}, "rows": [{"mse": 0.1 + 0.2}, {"mse": None}]}
    path = tmp_path / "rows.json"
    path.write_text(with_checksum(values))
    assert read_checked(path) == values
    path.write_text(with_checksum(values).replace("0.30000000000000004", "0.30000000000000014"))
    assert read_checked(path) is None
    path.write_text(json.dumps(values))
    assert read_checked(path) == values
    assert read_checked(tmp_path / "missing.json") is None


def write_again_and_again(parts: str, out: str) -> int:
    """Writes one report over the other until it is killed."""
    found = collect(load_parts(Path(parts)), Path(out) / "rows", None)
    while True:
        write_results(Path(out), found)


def test_a_report_killed_while_it_is_written_leaves_the_old_one_whole(parts_file, tmp_path):
    parts = load_parts(parts_file)
    run_parts(parts, tmp_path / "rows", CPU, LocalExecutor())
    for moment_s in (0.05, 0.3, 0.7):
        child = start(tmp_path, write_again_and_again, str(parts_file), str(tmp_path))
        child.wait_until(lambda: "page:" in child.printed())  # noqa: B023
        time.sleep(moment_s)
        assert child.send(signal.SIGKILL) == -signal.SIGKILL
        assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")
        assert json.loads((tmp_path / "claims.json").read_text())
        for figure in (tmp_path / "figures").iterdir():
            if figure.suffix == ".svg":
                assert figure.read_text().rstrip().endswith("</svg>")
            elif figure.suffix == ".png":
                Image.open(figure).load()


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
def test_a_stitching_suite_stopped_at_any_time_keeps_its_rows_and_goes_on(hash_dataset, tmp_path, what):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    argv = [
        sys.executable,
        "-m",
        "norm_study.main",
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
        "1",
        "--episodes",
        "1",
        "--best-of",
        "1",
        "--jobs",
        "1",
        "--preset",
        str(tmp_path / "tiny.yaml"),
        "--out",
        str(tmp_path / "out"),
        "--runs-folder",
        str(tmp_path / "runs"),
    ]
    process = subprocess.Popen(
        argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    grid = Grid(("none", "group"), ("zeros",), ("half",), 1)
    while not stored_runs(tmp_path / "out", grid.runs()):
        assert process.poll() is None
        time.sleep(0.05)
    while not (tmp_path / "runs" / "group-zeros-half-seed0" / "config.yaml").exists():  # the second run begins
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, what)  # as a terminal's Ctrl-C and a scheduler's kill do
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode == (130 if what == signal.SIGINT else -what)
    kept, *_ = (tmp_path / "out" / "rows").glob("*.json.gz")
    before = kept.read_bytes()
    subprocess.run(argv, check=True, capture_output=True, timeout=250)
    assert len(stored_runs(tmp_path / "out", grid.runs())) == 2
    assert kept.read_bytes() == before
