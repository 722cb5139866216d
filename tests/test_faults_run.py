"""What may happen to a run folder: kills, full disks, damage, strangers' files. Nothing finished is lost."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HASH, TINY
from processes import start_command
from safetensors.torch import load_file, save_file
from test_train import digest

from groundwork.errors import UserError
from groundwork.files import write_checksums
from planner.config import from_dict, merge, to_yaml
from planner.data import load_data
from planner.norms import NORM_KINDS
from planner.plan import Planner
from planner.training.checkpoint import OPTIMIZER_STATE
from planner.training.run import METRICS, RunFolder
from planner.training.train import train
from planner.training.trainer import Trainer
from planner.unet import TemporalUNet

LONG = {"steps": 400, "checkpoint_every": 5, "log_every": 5, "keep_checkpoints": 2}
EMA = "ema/diffusion_pytorch_model.safetensors"


@pytest.fixture
def finished(tiny_run, tmp_path):
    """A copy of a finished run that a test may damage."""
    return RunFolder(shutil.copytree(tiny_run, tmp_path / "copy"))


@pytest.fixture
def unfinished(finished):
    """The same without its end: the next training begins with its last checkpoint."""
    (finished.path / "DONE").unlink()
    return finished


@pytest.fixture
def small_disk(tmp_path):
    """Mounts file systems of their own; skips where that is not allowed."""
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def preset(folder: Path, **over) -> Path:
    path = folder / "preset.yaml"
    path.write_text(to_yaml(from_dict(merge(TINY, over))), encoding="utf-8")
    return path


def train_command(folder: Path, path: Path):
    return ("planner.main", "train", folder / "preset.yaml", "--device", "cpu", "--run", path)


def error_lines(printed: str) -> list[str]:
    """What a command said besides the resolved settings and notes."""
    assert "Traceback" not in printed, printed
    return [line for line in printed.splitlines() if line.startswith(("error:", "interrupted"))]


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def every_kept_checkpoint_loads(folder: RunFolder) -> bool:
    for path in folder.checkpoints():
        step = int(path.name.removeprefix("step_"))
        assert all(torch.isfinite(p).all() for w in ("ema", "model") for p in folder.load_network(w, step).parameters())
    return bool(folder.checkpoints())


# stopped and starved


def test_ctrl_c_during_training_is_one_line_and_the_same_command_goes_on(hash_dataset, tmp_path):
    preset(tmp_path, **LONG)
    child = start_command(tmp_path, *train_command(tmp_path, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    child.wait_until(folder.checkpoints)
    assert child.send(signal.SIGINT) == 130
    assert error_lines(child.printed()) == ["interrupted"]
    assert every_kept_checkpoint_loads(folder)
    before = folder.load_optimizer(list(folder.load_network("model").parameters()))[0]
    assert 5 <= before < 400
    train(folder.config(), folder.path, "cpu", progress=False)
    assert [row["step"] for row in folder.metrics()] == list(range(5, 401, 5))


def test_of_two_processes_on_one_run_folder_the_second_is_refused(hash_dataset, tmp_path):
    preset(tmp_path, **LONG)
    first = start_command(tmp_path, *train_command(tmp_path, tmp_path / "run"))
    first.wait_until(RunFolder(tmp_path / "run").checkpoints)
    second = start_command(tmp_path, *train_command(tmp_path, tmp_path / "run"))
    assert second.end() == 2
    (line,) = error_lines(second.printed())
    assert "in use by another process" in line
    assert first.process.is_alive()
    assert first.send(signal.SIGKILL) == -signal.SIGKILL
    assert every_kept_checkpoint_loads(RunFolder(tmp_path / "run"))


def test_a_disk_that_fills_up_keeps_all_older_checkpoints_and_the_run_goes_on_after(small_disk, hash_dataset, tmp_path):
    disk = small_disk("1m")
    preset(tmp_path, steps=24, checkpoint_every=2, keep_checkpoints=0)
    child = start_command(tmp_path, *train_command(tmp_path, disk / "run"))
    assert child.end() == 2
    (line,) = error_lines(child.printed())
    assert "No space left on device" in line
    folder = RunFolder(disk / "run")
    assert every_kept_checkpoint_loads(folder)
    assert not folder.done
    remount(disk, "size=60m")
    train(folder.config(), folder.path, "cpu", progress=False)
    train(folder.config(), tmp_path / "never-full", "cpu", progress=False)
    assert digest(folder.path) == digest(tmp_path / "never-full")
    assert not [path for path in folder.path.rglob(".*") if path.name != ".lock"]


def test_a_checkpoint_larger_than_a_file_may_be_keeps_the_older_ones(hash_dataset, tmp_path):
    preset(tmp_path, **LONG)
    child = start_command(tmp_path, *train_command(tmp_path, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    child.wait_until(folder.checkpoints)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert child.end() == 2
    (line,) = error_lines(child.printed())
    assert "File too large" in line
    assert "older ones are whole" in line
    assert every_kept_checkpoint_loads(folder)
    assert train(folder.config(), folder.path, "cpu", progress=False).done


def test_a_run_that_may_only_be_read_plans_and_is_compared_and_cannot_be_trained(
    small_disk, command, refused, tiny_run, tmp_path
):
    disk = small_disk("20m")
    run = shutil.copytree(tiny_run, disk / "run")
    remount(disk, "ro")
    problem = ["--start=-4,2", "--goal=2,4", "--num-plans", 1]
    assert command("planner.main", "plan", run, *problem, "--out", tmp_path / "p.json").returncode == 0
    for kind in ("json", "png", "gif"):
        assert "Read-only" in refused("planner.main", "plan", run, *problem, "--out", disk / f"p.{kind}")
    settings = ["--multiples", 1, "--episodes", 1, "--tasks", "return"]
    done = command("planner.main", "compare", run, "--out", tmp_path / "out", *settings)
    assert done.returncode == 0, done.stderr
    assert "the rollout is not kept (Read-only file system)" in done.stderr
    assert "Read-only" in refused("planner.main", "compare", run, "--out", disk / "out", *settings)
    assert "Read-only" in refused("planner.main", "train", run / "config.yaml", "--run", run)
    assert "Read-only" in refused("planner.main", "train", run / "config.yaml", "--run", disk / "other")


def test_a_training_that_failed_before_its_first_step_leaves_its_folder_to_another(tiny, hash_dataset, tmp_path):
    with pytest.raises(UserError, match="nope is no run folder"):
        train(tiny(init_from="nope"), tmp_path / "run", "cpu", progress=False)
    with pytest.raises(UserError, match="not finite"):
        train(tiny(learning_rate=1e30), tmp_path / "run", "cpu", progress=False)
    assert train(tiny(), tmp_path / "run", "cpu", progress=False).done
    with pytest.raises(UserError, match="holds a run with init_from = none, not nope"):
        train(tiny(init_from="nope"), tmp_path / "run", "cpu", progress=False)


def test_a_folder_below_a_file_is_one_line(refused, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "run"
    assert "Not a directory" in refused("planner.main", "train", tiny_run / "config.yaml", "--run", below)
    problem = ["--start=-4,2", "--goal=2,4", "--num-plans", 1]
    assert "Not a directory" in refused("planner.main", "plan", tiny_run, *problem, "--out", below / "p.json")


@pytest.mark.parametrize("subcommand", ["plan", "rollout"])
@pytest.mark.parametrize("after_s", [0.05, 0.6])
def test_ctrl_c_while_planning_and_rolling_out_is_one_line(tiny_run, tmp_path, subcommand, after_s):
    work = {
        "plan": ["--start=-4,2", "--goal=2,4", "--num-plans", 200_000, "--out", tmp_path / "p.json"],
        "rollout": ["--episodes", 500, "--json", tmp_path / "r.json"],
    }
    child = start_command(tmp_path, "planner.main", subcommand, tiny_run, *work[subcommand])
    child.wait_until(child.errors.exists)
    time.sleep(after_s)
    assert child.send(signal.SIGINT) == 130
    assert error_lines(child.printed()) == ["interrupted"]
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("module", ["planner.main", "norm_study.main", "envs.main"])
@pytest.mark.parametrize("after_s", [0.4, 1.5])
def test_ctrl_c_while_a_command_still_imports_is_one_line(tmp_path, module, after_s):
    asked = {
        "planner.main": ["rollout", "nowhere"],
        "norm_study.main": ["localize"],
        "envs.main": ["collect", "hash", "--steps", "100000000"],
    }
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from {module} import main; print('on', flush=True); sys.exit(main())"]
        + asked[module],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    if process.returncode != 2:  # it had not ended by itself
        assert process.returncode == 130, errors
        assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors


# damaged


def plan(folder: RunFolder) -> None:
    Planner.from_run(folder.path, device="cpu").plan([-4, 2], [2, 4])


def add_settings_of_their_own(checkpoint: Path, network: TemporalUNet) -> None:
    """What checkpoints had beside their weights when each was a folder of ``save_pretrained``."""
    for name in ("ema", "model"):
        network.save_config(checkpoint / name)
    names = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
    write_checksums(checkpoint, [name for name in names if name != "checksums.json"])


def resume(folder: RunFolder) -> None:
    train(folder.config(), folder.path, "cpu", progress=False)


@pytest.mark.parametrize(
    ("file", "use"),
    [
        (f"CHECKPOINT/{EMA}", plan),
        ("CHECKPOINT/ema/config.json", plan),
        ("config.yaml", plan),
        ("data.json", plan),
        ("CHECKPOINT/model/diffusion_pytorch_model.safetensors", resume),
        ("CHECKPOINT/model/config.json", resume),
        ("CHECKPOINT/optimizer.safetensors", resume),
        ("CHECKPOINT/state.json", resume),
        ("provenance.json", resume),
    ],
)
def test_a_flipped_bit_and_a_file_cut_short_are_refused_by_name(unfinished, file, use):
    add_settings_of_their_own(unfinished.checkpoint(), unfinished.load_network())
    path = unfinished.path / file.replace("CHECKPOINT", f"checkpoints/{unfinished.checkpoint().name}")
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(12):
        flip(path, random.integers(len(whole)), random.integers(8))
        with pytest.raises(UserError) as refusal:
            use(unfinished)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
        path.write_bytes(whole)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=path.parent.name) as refusal:
            use(unfinished)
        assert "\n" not in str(refusal.value)
    path.write_bytes(whole)
    use(unfinished)


@pytest.mark.parametrize("file", ["checksums.json", "CHECKPOINT/checksums.json"])
def test_damaged_checksums_are_refused_or_do_no_harm(finished, file):
    path = finished.path / file.replace("CHECKPOINT", f"checkpoints/{finished.checkpoint().name}")
    whole, random, refusals = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(30):
        flip(path, random.integers(len(whole)), random.integers(8))
        try:
            Planner.from_run(finished.path, device="cpu")  # an entry of a file that it does not need may be wrong
        except UserError as refusal:
            refusals.append(str(refusal))
        path.write_bytes(whole)
    assert len(refusals) > 8
    assert all(str(path.parent) in line and "\n" not in line for line in refusals)


def test_a_damaged_checkpoint_names_the_remedy_and_the_one_before_it_goes_on(unfinished, refused, tiny_run):
    last = unfinished.checkpoint()
    flip(last / "model/diffusion_pytorch_model.safetensors", -1, 0)
    line = refused("planner.main", "train", unfinished.path / "config.yaml", "--run", unfinished.path)
    assert f"delete {last}" in line
    shutil.rmtree(last)
    resume(unfinished)
    assert digest(unfinished.path) == digest(tiny_run)


def test_damaged_rows_of_metrics_are_left_out_with_a_note_and_the_run_goes_on(unfinished, capsys):
    path = unfinished.path / "metrics.jsonl"
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        flip(path, random.integers(len(whole)), random.integers(8))
        assert all(set(row) >= METRICS for row in unfinished.metrics())
        path.write_bytes(whole)
    capsys.readouterr()
    for spoilt in (b"[1]\n", b"{}\n", b'"step"\n', b"\xff\xfe\n", b'{"step": "four"}\n'):
        path.write_bytes(spoilt + whole)
        assert len(unfinished.metrics()) == 5
        assert f"note: {path}: line 1 is damaged" in capsys.readouterr().err
    resume(unfinished)
    assert path.read_bytes().count(b"\n") == 5


# files that do not belong there


@pytest.mark.parametrize("damage", ["missing", "one too many", "another shape"])
@pytest.mark.parametrize("weights", ["ema", "model", "optimizer"])
def test_a_tensor_missing_too_many_or_of_another_shape_is_refused_by_name(unfinished, weights, damage):
    checkpoint = unfinished.checkpoint()
    (checkpoint / "checksums.json").unlink()  # as in a checkpoint from elsewhere
    path = checkpoint / ("optimizer.safetensors" if weights == "optimizer" else EMA.replace("ema", weights))
    tensors = load_file(path)
    name = "3.exp_avg" if weights == "optimizer" else "project.weight"
    match damage:
        case "missing":
            del tensors[name]
        case "one too many":
            tensors[name + ".other"] = torch.zeros(1)
        case "another shape":
            tensors[name] = torch.zeros(3, 7, 1)
    save_file(tensors, path)
    with pytest.raises(UserError, match=f"{path}: tensor {name}") as refusal:
        (plan if weights == "ema" else resume)(unfinished)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("norm", NORM_KINDS)
def test_the_optimizer_keeps_the_same_tensors_of_every_parameter(tiny, hash_dataset, norm):
    config = tiny(model={"norm": norm})
    trainer = Trainer(config, load_data(config.data), torch.device("cpu"))
    trainer.update()
    state = trainer.optimizer.state_dict()["state"]
    assert sorted(state) == list(range(len(list(trainer.network.parameters()))))
    assert all(set(values) == set(OPTIMIZER_STATE) for values in state.values())


@pytest.mark.parametrize("change", [{"dim": 16}, {"norm": "channel"}, {"dim_mults": [1, 1]}])
def test_a_checkpoint_of_another_run_is_refused_by_the_setting_that_differs(tiny, tiny_run, unfinished, change):
    other = Trainer(tiny(model=change), load_data(tiny().data), torch.device("cpu"))
    for name in ("ema", "model"):
        shutil.rmtree(unfinished.checkpoint() / name)
        other.network.save_pretrained(unfinished.checkpoint() / name, safe_serialization=True)
    (unfinished.checkpoint() / "checksums.json").unlink()
    for use in (plan, resume):
        with pytest.raises(UserError, match=f"has {next(iter(change))} = .*, but the run in .* has"):
            use(unfinished)


class Executed:
    """Leaves a mark if a pickle of it is ever opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_pickle_posing_as_a_checkpoint_is_never_opened(unfinished, command, refused, tmp_path):
    mark = tmp_path / "executed"
    bomb = pickle.dumps(Executed(mark))
    pickle.loads(bomb)
    assert mark.exists()  # it would show
    mark.unlink()
    problem = ["plan", unfinished.path, "--start=-4,2", "--goal=2,4", "--num-plans", 1, "--out", tmp_path / "p.json"]
    weights = unfinished.checkpoint() / EMA
    for beside in ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt", "diffusion_pytorch_model.pt"):
        weights.with_name(beside).write_bytes(bomb)
    assert command("planner.main", *problem).returncode == 0
    (unfinished.checkpoint() / "checksums.json").unlink()
    safe = weights.read_bytes()
    weights.unlink()
    assert "safetensors only" in refused("planner.main", *problem)
    weights.write_bytes(bomb)
    assert f"{weights} is damaged" in refused("planner.main", *problem)
    torch.save({"project.weight": Executed(mark)}, weights)
    assert f"{weights} is damaged" in refused("planner.main", *problem)
    begin = ["train", unfinished.path / "config.yaml", "--init_from", unfinished.path, "--run", tmp_path / "new"]
    assert f"{weights} is damaged" in refused("planner.main", *begin)
    weights.write_bytes(safe)
    optimizer = unfinished.checkpoint() / "optimizer.safetensors"
    optimizer.write_bytes(bomb)
    line = refused("planner.main", "train", unfinished.path / "config.yaml", "--run", unfinished.path)
    assert f"{optimizer} is damaged" in line
    assert not mark.exists()


# names


def test_spaces_and_other_alphabets_in_all_paths(datasets_root, hash_dataset, command, tmp_path, monkeypatch):
    strange = tmp_path / "Läufe mit Leerzeichen 走 ø'\"&"
    strange.mkdir()
    shutil.copytree(datasets_root / HASH, strange / "Daten ñ" / HASH)
    shutil.copy(datasets_root / "mazes" / "namespace_metadata.json", strange / "Daten ñ" / "mazes")
    (strange / "tmp é").mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(strange / "Daten ñ"))
    monkeypatch.setattr("tempfile.tempdir", str(strange / "tmp é"))
    preset(strange)
    run, out = strange / "Lauf №1", strange / "Ausgabe ü"
    few = ["--episodes", 1, "--tasks", "return"]
    problem = ["--start=-4,2", "--goal=2,4", "--num-plans", 1]
    for arguments in (
        ["train", strange / "preset.yaml", "--run", run],
        ["plan", run, *problem, "--out", strange / "Plan π.png"],
        ["plan", run, *problem, "--out", strange / "Plan π.gif"],
        ["plan", run, *problem, "--out", strange / "Plan π.json"],
        ["rollout", run, *few, "--json", out / "Zeilen 行.json"],
        ["compare", run, "--multiples", 1, *few, "--out", out],
    ):
        done = command("planner.main", *arguments)
        assert done.returncode == 0, done.stderr
    sizes = ["--horizons", 1, "--episodes", 1, "--best-of", 1, "--json", out / "Naht ǁ.json"]
    done = command("norm_study.main", "stitch", "--run", run, *sizes)
    assert done.returncode == 0, done.stderr
    assert "Lauf №1" in (out / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "Zeilen 行.json").read_text(encoding="utf-8"))["rows"]
    assert command("envs.main", "show", HASH, "--out", out / "Bild ß.png").returncode == 0
