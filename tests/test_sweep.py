"""A sweep trains each norm, placement and seed once and compares them; it can be stopped and done again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from groundwork.jobs import LocalExecutor
from planner.comparison import sweep as sweeping
from planner.comparison.sweep import swept
from planner.settings import SweepSettings
from planner.training.run import RunFolder


def names_and_configs(tmp_path, **given):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return dict(swept(SweepSettings.from_options({"preset": str(tmp_path / "tiny.yaml"), "out": tmp_path, **given})))


def test_a_sweep_has_every_norm_placement_and_seed_once(tmp_path):
    norms, placements = ("none", "group", "packnorm_isolated"), ("pre", "post")
    runs = names_and_configs(tmp_path, norms=norms, placements=placements, seeds=2, steps=7)
    assert len(runs) == (1 + 2 + 2) * 2
    assert list(runs)[:4] == ["none-seed0", "none-seed1", "group-seed0", "group-post-seed0"]
    assert {config.model.num_packs for name, config in runs.items() if name.startswith("pack")} == {2}
    assert runs["group-post-seed1"].model.norm_placement == "post"
    assert {(config.seed, config.steps) for config in runs.values()} == {(0, 7), (1, 7)}
    assert list(names_and_configs(tmp_path, norms=("none", "group"))) == ["none", "group"]


def test_a_sweep_changes_one_setting_at_a_time(tmp_path):
    vary = ("model.dim-mults=1,3", "diffusion.prediction=noise", "init_from=runs/a")
    runs = names_and_configs(tmp_path, norms=("none", "group"), vary=vary, seeds=1)
    expected = ["", "model.dim_mults=1,3-", "diffusion.prediction=noise-", "init_from=runs_a-"]
    assert list(runs) == [f"{norm}-{change}seed0" for norm in ("none", "group") for change in expected]
    plain, wider, noise, other = list(runs.values())[:4]
    assert wider == replace(plain, model=replace(plain.model, dim_mults=(1, 3)))
    assert noise == replace(plain, diffusion=replace(plain.diffusion, prediction="noise"))
    assert other == replace(plain, init_from="runs/a")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--norms", "gruop"], "gruop"),
        (["--norms", "none", "--seeds", 0], "seeds"),
        (["--norms", "none", "--vary", "model.dim"], "SETTING=VALUE"),
        (["--norms", "none", "--vary", "model.dmi=8"], "model.dim_mults"),
        (["--norms", "none", "--vary", "model.dim=eight"], "eight"),
        (["--norms", "none", "--vary", "model.norm=group"], "changes nothing"),
        (["--norms", "none", "--vary", "log_every=7"], "changes nothing"),
        (["--norms", "none", "--vary", "model.dim=16", "--vary", "model.dim= 16"], "stands twice"),
        (["--norms", "none", "--vary", "init_from=a/b", "--vary", "init_from=a_b"], "stands twice"),
        (["--norms", "none", "--vary", "data.dataset=mazes/comb-tasks-v0"], "one dataset"),
    ],
)
def test_a_sweep_of_nothing_is_refused(refused, tmp_path, given, named):
    assert named in refused("planner.main", "sweep", "hash", "--out", tmp_path, *given)


def test_a_sweep_in_stacks_trains_equal_shapes_as_one_and_then_measures_each(hash_dataset, tmp_path, monkeypatch):
    """What is handed to the runner of jobs, which does what comes ``after`` a job when that is done."""
    jobs = []
    monkeypatch.setattr(sweeping, "run_jobs", lambda given, *_: jobs.extend(given))
    monkeypatch.setattr(sweeping, "compare", lambda *_, **__: None)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    given = {"preset": str(tmp_path / "tiny.yaml"), "out": tmp_path, "norms": ("none", "group"), "seeds": 3, "stack": 2}
    sweeping.sweep(SweepSettings.from_options(given | {"horizons": (1,)}), LocalExecutor(1), "cpu", "")
    trained = {job.name: [path.name for path in job.work.args[0]] for job in jobs if job.after is None}
    assert list(trained.values()) == [
        ["none-seed0", "none-seed1"],
        ["none-seed2"],
        ["group-seed0", "group-seed1"],
        ["group-seed2"],
    ]
    assert [job.after for job in jobs if job.after] == [name for name, runs in trained.items() for _ in runs]


def test_each_run_is_rolled_out_at_multiples_of_its_own_horizon(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        sweeping, "rollout_job", lambda run, one, *_: asked.setdefault(run.name, []).append(one.horizon)
    )
    monkeypatch.setattr(sweeping, "run_jobs", lambda *_: None)
    monkeypatch.setattr(sweeping, "compare", lambda *_, **__: None)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    given = {"preset": str(tmp_path / "tiny.yaml"), "out": tmp_path, "norms": ("none",), "horizons": (1, 3)}
    settings = SweepSettings.from_options(given | {"vary": ("data.horizon=64",)})
    sweeping.sweep(settings, LocalExecutor(1), "cpu", "")
    assert asked == {"none": [32, 96], "none-data.horizon=64": [64, 192]}


def test_a_sweep_of_unknown_tasks_trains_nothing(refused, hash_dataset, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    asked = [tmp_path / "tiny.yaml", "--norms", "none", "--tasks", "nope", "--out", tmp_path / "out"]
    assert "tasks = 'nope' is not among" in refused("planner.main", "sweep", *asked)
    assert not (tmp_path / "out").exists()


def test_a_sweep_trains_compares_and_does_nothing_twice(command, refused, hash_dataset, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    argv = [
        "planner.main",
        "sweep",
        tmp_path / "tiny.yaml",
        "--norms",
        "none,instance_isolated",
        "--out",
        tmp_path / "out",
    ]
    argv += ["--episodes", 1, "--horizons", 1, "--jobs", 2, "--steps", 6]
    done = command(*argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert {row["norm"] for row in rows} == {"none", "instance_isolated"}
    run = RunFolder(tmp_path / "out" / "instance_isolated")
    assert (run.config().steps, run.config().model.num_packs) == (6, 2)
    trained = {path: path.stat().st_mtime_ns for path in Path(tmp_path / "out").rglob("*") if path.suffix != ".html"}
    kept = {path: time for path, time in trained.items() if "checkpoints" in path.parts or "rollouts" in path.parts}
    assert command(*argv).returncode == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path.is_file())
    assert "steps = 6, not 7" in refused(*argv[:-1], 7)
