"""Runs the whole study, part by part, and writes rows, figures, verdicts and a page.

Every finished (part, seed) is one file under ``rows/``, written aside and renamed. A part whose file states
the sizes that are asked for is not run again, so the same command after an interruption goes on where it
stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from groundwork.errors import UserError
from groundwork.files import read_checked, with_checksum, write_atomically
from groundwork.options import load_yaml
from norm_study.reproduce.experiments import EXPERIMENTS, run_experiment

Budget = Literal["quick", "full"]


@dataclass(frozen=True)
class Part:
    """One experiment at one set of sizes.

    Attributes:
        name: also that of its files.
        experiment: a name of :data:`norm_study.reproduce.experiments.EXPERIMENTS`.
        budgets: which budgets run it.
        seeds: one network (or one sweep) each.
        sizes: what differs from the experiment's defaults.
    """

    name: str
    experiment: str
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...]
    sizes: dict[str, Any]

    def config(self) -> Any:
        """The sizes in full."""
        return EXPERIMENTS[self.experiment].config(**self.sizes)


def parts_file() -> Path:
    """The shipped list of parts, in a checkout or in an installed package."""
    return _shipped("planner/configs/study/parts.yaml", "configs/study/parts.yaml")


def full_rows_folder() -> Path:
    """The committed rows of the full budget, in a checkout or in an installed package."""
    return _shipped("norm_study/full_rows", "docs/localization/rows")


def _shipped(installed: str, in_checkout: str) -> Path:
    """Where the wheel puts a file or folder (pyproject.toml's ``force-include``), or else where it stands in git."""
    here = Path(__file__).resolve().parent.parent.parent
    return here / installed if (here / installed).exists() else here / in_checkout


def load_parts(path: Path) -> list[Part]:
    """Reads a list of parts.

    Raises:
        UserError: an unknown experiment, or sizes that it does not have.
    """
    parts = []
    for entry in load_yaml(path):
        if entry["experiment"] not in EXPERIMENTS:
            raise UserError(f"{path}: experiment = {entry['experiment']} is not one of {', '.join(EXPERIMENTS)}")
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.get("sizes", {}).items()}
        part = Part(entry["name"], entry["experiment"], tuple(entry["budgets"]), tuple(entry["seeds"]), sizes)
        try:
            part.config()
        except TypeError as error:
            raise UserError(f"{path}: part {part.name}: {error}") from error
        parts.append(part)
    return parts


def rows_file(folder: Path, part: Part, seed: int) -> Path:
    """Where one seed of a part is kept."""
    return folder / f"{part.name}-seed{seed}.json"


def finished(folder: Path, part: Part, seed: int) -> dict[str, Any] | None:
    """The stored result of one seed, if there is one at exactly these sizes."""
    stored = read_checked(rows_file(folder, part, seed))
    if stored is None or not {"config", "rows", "summary"} <= set(stored):
        return None
    wanted = {**vars(part.config()), "experiment": part.experiment, "seeds": [seed]}
    wanted = json.loads(json.dumps(wanted))
    return stored if all(stored["config"].get(key) == value for key, value in wanted.items()) else None


def run_parts(
    parts: Sequence[Part], folder: Path, device: torch.device, jobs: int = 1
) -> Iterator[tuple[Part, list[int]]]:
    """Runs what is not yet finished and yields each part with its seeds once they are written.

    On a CPU each seed is run and kept for itself, since stacks of this size gain nothing there, ``jobs`` of them at a
    time with one thread each; a GPU takes all seeds of a part at once.
    """
    missing = [(part, [seed for seed in part.seeds if finished(folder, part, seed) is None]) for part in parts]
    if device.type == "cuda":
        work = [(part, seeds) for part, seeds in missing if seeds]
    else:
        work = [(part, [seed]) for part, seeds in missing for seed in seeds]
    if jobs == 1:
        for part, seeds in work:
            yield _run_seeds(part, seeds, folder, device)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker) as pool:
        running = [pool.submit(_run_seeds, part, seeds, folder, device) for part, seeds in work]
        try:
            for done in as_completed(running):
                yield done.result()
        except (KeyboardInterrupt, GeneratorExit):  # what is begun but not finished is begun again next time
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _begin_worker() -> None:
    """One thread; Ctrl-C is the parent's to handle, and a parent that was killed takes its workers along."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_seeds(part: Part, seeds: list[int], folder: Path, device: torch.device) -> tuple[Part, list[int]]:
    """Runs some seeds of a part and writes one file for each."""
    print(f"{part.name}: seed {', '.join(map(str, seeds))}", file=sys.stderr, flush=True)
    result = run_experiment(part.experiment, part.config(), seeds, device)
    for seed in seeds:
        own = [row for row in result["rows"] if row["seed"] == seed]
        about = {**result["config"], "seeds": [seed]}
        about["seconds"] = round(about["seconds"] / len(seeds), 1)
        summary = EXPERIMENTS[part.experiment].summarize(part.config(), own)
        text = with_checksum({"config": about, "rows": own, "summary": summary})
        write_atomically(rows_file(folder, part, seed), text + "\n")
    return part, seeds


@dataclass(frozen=True)
class Collected:
    """The finished seeds of one part.

    Attributes:
        part: which.
        rows: of all its finished seeds.
        seconds: what they took together.
        borrowed: whether they come from the committed full run rather than from this one.
    """

    part: Part
    rows: list[dict[str, Any]]
    seconds: float
    borrowed: bool

    @property
    def seeds(self) -> list[int]:
        """Those that are finished, ascending."""
        return sorted({row["seed"] for row in self.rows})


def collect(parts: Sequence[Part], folder: Path, full_folder: Path | None) -> dict[str, Collected]:
    """Reads all finished parts by name; those without any come from ``full_folder``, if given and there."""
    found = {}
    for part in parts:
        for source, borrowed in ((folder, False), (full_folder, True)):
            if source is None:
                continue
            stored = [one for seed in part.seeds if (one := finished(source, part, seed)) is not None]
            if stored:
                rows = [row for one in stored for row in one["rows"]]
                seconds = sum(one["config"]["seconds"] for one in stored)
                found[part.name] = Collected(part, rows, seconds, borrowed)
                break
    return found
