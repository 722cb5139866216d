"""A run folder: config, provenance, metrics and checkpoints that survive a kill at any moment.

::

    runs/NAME/config.yaml         the resolved settings, itself a preset
              provenance.json     versions, git commit, seed, device, threads
              data.json           what the planner must know of its data (limits, map, longest step)
              checksums.json      of these three
              metrics.jsonl       one row per logged step: the truth
              events.out.…        TensorBoard: the view
              checkpoints/step_N/ model/ ema/ (safetensors), optimizer.safetensors, state.json,
                                  checksums.json
              last                name of the newest checkpoint
              rollouts/           what `planner compare` asked of it, so that nothing is rolled out twice
              DONE                written when the last step is done
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from groundwork.claims import Claim
from groundwork.command_options import said
from groundwork.errors import UserError
from groundwork.files import CHECKSUMS, read_json, verify_checksums, write_atomically, write_checksums
from planner.config import Config, from_dict, load_preset, to_dict, to_yaml, what_trains
from planner.data import DataStatistics
from planner.training.checkpoint import read_network, read_optimizer, write_checkpoint
from planner.training.provenance import provenance
from planner.unet import TemporalUNet

METRICS = {"step", "loss", "gradient_norm", "learning_rate", "steps_per_second"}
"""What every row of ``metrics.jsonl`` holds."""


class RunFolder:
    """One training run on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def claim(self) -> Claim:
        """The right to write here, for one process at a time: ``with folder.claim(): …``.

        Raises:
            InUseError: on entering, if another process writes here.
        """
        return Claim(self.path / ".claim", f"run folder {self.path}")

    @property
    def done(self) -> bool:
        """Whether the training has ended."""
        return (self.path / "DONE").exists()

    def mark_done(self) -> None:
        """Notes that the training has ended."""
        write_atomically(self.path / "DONE", "")

    def start(
        self,
        config: Config,
        statistics: DataStatistics,
        device: torch.device,
        processes: int = 1,
        teacher: str | None = None,
    ) -> None:
        """Writes config, provenance and statistics of a new run, or compares the config of one to resume.

        What changes no weight, such as ``log_every``, may differ; an unfinished run goes on with the new value.

        Args:
            config: the settings.
            statistics: of the data.
            device: where it is trained.
            processes: how many train it.
            teacher: checksum of its teacher's weights.

        Raises:
            UserError: the folder holds a run of other settings, data or teacher.
        """
        if (self.path / "config.yaml").exists() and self._has_begun():
            stored = self.config()
            if what_trains(stored) != what_trains(config):
                name, old, new = _first_difference(to_dict(what_trains(stored)), to_dict(what_trains(config)))
                further = f", where init_from = {self.path} trains on from its weights" if name == "steps" else ""
                raise UserError(
                    f"{self.path} holds a run with {name} = {said(old)}, not {said(new)}: "
                    f"take another --run folder{further}"
                )
            began, now = (json.dumps(known.to_dict()) for known in (self.statistics(), statistics))
            if began != now:
                raise UserError(
                    f"{self.path} began with other data: {config.data.dataset} has changed since; "
                    "take another --run folder"
                )
            if not self.done and self.provenance().get("teacher", teacher) != teacher:
                raise UserError(
                    f"{self.path} began with other weights of diffusion.teacher = {said(config.diffusion.teacher)}: "
                    "take another --run folder"
                )
            self._compare_machine(device, processes)
            if stored != config and not self.done:
                (self.path / CHECKSUMS).unlink(missing_ok=True)  # a kill between the two leaves a config to read
                self._write_settings(config)
            return
        origin = provenance(config.seed, device) | {"processes": processes}
        origin |= {"teacher": teacher} if teacher else {}
        write_atomically(self.path / "provenance.json", json.dumps(origin, indent=2))
        write_atomically(self.path / "data.json", json.dumps(statistics.to_dict()))
        self._write_settings(config)

    def _has_begun(self) -> bool:
        """Whether anything of a training is there; one that failed at once leaves its settings alone."""
        return self.done or bool(self.checkpoints()) or bool(self.metrics())

    def _write_settings(self, config: Config) -> None:
        write_atomically(self.path / "config.yaml", to_yaml(config))
        write_checksums(self.path, ("provenance.json", "data.json", "config.yaml"))

    def _compare_machine(self, device: torch.device, processes: int) -> None:
        origin = self.provenance()
        threads, began, others = origin.get("threads"), origin.get("device"), origin.get("processes", 1)
        if began != str(device):
            print(f"note: this run began on {began} and goes on on {device}, with other batches", file=sys.stderr)
        elif threads != torch.get_num_threads():
            print(
                f"note: this run began with {threads} threads and goes on with {torch.get_num_threads()}: "
                f"its last bits will differ from an uninterrupted run's (OMP_NUM_THREADS={threads} keeps them)",
                file=sys.stderr,
            )
        elif processes != others:
            print(
                f"note: this run began with {others} processes and goes on with {processes}: its last bits will differ "
                "from an uninterrupted run's",
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
        self._check("config.yaml")
        values = load_preset(path)
        try:
            return from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def provenance(self) -> dict[str, Any]:
        """Where the run comes from; see :func:`provenance`.

        Raises:
            UserError: missing or damaged.
        """
        self._check("provenance.json")
        origin = read_json(self.path / "provenance.json")
        if not isinstance(origin, dict):
            raise UserError(f"{self.path / 'provenance.json'} is damaged (it holds no mapping)")
        return origin

    def _check(self, name: str) -> None:
        verify_checksums(self.path, [name], "restore it, or delete checksums.json if you meant to edit it")

    def statistics(self) -> DataStatistics:
        """What the run knows of its data.

        Raises:
            UserError: missing or damaged.
        """
        self._check("data.json")
        try:
            return DataStatistics.from_dict(read_json(self.path / "data.json"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.path / 'data.json'} is damaged ({error!r})") from error

    # metrics

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds one row to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole rows of ``metrics.jsonl``; a line that a kill cut short, or a damaged one, is left out."""
        path = self.path / "metrics.jsonl"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        rows, lines = [], text.splitlines()
        for number, line in enumerate(lines, 1):
            row = _metrics_row(line)
            if row is not None:
                rows.append(row)
            elif number < len(lines):  # a kill cuts the last line alone
                print(f"note: {path}: line {number} is damaged and left out", file=sys.stderr)
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Forgets rows after ``step``, which a resumed run writes again."""
        kept = [json.dumps(row) + "\n" for row in self.metrics() if row["step"] <= step]
        write_atomically(self.path / "metrics.jsonl", "".join(kept))

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
        write_checkpoint(final, step, model, ema, optimizer_state)
        write_atomically(self.path / "last", final.name)
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
            UserError: missing, damaged, or not fitting the run's settings.
        """
        folder = self.checkpoint(step)
        network = self.make_network()
        read_network(folder, weights, network)
        return network

    def make_network(self) -> TemporalUNet:
        """A network of the run's settings, untrained."""
        return TemporalUNet(self.statistics().layout.transition_dim, **vars(self.config().model))

    def load_optimizer(self, parameters: Sequence[torch.Tensor]) -> tuple[int, dict[int, dict[str, torch.Tensor]]]:
        """Step and optimizer state of the last checkpoint, as ``{index of the parameter: {name: tensor}}``.

        Raises:
            UserError: missing, damaged, or not fitting ``parameters``.
        """
        return read_optimizer(self.checkpoint(), parameters)


def _metrics_row(line: str) -> dict[str, Any] | None:
    """The row in a line of ``metrics.jsonl``, or ``None`` if the line is not what was written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not set(row) >= METRICS or type(row["step"]) is not int:
        return None
    return row if all(isinstance(row[name], int | float) for name in METRICS) else None


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> tuple[str, Any, Any]:
    for key, value in old.items():
        if value != new[key]:
            if isinstance(value, dict):
                return _first_difference(value, new[key], f"{prefix}{key}.")
            return f"{prefix}{key}", value, new[key]
    raise AssertionError("no difference")
