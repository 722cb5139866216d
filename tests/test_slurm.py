"""Jobs on a real Slurm, which is started here: nothing is lost or done twice, whatever is killed."""

import os
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY
from processes import start
from slurm import Slurm, missing
from test_distributed import TOLERANCE, apart
from test_jobs import answers_in, begun, jobs_in, label

from groundwork.answers import Answers
from groundwork.errors import UserError
from groundwork.jobs import run_jobs
from groundwork.slurm import SlurmExecutor, SlurmSettings
from planner.config import from_dict
from planner.training.run import RunFolder
from planner.training.train import train, train_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=missing() or "there is a Slurm"),
]
SMALL = SlurmSettings(memory_gb=0.2, time_min=60, warning_s=10)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    here = str(Path(__file__).resolve().parent)
    before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), f"{here}:{os.environ.get('PYTHONPATH', '')}"
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()
    os.environ["PYTHONPATH"] = before


def executor(folder, pack=1):
    return SlurmExecutor(SMALL, Path(folder) / "jobs", pack)


def submit(folder, count, seconds, pack):
    """The submitting process."""
    run_jobs(jobs_in(Path(folder), count, seconds), executor(folder, pack), "jobs")
    return 0


def numbers(folder):
    """Of the arrays that were submitted."""
    return {path.name.split("_")[0] for path in (folder / "jobs").glob("*_submitted.pkl")}


def test_packs_of_jobs_are_done_once_with_the_threads_that_were_asked_for(slurm, tmp_path):
    assert len(run_jobs(jobs_in(tmp_path, 5), executor(tmp_path, pack=2), "jobs")) == 5
    assert sorted(begun(tmp_path)) == [f"job{n}" for n in range(5)]
    assert len(list((tmp_path / "jobs").glob("*_submitted.pkl"))) == 3
    assert {answer["rows"][1] for _, answer in Answers(tmp_path / "rows")} == {"1"}
    assert run_jobs(jobs_in(tmp_path, 5), executor(tmp_path), "jobs") == []
    assert len(numbers(tmp_path)) == 1


def test_losing_the_submitting_process_loses_nothing_and_its_jobs_are_found_again(slurm, tmp_path):
    submitter = start(tmp_path, submit, str(tmp_path), 4, 8.0, 1)
    submitter.wait_until(lambda: len(begun(tmp_path)) >= 1)
    submitter.send(signal.SIGKILL)
    run_jobs(jobs_in(tmp_path, 4, 8.0), executor(tmp_path), "jobs")
    assert sorted(begun(tmp_path)) == [f"job{n}" for n in range(4)]
    assert len(numbers(tmp_path)) == 1, "submitted again"


def test_what_was_submitted_ends_without_anyone_who_waits_for_it(slurm, tmp_path):
    submitter = start(tmp_path, submit, str(tmp_path), 3, 2.0, 3)
    submitter.wait_until(lambda: begun(tmp_path))
    submitter.send(signal.SIGKILL)
    slurm.wait_until(lambda: len(answers_in(tmp_path)) == 3)


def kill_workers(folder, how):
    for line in (folder / "begun.txt").read_text().splitlines():
        os.kill(int(line.split()[1]), how)


@pytest.mark.parametrize("what", ["worker", "scancel", "requeue", "preempted"])
def test_a_killed_job_is_done_again_and_the_others_are_not(slurm, tmp_path, what):
    submitter = start(tmp_path, submit, str(tmp_path), 2, 6.0, 2)  # one job of the cluster, two answers
    submitter.wait_until(lambda: "job1" in begun(tmp_path))
    (first,) = answers_in(tmp_path).values()
    (array,) = numbers(tmp_path)
    if what == "worker":
        kill_workers(tmp_path, signal.SIGKILL)
    elif what == "requeue":
        slurm.ask("scontrol", "requeue", array)
    else:
        slurm.ask("scancel", array, *(["--signal=USR2"] if what == "preempted" else []))
    assert slurm.finish(submitter) == 0, submitter.printed()
    assert len(answers_in(tmp_path)) == 2
    assert first in answers_in(tmp_path).values()
    assert begun(tmp_path) == ["job0", "job1", "job1"]


def test_a_job_whose_node_goes_down_in_mid_run_is_done_again(slurm, tmp_path):
    submitter = start(tmp_path, submit, str(tmp_path), 1, 6.0, 1)
    submitter.wait_until(lambda: begun(tmp_path))
    slurm.lose_node()
    slurm.wait_until(lambda: "down" in slurm.ask("sinfo", "--noheader", "--format=%t"), 60)
    slurm.start_node()
    assert slurm.finish(submitter) == 0, submitter.printed()
    assert begun(tmp_path) == ["job0", "job0"]
    assert len(answers_in(tmp_path)) == 1


def weights(run):
    return RunFolder(run).checkpoint().joinpath("ema", "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.parametrize("how", ["preempted", "requeued", "killed"])
def test_a_training_that_is_put_back_has_the_bits_of_one_never_stopped(slurm, hash_dataset, tmp_path, how):
    config = from_dict(TINY | {"steps": 1500, "checkpoint_every": 50, "log_every": 50})
    job = train_job(config, tmp_path / "run", "cpu")
    submitter = start(tmp_path, submit_job, str(tmp_path), job)
    submitter.wait_until(lambda: len(RunFolder(tmp_path / "run").metrics()) >= 3)
    (array,) = numbers(tmp_path)
    if how == "killed":
        slurm.ask("scancel", array)
    elif how == "requeued":
        slurm.ask("scontrol", "requeue", array)
    else:
        slurm.ask("scancel", array, "--signal=USR2")
    assert slurm.finish(submitter) == 0, submitter.printed()
    whole = train(config, tmp_path / "whole", "cpu", progress=False)
    assert weights(tmp_path / "run") == weights(whole.path)
    rows = [[row["step"], row["loss"]] for row in RunFolder(tmp_path / "run").metrics()]
    assert rows == [[row["step"], row["loss"]] for row in whole.metrics()]


def submit_job(folder, job):
    run_jobs([job], executor(folder), "jobs")
    return 0


def test_the_tasks_of_a_job_train_one_network_together(slurm, hash_dataset, tmp_path):
    config = from_dict(TINY)
    together = SlurmExecutor(replace(SMALL, tasks=2), tmp_path / "jobs")
    run_jobs([train_job(config, tmp_path / "run", "cpu")], together, "jobs")
    assert RunFolder(tmp_path / "run").provenance()["processes"] == 2
    assert apart(tmp_path / "run", train(config, tmp_path / "alone", "cpu", progress=False).path) < TOLERANCE


def fail(folder, name):
    raise UserError(f"{name} = 3 must be at most 2")


def test_an_error_on_the_cluster_is_told_in_one_line(slurm, tmp_path):
    store = Answers(tmp_path / "rows", label=label)
    bad = store.job({"name": "bad"}, partial(fail, tmp_path, "bad"))
    with pytest.raises(UserError, match=r"1 of 3 jobs failed, the first: bad-\w+: bad = 3 must be at most 2$"):
        run_jobs([bad, *jobs_in(tmp_path, 2)], executor(tmp_path, pack=3), "jobs")
    assert len(answers_in(tmp_path)) == 2


def test_what_the_cluster_refuses_is_one_line(slurm, tmp_path):
    asked = SlurmExecutor(replace(SMALL, partition="nowhere"), tmp_path / "jobs")
    with pytest.raises(UserError, match=r"the cluster refused the jobs: .*artition"):
        run_jobs(jobs_in(tmp_path, 1), asked, "jobs")


def test_a_dry_run_says_what_would_be_submitted_and_submits_nothing(slurm, tmp_path, capsys):
    dry = SlurmExecutor(SMALL, tmp_path / "jobs", 2, dry_run=True)
    with pytest.raises(SystemExit):
        run_jobs(jobs_in(tmp_path, 3), dry, "jobs")
    told = capsys.readouterr().out
    assert "#SBATCH --mem=205M" in told
    assert re.search(r"job: job0-\w+; job1-\w+\njob: job2-\w+\n", told)
    assert "3 chains in 2 jobs; nothing was submitted" in told
    assert not numbers(tmp_path)
