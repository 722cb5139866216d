"""A shipped planner is taken by its name wherever a trained run is read, and never where one is written."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from planner.plan import Planner
from planner.training import find as find_module
from planner.training.run import RunFolder
from planner.training.train import train

ROOT = Path(__file__).resolve().parent.parent
SHIP = ROOT / "scripts" / "ship"


@pytest.fixture
def shipped(tiny_run, tmp_path, monkeypatch):
    """``tiny`` is shipped, and the working folder is empty."""
    command = ["env", f"WEIGHTS={tmp_path / 'weights'}", str(SHIP), str(tiny_run), "tiny"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    monkeypatch.setattr(find_module, "SHIPPED", tmp_path / "weights")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "weights"


def test_commands_take_a_shipped_planner_by_its_name(command, shipped, tmp_path):
    ends = ["--start=-4,2", "--goal=2,4"]
    done = command("planner.main", "plan", "tiny", *ends, "--num-plans", 2, "--out", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    done = command("planner.main", "rollout", "tiny", "--episodes", 1, "--tasks", "straight", "--json", "-")
    assert json.loads(done.stdout)["rows"]


def test_the_audit_takes_a_shipped_planner_by_its_name(shipped, capsys):
    from norm_study.main import main

    quick = ["--length", "128", "--times", "4", "--projections", "1", "--redraws", "1", "--no-attribution"]
    assert main(["audit", "tiny", *quick, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["leakage"]["value"] > 0


def test_shipped_planners_are_compared_without_their_data_and_where_nothing_can_be_kept(
    command, shipped, tiny_run, tmp_path, monkeypatch
):
    shutil.copytree(tiny_run, "mine")
    (shipped / "tiny" / "rollouts").write_text("")  # no folder: what is asked cannot be kept
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    asked = ["--episodes", 1, "--tasks", "straight", "--multiples", 1]
    done = command("planner.main", "compare", "tiny", "mine", *asked, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "the rollout is not kept" in done.stderr
    assert "no training windows" in done.stderr
    assert json.loads(Path("out/comparison.json").read_text())["reference"] == {}
    assert "no data here" in Path("out/report.html").read_text()


@pytest.mark.parametrize("read", ["stitch --run tiny --horizons 1 --episodes 1 --best-of 1", "report tiny"])
def test_studies_and_reports_take_a_shipped_planner_by_its_name(shipped, read):
    from norm_study.main import main

    assert main(read.split()) == 0


@pytest.mark.parametrize("model", [{"norm": "none"}, {"norm": "dyt"}, {"norm_conditioned": True}])
def test_a_training_begins_with_a_shipped_planner_and_another_norm(shipped, tiny, tmp_path, model):
    begun = train(tiny(init_from="tiny", steps=1, model=model, learning_rate=1e-12), tmp_path / "run", "cpu", False)
    source, ours = (run.load_network("ema").state_dict() for run in (RunFolder(shipped / "tiny"), begun))
    carried = [name for name in ours if name in source]
    assert all(torch.allclose(ours[name], source[name], atol=1e-6) for name in carried)
    assert all(".norm" in name for name in {*ours} - {*carried})


def test_a_shipped_planner_plans_as_the_run_that_it_came_from(shipped, tiny_run):
    one, other = (Planner.from_run(source, device="cpu").plan([-4, 2], [2, 4]) for source in ("tiny", tiny_run))
    assert (one == other).all()


def test_a_folder_of_that_name_goes_first(shipped, tiny_run, refused):
    Path("tiny").mkdir()
    assert "no run folder" in refused("planner.main", "rollout", "tiny")


def test_an_unknown_name_is_refused_and_the_shipped_ones_are_listed(refused, shipped):
    line = refused("planner.main", "plan", "tinny", "--start=0,0", "--goal=1,1", "--out", "p.png")
    assert line.endswith("tinny is no run folder and no shipped planner; shipped are tiny")


def test_training_never_writes_into_a_shipped_planner(shipped, tiny, hash_dataset):
    before = {path: path.stat().st_mtime_ns for path in shipped.rglob("*")}
    with RunFolder("tiny").claim():
        pass
    assert Path("tiny").is_dir()
    assert {path: path.stat().st_mtime_ns for path in shipped.rglob("*")} == before


def test_an_unfinished_run_and_a_name_that_is_taken_are_not_shipped(shipped, tiny_run, tmp_path):
    for source in (tmp_path, tiny_run):
        command = ["env", f"WEIGHTS={shipped}", str(SHIP), str(source), "tiny"]
        assert subprocess.run(command, capture_output=True, timeout=20).returncode == 2


@pytest.mark.parametrize("name", find_module.shipped_names() or ["none"])
def test_what_is_shipped_loads(name):
    if name == "none":
        pytest.skip("nothing is shipped yet")
    assert Planner.from_run(name, device="cpu").config.steps >= 1000
