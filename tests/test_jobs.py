"""The runner of jobs: each is done once, whoever is killed, and by whoever is there."""

import ast
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from processes import start
from tqdm import tqdm

from groundwork import claims
from groundwork.answers import Answers
from groundwork.claims import Claim, InUseError
from groundwork.errors import UserError
from groundwork.jobs import Job, LocalExecutor, run_jobs

ROOT = Path(__file__).resolve().parent.parent


def label(question):
    return question["name"]


def note(folder, name):
    """Writes down that a job was begun, and by which process."""
    with (folder / "begun.txt").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


def begun(folder):
    path = folder / "begun.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def workers_of(folder):
    return {int(line.split()[1]) for line in (folder / "begun.txt").read_text().splitlines()}


def work(folder, name, seconds):
    note(folder, name)
    time.sleep(seconds)
    return {"rows": [name, os.environ.get("OMP_NUM_THREADS")]}


def fail(folder, name):
    note(folder, name)
    raise UserError(f"{name} = 3 must be\nat most 2")


def crash(folder, name):
    note(folder, name)
    os.kill(os.getpid(), signal.SIGKILL)


def jobs_in(folder, count, seconds=0.0):
    store = Answers(folder / "rows", label=label)
    return [store.job({"name": f"job{n}"}, partial(work, folder, f"job{n}", seconds)) for n in range(count)]


def answers_in(folder):
    return {path.name: path.read_bytes() for path in (folder / "rows").glob("*.json")}


def run(folder, count, seconds, at_a_time):
    """A runner in a process of its own."""
    run_jobs(jobs_in(Path(folder), count, seconds), LocalExecutor(at_a_time), "jobs")
    return 0


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_jobs_are_done_once_and_the_runner_tells_which(tmp_path, at_a_time):
    ran = run_jobs(jobs_in(tmp_path, 4), LocalExecutor(at_a_time), "jobs")
    assert len(ran) == len(set(ran)) == 4
    assert run_jobs(jobs_in(tmp_path, 5), LocalExecutor(at_a_time), "jobs") == [jobs_in(tmp_path, 5)[4].name]
    assert sorted(begun(tmp_path)) == [f"job{n}" for n in range(5)]


def test_several_at_a_time_have_one_thread_each_and_processes_that_last(tmp_path):
    run_jobs(jobs_in(tmp_path, 6), LocalExecutor(2), "jobs")
    assert {answer["rows"][1] for _, answer in Answers(tmp_path / "rows")} == {"1"}
    assert len(workers_of(tmp_path)) <= 2
    assert os.getpid() not in workers_of(tmp_path)


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_two_runners_on_one_folder_do_each_job_once(tmp_path, at_a_time):
    runners = [start(tmp_path, run, str(tmp_path), 12, 0.05, at_a_time) for _ in range(2)]
    assert [runner.end() for runner in runners] == [0, 0], [runner.printed() for runner in runners]
    assert sorted(begun(tmp_path)) == sorted(f"job{n}" for n in range(12))
    assert len(answers_in(tmp_path)) == 12
    assert not list((tmp_path / "rows" / ".claims").iterdir())


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_a_runner_killed_at_any_time_loses_nothing_finished_and_its_children_end(tmp_path, at_a_time, moment):
    runner = start(tmp_path, run, str(tmp_path), 10, 0.1, at_a_time)
    runner.wait_until(lambda: len(answers_in(tmp_path)) >= 2 * moment)
    time.sleep(random.Random(moment).uniform(0, 0.1))
    assert runner.send(signal.SIGKILL) == -signal.SIGKILL
    finished = answers_in(tmp_path)
    deadline = time.monotonic() + 20
    while (tmp_path / "begun.txt").exists() and any(map(alive, workers_of(tmp_path))):
        assert time.monotonic() < deadline, "children outlive their parent"
        time.sleep(0.05)
    finished |= answers_in(tmp_path)  # by children in their last moments
    assert run(str(tmp_path), 10, 0.0, at_a_time) == 0
    after = answers_in(tmp_path)
    assert len(after) == 10
    assert all(after[name] == content for name, content in finished.items())
    for name in finished:
        assert begun(tmp_path).count(name.partition("-")[0]) == 1, "finished and done again"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_the_first_error_is_told_when_the_rest_is_done_and_nothing_builds_upon_what_failed(tmp_path, at_a_time):
    store = Answers(tmp_path / "rows", label=label)
    bad = store.job({"name": "bad"}, partial(fail, tmp_path, "bad"))
    upon = store.job({"name": "upon"}, partial(work, tmp_path, "upon", 0), after=bad.name)
    with pytest.raises(UserError, match=r"1 of 4 jobs failed, the first: bad-\w+: bad = 3 must be at most 2$"):
        run_jobs([bad, upon, *jobs_in(tmp_path, 3)], LocalExecutor(at_a_time), "jobs")
    assert sorted(begun(tmp_path)) == ["bad", "job0", "job1", "job2"]


def test_a_worker_that_is_killed_is_an_error_of_its_job_alone(tmp_path):
    store = Answers(tmp_path / "rows", label=label)
    bad = store.job({"name": "bad"}, partial(crash, tmp_path, "bad"))
    with pytest.raises(UserError, match=r"1 of 6 jobs failed, the first: bad-\w+: its process ended with code -9"):
        run_jobs([bad, *jobs_in(tmp_path, 5)], LocalExecutor(2), "jobs")
    assert len(answers_in(tmp_path)) == 5


def test_a_job_waits_for_the_one_it_builds_upon(tmp_path):
    done, order = set(), []

    def job(name, after=None):
        def work():
            order.append(name)
            done.add(name)

        return Job(name, work, lambda: name in done, after)

    jobs = [job("train"), job("other"), job("measure", after="train"), job("draw", after="measure")]
    run_jobs(jobs, LocalExecutor(), "jobs")
    assert order.index("train") < order.index("measure") < order.index("draw")
    assert run_jobs(jobs, LocalExecutor(), "jobs") == []
    done.remove("draw")
    assert run_jobs(jobs, LocalExecutor(), "jobs") == ["draw"]
    done.clear()
    assert sorted(run_jobs(jobs, LocalExecutor(), "jobs")) == ["draw", "measure", "other", "train"]


def hold(path, marker):
    with Claim(Path(path), "it"):
        Path(marker).touch()
        time.sleep(60)
    return 0


def test_the_claim_of_a_dead_process_is_taken_over_and_that_of_a_stopped_one_is_not(tmp_path):
    holder = start(tmp_path, hold, str(tmp_path / "it"), str(tmp_path / "held"))
    holder.wait_until((tmp_path / "held").exists)
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(InUseError), Claim(tmp_path / "it", "it"):
        pass
    holder.send(signal.SIGKILL)
    with Claim(tmp_path / "it", "it"):
        pass


def test_the_claim_of_another_machine_lasts_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    other = tmp_path / "it.zzz"
    other.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "started": "1"}))
    monkeypatch.setattr(claims, "SETTLE_S", 0.1)
    with pytest.raises(InUseError), Claim(tmp_path / "it", "it"):
        pass
    long_ago = time.time() - claims.EXPIRY_S - 1
    os.utime(other, (long_ago, long_ago))
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    with Claim(tmp_path / "it", "it"):
        (own,) = tmp_path.glob("it.*")
        os.utime(own, (long_ago, long_ago))
        deadline = time.monotonic() + 10
        while own.stat().st_mtime < long_ago + 1:
            assert time.monotonic() < deadline, "no heart beats"
            time.sleep(0.01)


def test_a_claim_that_many_fight_for_is_never_held_by_two_and_someone_gets_it(tmp_path):
    told = multiprocessing.get_context("fork").Queue()

    def fight():
        got = 0
        for _ in range(40):
            try:
                with Claim(tmp_path / "it", "it"):
                    os.close(os.open(tmp_path / "held", os.O_CREAT | os.O_EXCL))
                    got += 1
                    (tmp_path / "held").unlink()
            except InUseError:
                continue
            except FileExistsError:
                told.put("two at once")
        told.put(got)

    fighters = [multiprocessing.get_context("fork").Process(target=fight) for _ in range(4)]
    for fighter in fighters:
        fighter.start()
    found = [told.get(timeout=60) for _ in fighters]
    for fighter in fighters:
        fighter.join()
    assert "two at once" not in found
    assert sum(found) > 0


def with_a_bar(path):
    """A job whose progress bar takes a semaphore, which nobody else gives back."""
    for _ in tqdm([0]):
        path.touch()


def test_workers_without_work_end_by_themselves_and_give_back_their_semaphores(tmp_path):
    """A tracker of semaphores complains, after everything else, of those that killed processes leave behind."""
    script = (
        "from functools import partial; from pathlib import Path; from test_jobs import *; "
        f"paths = [Path({str(tmp_path)!r}, name) for name in 'ab']; "
        "run_jobs([Job(path.name, partial(with_a_bar, path), path.exists) for path in paths], LocalExecutor(2), 'jobs')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "tests", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, sorted(path.name for path in tmp_path.iterdir())) == (0, ["a", "b"])
    assert "semaphore" not in done.stderr


def test_nothing_but_the_executors_starts_processes():
    starters = {}
    for package in ("groundwork", "envs", "planner", "norm_study"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                if found := {name.split(".")[0] for name in names} & {"multiprocessing", "concurrent", "subprocess"}:
                    starters[str(file.relative_to(ROOT))] = found
    assert starters == {
        "groundwork/jobs.py": {"multiprocessing"},
        "groundwork/slurm.py": {"subprocess"},  # asks the cluster for its jobs
        "planner/training/provenance.py": {"subprocess"},
    }  # git's commit
