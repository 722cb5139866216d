"""Sixty tiny runs on a real Slurm, a third of whose jobs are killed at random moments, against one process.

``pytest tests/test_slurm_grid.py`` prints what docs/scale.md says of it.
"""

import json
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY
from processes import start_command
from slurm import Slurm, end, missing
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from planner.config import from_dict, to_yaml
from planner.training.run import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(bool(missing()), reason=missing() or "there is a Slurm"),
]
SEEDS, PACK = 30, 3
JOBS = 2 * SEEDS // PACK
COMMANDS = {"scancel": ["scancel"], "requeue": ["scontrol", "requeue"], "preempt": ["scancel", "--signal=USR2"]}
KILLS = [*COMMANDS, "worker", "submitter"]


@pytest.fixture
def slurm(tmp_path):
    cluster = Slurm(tmp_path / "slurm", cpus=1)
    yield cluster
    cluster.stop()


class Grid:
    """The sweep's command on the cluster, killed and started again until it ends well.

    Attributes:
        kills: (how, job, seconds after the start).
        answers: path → bytes, as they were when first seen.
    """

    def __init__(self, slurm, folder, command):
        self.slurm, self.folder, self.command = slurm, folder, command
        self.kills, self.answers, self.random = [], {}, random.Random(0)
        self.submitters = 0
        folder.mkdir()
        self._submit()

    def _submit(self):
        self.submitter = start_command(self.folder, "planner.main", *self.command)
        self.submitters += 1

    def look(self):
        """Notes new answers, and starts what was put back at once."""
        for path in [*self.folder.glob("*/rollouts/[!.]*.json"), *self.folder.glob("*/DONE")]:
            if path not in self.answers:
                self.answers[path] = (path.stat().st_mtime_ns, path.read_bytes())
        for job in self.slurm.ask("squeue", "--noheader", "--states=PENDING", "--format=%A %r").splitlines():
            if "BeginTime" in job:
                self.slurm.ask("scontrol", "update", f"JobId={job.split()[0]}", "StartTime=now")

    def kill(self, after_s):
        """Kills something that runs, at some moment of a training under way; whether it did."""
        running = self.slurm.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()
        saved = [path for path in self.folder.glob("*/last") if not path.with_name("DONE").exists()]
        under_way = any(time.time() - path.stat().st_mtime < 2 for path in saved)
        if not running or not under_way or self.random.random() < 0.5:
            return False
        how, job = KILLS[len(self.kills) % len(KILLS)], running[0]
        if how == "submitter":
            self.submitter.send(signal.SIGKILL)
        elif how == "worker":
            for pid in self.slurm.ask("pgrep", "-f", f"submitit.core._submit {self.folder}").split():
                end(int(pid), signal.SIGKILL)
        else:
            try:
                subprocess.run([*COMMANDS[how], job], check=False, capture_output=True, timeout=5)
            except subprocess.TimeoutExpired:  # scancel waits for a job that is ending by itself
                return False
        self.kills.append((how, job, round(after_s)))
        return True

    def run(self):
        """To the end; the seconds that it took."""
        began = time.monotonic()
        due = began + self.random.uniform(10, 30)
        while True:
            self.look()
            wanted = len(self.kills) * 3 < JOBS and time.monotonic() > due
            if wanted and self.kill(time.monotonic() - began):
                due = time.monotonic() + self.random.uniform(5, 25)
            if not self.submitter.process.is_alive():
                if self.submitter.end() == 0:
                    return time.monotonic() - began
                self._submit()
            time.sleep(0.3)


def processor_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(*command):
    """Wall and processor seconds of a command."""
    wall, processor = time.monotonic(), processor_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - wall, processor_s() - processor


def rows(run):
    (file,) = run.glob("rollouts/[!.]*.json")
    return [{k: v for k, v in row.items() if k != "planning_ms"} for row in json.loads(file.read_text())["rows"]]


def weights(run):
    return RunFolder(run).checkpoint().joinpath("ema", "diffusion_pytorch_model.safetensors").read_bytes()


def resumed_at(run):
    """The first step that a later process logged, of each that went on with this training."""
    first = []
    for file in sorted(run.glob("events.out.*"))[1:]:
        steps = [event.step for event in EventFileLoader(str(file)).Load() if event.step]
        first += steps[:1]
    return [step for step in first if step > TINY["log_every"]]


def test_a_grid_with_a_third_of_its_jobs_killed_has_the_rows_and_the_bits_of_one_process(
    slurm, hash_dataset, tmp_path, capsys
):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(to_yaml(from_dict(TINY | {"steps": 100, "checkpoint_every": 10})))
    sweep = f"sweep {preset} --norms none,channel --seeds {SEEDS} --episodes 1 --horizons 1 --tasks straight"
    serial = timed(sys.executable, "-m", "planner", *shlex.split(f"{sweep} --jobs 1 --out {tmp_path / 'serial'}"))
    modules = "submitit.core._submit, planner.comparison.kept, planner.training.train"
    _, starting = timed(sys.executable, "-c", f"import {modules}")
    asked = f"{sweep} --out {tmp_path / 'cluster'} --executor slurm --pack {PACK}"
    asked += " --slurm.memory-gb 0.5 --slurm.time-min 60 --slurm.warning-s 10"
    grid = Grid(slurm, tmp_path / "cluster", shlex.split(asked))
    wall = grid.run()

    runs = [path.parent for path in sorted((tmp_path / "serial").glob("*/DONE"))]
    others = [tmp_path / "cluster" / run.name for run in runs]
    logs = [log.read_text() for log in (tmp_path / "cluster" / "jobs").glob("*_log.out")]
    starts = sum(len(re.findall("Starting with", log)) for log in logs)
    resumed = {run.name: steps for run in others if (steps := resumed_at(run))}
    with capsys.disabled():
        print(f"\nplanner {asked.replace(str(tmp_path), 'OUT')}")
        print(f"one process: {serial[0]:.0f} s, {serial[1]:.0f} processor seconds; Slurm, one core: {wall:.0f} s")
        print(f"kills: {grid.kills}; the command was given {grid.submitters} times")
        print(f"{starts} starts of jobs for {JOBS} packs; a start costs {starting:.1f} processor seconds")
        print(f"resumed, at step: {resumed}")
    assert len(runs) == 2 * SEEDS
    assert len(grid.kills) * 3 >= JOBS
    for run, other in zip(runs, others, strict=True):
        assert rows(run) == rows(other)
        assert weights(run) == weights(other)
    for path, known in grid.answers.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == known, "computed again"
    assert resumed
