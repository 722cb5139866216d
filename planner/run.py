"""A run folder: config, provenance, metrics and checkpoints that survive a kill at any moment.

::

    runs/NAME/config.yaml         the resolved settings, itself a preset
              provenance.json     versions, git commit, seed, device, threads
              data.json           what the planner must know of its data (limits, map, longest step)
              metrics.jsonl       one row per logged step: the truth
              events.out.…        TensorBoard: the view
              checkpoints/step_N/ model/ ema/ (safetensors + JSON), optimizer.safetensors, state.json
              last                name of the newest checkpoint
              DONE                written when the last step is done
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from envs.command_line import UserError
from planner.config import Config, from_dict, load_preset, to_dict, to_yaml
from planner.data import DataStatistics
from planner.unet import TemporalUNet
from planner.unet_convert import load_unet

_PACKAGES = ("torch", "diffusers", "gymnasium", "gymnasium-robotics", "mujoco", "minari", "numpy", "scipy")


def write_aside(path: Path, content: str | bytes) -> None:
    """Writes a small file so that it is either the old one or the new one, whenever we are killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: is {path.parent} a run folder?") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error})") from error


def provenance(seed: int, device: torch.device) -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, commit, seed, device and thread count."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "seed": seed,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
    }


class RunFolder:
    """One training run on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Creates the folder and takes it for this process, until the process ends.

        Raises:
            UserError: another process is writing here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"run folder {self.path} is in use by another process") from None

    def release(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def done(self) -> bool:
        """Whether the training has ended."""
        return (self.path / "DONE").exists()

    def mark_done(self) -> None:
        """Notes that the training has ended."""
        write_aside(self.path / "DONE", "")

    def start(self, config: Config, statistics: DataStatistics, device: torch.device) -> None:
        """Writes config, provenance and statistics of a new run, or compares the config of one to resume.

        Raises:
            UserError: the folder holds a run of other settings.
        """
        if (self.path / "config.yaml").exists():
            stored = self.config()
            if stored != config:
                name, old, new = _first_difference(to_dict(stored), to_dict(config))
                raise UserError(f"{self.path} holds a run with {name} = {old}, not {new}: take another --run folder")
            self._compare_threads()
            return
        write_aside(self.path / "provenance.json", json.dumps(provenance(config.seed, device), indent=2))
        write_aside(self.path / "data.json", json.dumps(statistics.to_dict()))
        write_aside(self.path / "config.yaml", to_yaml(config))

    def _compare_threads(self) -> None:
        threads = read_json(self.path / "provenance.json")["threads"]
        if threads != torch.get_num_threads():
            print(
                f"note: this run began with {threads} threads and goes on with {torch.get_num_threads()}: "
                f"its last bits will differ from an uninterrupted run's (OMP_NUM_THREADS={threads} keeps them)",
                file=sys.stderr,
            )

    def config(self) -> Config:
        """The stored settings.

        Raises:
            UserError: missing or damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.path} is no run folder: it has no config.yaml")
        return from_dict(load_preset(path))

    def statistics(self) -> DataStatistics:
        """What the run knows of its data.

        Raises:
            UserError: missing or damaged.
        """
        try:
            return DataStatistics.from_dict(read_json(self.path / "data.json"))
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.path / 'data.json'} is damaged ({error!r})") from error

    # metrics

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds one row to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole rows of ``metrics.jsonl``; a line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Forgets rows after ``step``, which a resumed run writes again."""
        kept = [json.dumps(row) + "\n" for row in self.metrics() if row["step"] <= step]
        write_aside(self.path / "metrics.jsonl", "".join(kept))

    # checkpoints

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step_*"))

    def save_checkpoint(
        self,
        step: int,
        model: TemporalUNet,
        ema: TemporalUNet,
        optimizer_state: dict[str, torch.Tensor],
        keep: int,
    ) -> None:
        """Writes a checkpoint aside, renames it into place, and deletes those older than the newest ``keep``."""
        final = self.path / "checkpoints" / f"step_{step:08d}"
        aside = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            model.save_pretrained(aside / "model", safe_serialization=True)
            ema.save_pretrained(aside / "ema", safe_serialization=True)
            save_file(optimizer_state, aside / "optimizer.safetensors")
            write_aside(aside / "state.json", json.dumps({"step": step}))
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise OSError(
                0, f"checkpoint of step {step} not written ({error}); older ones are whole", str(final)
            ) from error
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        write_aside(self.path / "last", final.name)
        for old in self.checkpoints()[:-keep] if keep else []:
            shutil.rmtree(old, ignore_errors=True)

    def checkpoint(self, step: int | None = None) -> Path:
        """The folder of a kept checkpoint, by default the last.

        Raises:
            UserError: there is none, or none of that step.
        """
        kept = self.checkpoints()
        if not kept:
            raise UserError(f"run {self.path} has no checkpoint yet")
        if step is None:
            return kept[-1]
        for folder in kept:
            if int(folder.name.removeprefix("step_")) == step:
                return folder
        steps = ", ".join(str(int(folder.name.removeprefix("step_"))) for folder in kept)
        raise UserError(f"run {self.path} has no checkpoint of step {step}; kept are {steps}")

    def load_network(self, weights: str = "ema", step: int | None = None) -> TemporalUNet:
        """The network of a checkpoint, from safetensors only.

        Args:
            weights: ``ema`` or ``model`` (the raw weights).
            step: which checkpoint; by default the last.

        Raises:
            UserError: missing, damaged, or not fitting its config.
        """
        return load_unet(self.checkpoint(step) / weights)

    def load_optimizer(self) -> tuple[int, dict[str, torch.Tensor]]:
        """Step and optimizer state of the last checkpoint.

        Raises:
            UserError: missing or damaged.
        """
        folder = self.checkpoint()
        try:
            tensors = load_file(folder / "optimizer.safetensors")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / 'optimizer.safetensors'} is damaged ({error}); delete {folder}") from error
        return int(read_json(folder / "state.json")["step"]), tensors


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> tuple[str, Any, Any]:
    for key, value in old.items():
        if value != new[key]:
            if isinstance(value, dict):
                return _first_difference(value, new[key], f"{prefix}{key}.")
            return f"{prefix}{key}", value, new[key]
    raise AssertionError("no difference")
