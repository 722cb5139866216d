"""The wheel, installed where there is no checkout, has everything that the commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from planner.training.find import SHIPPED, shipped_names
from planner.training.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "model.dim": 8,
    "data.horizon": 32,
    "diffusion.train_steps": 8,
    "diffusion.sampling_steps": 8,
    "steps": 6,
    "log_every": 3,
    "evaluate_episodes": 1,
}
QUICK_AUDIT = ["--times", "4", "--projections", "1", "--redraws", "1", "--no-attribution"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """An sdist of the tree and a wheel made from that sdist; their folder."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """Runs programs of a fresh environment that has the wheel and sees this one's libraries, in an empty folder."""
    home, empty = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    [wheel] = distributions.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    # Written after the installation, so that pip sees no other copy of us. A path in a .pth file is searched behind
    # the environment's own packages, and the .pth files there, such as an editable installation's, are not read.
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(own.stdout.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"MINARI_DATASETS_PATH": str(empty / "data"), "TQDM_DISABLE": "1"}

    def run(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [home / "bin" / name, *arguments], cwd=empty, env=variables, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    run.folder = empty  # type: ignore[attr-defined]
    return run


def test_the_sdist_holds_code_tests_presets_and_docs(distributions):
    [archive] = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {
        "planner/training/train.py",
        "configs/planner/hash.yaml",
        "tests/test_wheel.py",
        "scripts/check",
        "README.md",
    } <= names
    assert not [name for name in names if name.startswith(("runs/", "data/", ".venv/"))]


def test_from_an_empty_folder_the_wheel_collects_plans_and_audits(installed):
    where = "import planner, norm_study, envs; print(*(m.__file__ for m in (planner, norm_study, envs)), sep='\\n')"
    assert str(ROOT) not in installed("python", "-c", where)
    collected = installed("maze-data", "collect", "hash", "--recipe", "tasks", "--env-steps", "2000")
    assert "mazes/hash-tasks-v0" in collected
    few = ["--num-plans", "2", "--sampler", "ddim", "--sampling-steps", "8"]
    installed("planner", "plan", "hash-channel", "--start=-4,2", "--goal=2,4", *few, "--out", "turn.json")
    assert len(json.loads((installed.folder / "turn.json").read_text())["plans"]) == 2
    installed("norm-study", "audit", "hash-group", *QUICK_AUDIT, "--json", "group.json")
    assert json.loads((installed.folder / "group.json").read_text())["summary"]["leakage"]["value"] > 0


@pytest.mark.slow
def test_from_an_empty_folder_the_wheel_trains_compares_and_audits_the_run(installed):
    installed("maze-data", "collect", "cross", "--recipe", "tasks", "--env-steps", "5000")
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    installed("planner", "train", "hash", "--run", "run", "--data.dataset", "mazes/cross-tasks-v0", *small)
    installed("planner", "plan", "run", "--start=-3,0", "--goal=3,0", "--num-plans", "2", "--out", "plan.json")
    assert len(json.loads((installed.folder / "plan.json").read_text())["plans"]) == 2
    installed("planner", "compare", "run", "--episodes", "1", "--horizons", "1", "--out", "comparison")
    assert "<img" in (installed.folder / "comparison" / "report.html").read_text()
    installed("norm-study", "audit", "run", "--length", "128", *QUICK_AUDIT, "--out", "audit", "--json", "audit.json")
    assert json.loads((installed.folder / "audit.json").read_text())["summary"]["leakage"]["value"] > 0
    assert (installed.folder / "audit" / "audit.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_planner_plans_and_is_audited_from_the_wheel(installed, name):
    maze = RunFolder(SHIPPED / name).statistics().maze
    start, goal = (",".join(map(str, maze.cell_to_xy(cell))) for cell in (maze.tasks[0].start, maze.tasks[0].goal))
    installed("planner", "plan", name, f"--start={start}", f"--goal={goal}", "--out", f"{name}.png")
    assert (installed.folder / f"{name}.png").stat().st_size > 10_000
    installed("norm-study", "audit", name, *QUICK_AUDIT, "--json", f"{name}.json")
    assert json.loads((installed.folder / f"{name}.json").read_text())["summary"]["receptive_field"]


@pytest.mark.slow
def test_the_wheel_holds_every_shipped_file(installed):
    source = (
        "from planner.config import preset_names; from norm_study.reproduce.parts import *;"
        "from envs.references import *;"
        "parts = load_parts(parts_file());"
        "print(len(preset_names()), len(parts), len(collect(parts, full_rows_folder(), None)) == len(parts))"
    )
    presets, parts, rows = installed("python", "-c", source).split()
    assert int(presets) == len(list((ROOT / "configs" / "planner").glob("*.yaml")))
    assert int(parts) > 20
    assert rows == "True"
