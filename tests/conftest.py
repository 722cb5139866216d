"""One small dataset and one small run for all tests."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

HASH = "mazes/hash-tasks-v0"


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    yield root
    if before is None:
        del os.environ["MINARI_DATASETS_PATH"]
    else:
        os.environ["MINARI_DATASETS_PATH"] = before


@pytest.fixture(scope="session")
def hash_dataset(datasets_root):
    """Six thousand steps of demonstrated passages on the '#' maze; its id."""
    from envs.collect import collect
    from envs.maps import get_map

    collect(get_map("hash"), "tasks", 6000, 0, HASH, progress=False)
    return HASH


TINY = {
    "data": {"dataset": HASH, "horizon": 32, "stride": 4},
    "model": {"dim": 8, "dim_mults": [1, 2], "kernel_size": 3, "norm_groups": 2},
    "diffusion": {"train_steps": 8, "sampling_steps": 8},
    "steps": 12,
    "batch_size": 4,
    "log_every": 4,
    "checkpoint_every": 5,
    "evaluate_every": 0,
    "warmup_steps": 2,
}


@pytest.fixture
def tiny():
    """A config factory: a training of seconds; keyword overrides of nested values."""
    from planner.config import from_dict, merge

    return lambda **over: from_dict(merge(TINY, over))


@pytest.fixture(scope="session")
def tiny_run(hash_dataset, tmp_path_factory):
    """A finished run of the tiny config with an evaluation at its end; its path."""
    from planner.config import from_dict, merge
    from planner.training.train import train

    path = tmp_path_factory.mktemp("runs") / "tiny"
    config = from_dict(merge(TINY, {"evaluate_every": 12, "evaluate_episodes": 1}))
    return train(config, path, "cpu", progress=False).path


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys):
    """Runs a console command's main function in this process, which saves seconds of imports each time."""

    def run(module: str, *arguments: object) -> Finished:
        capsys.readouterr()
        try:
            code = importlib.import_module(module).main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(command):
    """Asserts that a command ends with one line and exit code 2; returns the line."""

    def check(module: str, *arguments: object) -> str:
        done = command(module, *arguments)
        assert done.returncode == 2, done.stderr
        # the resolved settings, printed before a training starts, are no error
        lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "planner", "maze-data"))]
        assert len(lines) == 1, done.stderr
        return lines[0]

    return check
