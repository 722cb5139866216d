"""One training by several processes: the batch stays the same, rank 0 writes, and their number may change."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import run_module, start
from safetensors.torch import load_file

from planner.config import to_yaml
from planner.training.run import RunFolder
from planner.training.train import train
from planner.training.trainer import Trainer

TOLERANCE = 1e-4
"""How far weights may lie apart after TINY's twelve steps, relative to the largest of a tensor: sums over the batch are
taken in another order, and Adam's first steps have the size of the learning rate whatever the gradient's."""


def as_rank(variables, function, *arguments):
    os.environ.update(variables)
    return function(*arguments)


def in_ranks(folder, count, function, *arguments):
    """Calls a function in so many processes that can find one another; their exit codes and what they printed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    known = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        start(folder, as_rank, known | {"RANK": str(n), "LOCAL_RANK": str(n)}, function, *arguments)
        for n in range(count)
    ]
    return [rank.end() for rank in ranks], [rank.printed() for rank in ranks]


def train_and_keep_batches(config, folder):
    """Trains, and keeps what this process computed the loss of, in ``batches-RANK.pt``."""
    seen, loss = [], Trainer.loss
    Trainer.loss = lambda self, network, batch: seen.append(batch) or loss(self, network, batch)
    try:
        train(config, folder / "run", "cpu", progress=False, log=())
    finally:
        Trainer.loss = loss
    torch.save(seen, folder / f"batches-{os.environ.get('RANK', '0')}.pt")
    return 0


def train_until(config, path, stop):
    """Trains, interrupted before that step."""
    update = Trainer.update

    def interrupted(self):
        if self.step == stop:
            raise KeyboardInterrupt
        return update(self)

    Trainer.update = interrupted
    train(config, path, "cpu", progress=False, log=())
    return 0


def weights(path):
    return load_file(RunFolder(path).checkpoint() / "model" / "diffusion_pytorch_model.safetensors")


def apart(path, other):
    """The largest distance of two runs' weights, relative to the largest of each tensor."""
    pairs = [(value, weights(other)[name]) for name, value in weights(path).items()]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def losses(path):
    return [[row["step"], row["loss"]] for row in RunFolder(path).metrics()]


@pytest.fixture(scope="module")
def alone(hash_dataset, tmp_path_factory):
    """The folder of a run of one process, and its settings."""
    from conftest import TINY

    from planner.config import from_dict

    folder, config = tmp_path_factory.mktemp("alone"), from_dict(TINY)
    train_and_keep_batches(config, folder)
    return folder, config


def test_two_ranks_share_the_windows_and_the_noise_of_one_process(alone, tmp_path):
    folder, config = alone
    codes, printed = in_ranks(tmp_path, 2, train_and_keep_batches, config, tmp_path)
    assert codes == [0, 0], printed
    whole, *shares = [torch.load(path) for path in (folder / "batches-0.pt", *sorted(tmp_path.glob("batches-*.pt")))]
    assert len(shares) == 2
    assert len(whole) == len(shares[0]) == config.steps
    for batch, *parts in zip(whole, *shares, strict=True):
        for values, *of_ranks in zip(batch, *parts, strict=True):
            assert [len(part) for part in of_ranks] == [config.batch_size // 2] * 2
            assert torch.equal(torch.cat(of_ranks), values)
    assert losses(tmp_path / "run") == [[step, pytest.approx(loss, rel=1e-5)] for step, loss in losses(folder / "run")]
    assert apart(tmp_path / "run", folder / "run") < TOLERANCE


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    folder, config = alone
    run = tmp_path / "run"
    for count, stop in ((2, 6), (1, 11), (2, -1)):
        in_ranks(tmp_path, count, train_until, config, run, stop)
        assert RunFolder(run).checkpoints()[-1].name == f"step_{(stop if stop > 0 else 13) - 1:08d}"
    assert RunFolder(run).done
    assert RunFolder(run).provenance()["processes"] == 2
    assert [step for step, _ in losses(run)] == [step for step, _ in losses(folder / "run")]
    assert apart(run, folder / "run") < TOLERANCE


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("--model.norm", "batch"), "model.norm = batch takes statistics over the whole batch"),
        (("--batch-size", "3"), "batch_size = 3 cannot be shared by 2 processes"),
    ],
)
def test_what_ranks_cannot_share_is_refused_in_one_line_by_one_of_them(tiny, hash_dataset, tmp_path, setting, words):
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny()))
    arguments = ["train", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run"), "--device", "cpu", *setting]
    codes, (told, silence) = in_ranks(tmp_path, 2, run_module, "planner.main", arguments)
    assert codes == [2, 2]
    assert words in told.splitlines()[-1]
    assert told.count(words) == 1
    assert not silence
    assert not (tmp_path / "run" / "config.yaml").exists()


def torchrun(folder, count, config):
    """A started ``torchrun`` of a training into ``folder / "run"``."""
    (folder / "tiny.yaml").write_text(to_yaml(config))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "--"]
    command = ["planner", "train", str(folder / "tiny.yaml"), "--run", str(folder / "run")]
    return subprocess.Popen([*run, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_torchrun_trains_and_evaluates(tiny, hash_dataset, tmp_path):
    started = torchrun(tmp_path, 2, tiny(evaluate_every=12, evaluate_episodes=1))
    printed, _ = started.communicate(timeout=250)
    assert started.returncode == 0, printed
    row = RunFolder(tmp_path / "run").metrics()[-1]
    assert row["step"] == 12
    assert "rollout_success" in row
    assert RunFolder(tmp_path / "run").provenance()["processes"] == 2


@pytest.mark.slow
def test_after_a_rank_is_killed_the_same_command_ends_with_the_bits_of_ranks_never_killed(tiny, hash_dataset, tmp_path):
    config = tiny(steps=600)
    started = torchrun(tmp_path, 2, config)
    deadline = time.monotonic() + 100
    while len(losses(tmp_path / "run")) < 3:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(ranks[1]), signal.SIGKILL)
    started.communicate(timeout=100)
    assert started.returncode == 1
    assert not RunFolder(tmp_path / "run").done
    again = torchrun(tmp_path, 2, config)
    assert again.communicate(timeout=100)
    assert again.returncode == 0
    in_ranks(tmp_path, 2, train_until, config, tmp_path / "whole", -1)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert apart(tmp_path / "run", tmp_path / "whole") == 0
