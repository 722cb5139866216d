"""Trainings: into run folders, resumable, one or several as one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from groundwork.errors import UserError, out_of_memory
from groundwork.jobs import Job
from planner.config import Config, what_trains
from planner.data import load_data
from planner.device import pick_device
from planner.training.distributed import joined
from planner.training.find import find_run
from planner.training.leak_monitor import LeakMonitor
from planner.training.monitor import Monitor
from planner.training.run import RunFolder
from planner.training.stacked import Stack, check_stack, update_together
from planner.training.teacher import taught, teacher_checksum
from planner.training.trackers import TrackerName
from planner.training.trainer import Trainer, learning_rate


class NotFiniteError(UserError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


def train(
    config: Config,
    path: str | Path,
    device_name: str = "auto",
    progress: bool = True,
    log: Sequence[TrackerName] = ("tensorboard",),
    leakage_every: int = 0,
) -> RunFolder:
    """Trains a planner into a run folder, or continues one there; started by torchrun, as one of several processes.

    Args:
        config: the settings.
        path: the run folder. Where it holds a run of the same settings, that run continues.
        device_name: ``auto``, ``cpu`` or ``cuda``.
        progress: whether to show a progress bar with the time left, on standard error.
        leakage_every: training steps between measurements of leakage, for TensorBoard; 0 for none.
        log: who shows the metrics beside ``metrics.jsonl``, see :mod:`planner.training.trackers`.

    Returns:
        The finished run.

    Raises:
        UserError: bad data, a folder in use or of another run, a damaged checkpoint, a loss that is not finite,
            too little memory, or a tracker that is not installed.
    """
    [folder] = train_together({Path(path): config}, device_name, progress, log, leakage_every)
    return folder


def train_together(
    configs: Mapping[Path, Config],
    device_name: str = "auto",
    progress: bool = True,
    log: Sequence[TrackerName] = ("tensorboard",),
    leakage_every: int = 0,
) -> list[RunFolder]:
    """Trains several planners as one computation, see :mod:`planner.training.stacked`; each as :func:`train` does.

    Args:
        configs: run folder → settings; they differ in seed and learning rate alone.
        device_name: this and the rest as of :func:`train`.
        progress: whether to show one bar, of the steps of all.
        log: who shows the metrics.
        leakage_every: training steps between measurements of leakage.

    Returns:
        The finished runs, in the order of ``configs``.

    Raises:
        UserError: as :func:`train`; a loss that is not finite is told of when the others are done.
    """
    device = pick_device(device_name)
    runs = {RunFolder(path): config for path, config in configs.items()}
    first = next(iter(runs.values()))
    try:
        with joined(device) as ranks, ExitStack() as held:
            data = load_data(first.data, device)

            def begin() -> None:
                ranks.check(first)
                check_stack(list(runs.values()), ranks)
                for folder, config in runs.items():
                    held.enter_context(folder.claim())
                    teacher = None if folder.done else teacher_checksum(config)
                    folder.start(config, data.statistics, device, ranks.count, teacher)

            ranks.first(begin)
            if not all(folder.done for folder in runs):
                data = taught(data, first, progress and ranks.writes)
            trainings = []
            for folder, config in runs.items():
                if not folder.done:
                    trainings.append(_Training(Trainer(config, data, device, ranks), folder, log, leakage_every))
                    held.callback(trainings[-1].close)
            _train(trainings, progress)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            "not enough memory: a smaller batch_size, model.dim or data.horizon needs less; "
            "--device cpu has the machine's"
        ) from error
    return list(runs)


def train_job(config: Config, path: str | Path, device_name: str) -> Job:
    """A training for :func:`groundwork.jobs.run_jobs`, done when its folder holds a finished run of these settings."""
    return stack_job({Path(path): config}, device_name)


def stack_job(configs: Mapping[Path, Config], device_name: str) -> Job:
    """Trainings as one computation for :func:`groundwork.jobs.run_jobs`, named by the first one's folder."""
    return Job(str(next(iter(configs))), partial(train_together, configs, device_name), partial(_are_trained, configs))


def _are_trained(configs: Mapping[Path, Config]) -> bool:
    folders = {RunFolder(path): config for path, config in configs.items()}
    return all(
        folder.done and what_trains(folder.config()) == what_trains(config) for folder, config in folders.items()
    )


class _Training:
    """A training under way, and what is shown and kept of it after each step; rank 0 alone writes."""

    def __init__(self, trainer: Trainer, folder: RunFolder, log: Sequence[TrackerName], leakage_every: int):
        self.trainer, self.folder = trainer, folder
        if folder.checkpoints():
            trainer.restore(folder)
        elif source := trainer.config.init_from:
            trainer.begin_with(find_run(source).load_network("ema").state_dict(), source)
        trainer.ranks.first(partial(folder.rewind_metrics, trainer.step))
        self._monitor: Monitor | None = None
        self._leaks: LeakMonitor | None = None
        if trainer.ranks.writes:
            self._monitor = Monitor(folder, trainer.config, trainer.data, purge_step=trainer.step + 1, log=log)
            if leakage_every and self._monitor.writer:
                self._leaks = trainer.leak_monitor(self._monitor.writer, leakage_every)
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._clock = time.perf_counter()
        trainer.network.train()

    @property
    def ended(self) -> bool:
        """Whether the last step is done."""
        return self.trainer.step >= self.trainer.config.steps

    def keep(self, loss: Tensor, norm: Tensor, bar: tqdm) -> None:
        """Takes in a step's loss and gradient norm, and writes what is due after it.

        Raises:
            NotFiniteError: one of them is not finite.
        """
        self._losses.append(loss)
        self._norms.append(norm)
        config, step = self.trainer.config, self.trainer.step
        if self._leaks is not None:
            self._leaks.step()
        save = _due(step, config.checkpoint_every, config.steps)
        evaluate = config.evaluate_every > 0 and _due(step, config.evaluate_every, config.steps)
        # One transfer from the device for many steps. A row ends at each checkpoint, so that who goes on from there
        # writes the same rows, and nothing is saved unseen.
        if save or evaluate or _due(step, config.log_every, config.steps):
            values = self.trainer.ranks.mean(torch.stack([torch.stack(self._losses), torch.stack(self._norms)]))
            self._losses.clear()
            self._norms.clear()
            _refuse_not_finite(values, step, self.folder)
            if self._monitor is not None:
                self._write(self._monitor, values, evaluate, bar)
                if save:
                    self.trainer.save(self.folder)

    def _write(self, monitor: Monitor, values: Tensor, evaluate: bool, bar: tqdm) -> None:
        step = self.trainer.step
        seconds, self._clock = time.perf_counter() - self._clock, time.perf_counter()
        row: dict[str, Any] = {
            "step": step,
            "loss": values[0].mean().item(),
            "gradient_norm": values[1].mean().item(),
            "learning_rate": learning_rate(self.trainer.config, step - 1),
            "steps_per_second": values.shape[1] / seconds,
        }
        bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        if evaluate:
            row |= monitor.evaluate(step, self.trainer.planner(), self.trainer.validation_loss())
            self._clock = time.perf_counter()
        monitor.log(row)

    def finish(self) -> None:
        """Notes the end."""
        if self._monitor is not None:
            self._monitor.finish(self.folder.metrics())
        self.trainer.ranks.first(self.folder.mark_done)

    def close(self) -> None:
        """Closes what it writes to."""
        if self._monitor is not None:
            self._monitor.close()


def _train(trainings: Sequence[_Training], progress: bool) -> None:
    """Trains all to the end.

    Raises:
        NotFiniteError: a loss was not finite, told when the others are done.
    """
    failed: dict[_Training, NotFiniteError] = {}
    stack: Stack | None = None
    shown = progress and all(one.trainer.ranks.writes for one in trainings)
    with (
        tqdm(
            total=sum(one.trainer.config.steps for one in trainings),
            initial=sum(one.trainer.step for one in trainings),
            **({} if shown else {"disable": True}),  # else as the environment says
            unit="step",
            desc=", ".join(one.folder.path.name for one in trainings[:1]),
        ) as bar
    ):
        while waiting := [one for one in trainings if one not in failed and not one.ended]:
            trainers = [one.trainer for one in waiting]
            if len(trainers) > 1 and (stack is None or len(trainers) != len(stack.networks)):
                stack = Stack([trainer.network for trainer in trainers])
            for one, (loss, norm) in zip(waiting, update_together(trainers, stack), strict=True):
                bar.update()
                try:
                    one.keep(loss, norm, bar)
                except NotFiniteError as error:
                    failed[one] = error
    for one in trainings:
        if one not in failed:
            one.finish()
    if failed:
        raise next(iter(failed.values()))


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _refuse_not_finite(values: Tensor, step: int, folder: RunFolder) -> None:
    """Refuses a step whose loss, or whose gradient, which only the next loss would show, is not finite."""
    bad = (~torch.isfinite(values.sum(0))).nonzero()
    if len(bad):
        at = step - values.shape[1] + int(bad[0]) + 1
        kept = folder.checkpoints()
        good = (
            f"the checkpoint of step {int(kept[-1].name.removeprefix('step_'))} is good"
            if kept
            else "no checkpoint yet"
        )
        raise NotFiniteError(f"loss or gradient at step {at} is not finite; {good}; a lower learning_rate may help")
