"""What a cluster is asked for: a file says it, options win over it, and nothing is submitted by a dry run."""

import shutil

import pytest
from conftest import HASH

import planner.main
from groundwork.command_line import run_command

pytest.importorskip("submitit")
SWEEP = ["sweep", "hash", "--norms", "none,group", "--seeds", "2", "--out", "sweep", "--data.dataset", HASH]
SWEEP += ["--executor", "slurm"]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A cluster's file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("partition: long\nmemory_gb: 2\nsbatch: ['nice=100']\n")
    return "cluster.yaml"


def test_a_dry_run_prints_jobs_and_script_of_file_and_options_and_submits_nothing(hash_dataset, file, tmp_path, capsys):
    asked = ["--cluster", file, "--slurm.memory-gb", "3", "--slurm.gpus", "1", "--pack", "3", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        planner.main.main([*SWEEP, *asked])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert [line.count(";") for line in lines if line.startswith("job: ")] == [2, 0]
    for name, value in (
        ("partition", "long"),
        ("mem", "3072M"),
        ("nice", "100"),
        ("gpus-per-node", "1"),
        ("ntasks-per-node", "1"),
        ("array", "0-1%2"),
    ):
        assert f"#SBATCH --{name}={value}" in lines
    assert "4 chains in 2 jobs; nothing was submitted" in told
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--executor", "local", "--pack", "2"], "executor = local reads no dry_run, cluster, pack or slurm"),
        (["--pack", "2", "--slurm.tasks", "2"], "pack = 2 goes with tasks = 1"),
        (["--slurm.sbatch", "nice"], "sbatch = 'nice' is not NAME=VALUE"),
        (["--slurm.time-min", "0"], "slurm.time_min = 0 must be at least 1"),
        (["--cluster", "nowhere.yaml"], "nowhere.yaml"),
        (["--cluster", "list.yaml"], "cluster = list.yaml holds no settings"),
        (["--cluster", "unknown.yaml"], "slurm.memory"),
        ([], "executor = slurm: this machine has no sbatch"),
    ],
)
def test_a_mistake_about_the_cluster_is_one_line(hash_dataset, file, tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "list.yaml").write_text("- memory_gb\n")
    (tmp_path / "unknown.yaml").write_text("memory: 3\n")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert run_command(planner.main.PROGRAM.run, [*SWEEP, *arguments]) == 2
    told = capsys.readouterr().err.splitlines()
    assert words in told[-1]
    assert sum(words in line for line in told) == 1
