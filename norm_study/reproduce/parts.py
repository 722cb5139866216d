"""Runs the whole study, part by part, and writes rows, figures, verdicts and a page.

Every finished (part, seed) is an answer under ``rows/``, and is not run again: the same command after an interruption
goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from groundwork.answers import Answers
from groundwork.errors import UserError
from groundwork.jobs import Executor, Job, run_jobs
from groundwork.yaml_files import load_yaml
from norm_study.reproduce.experiments import EXPERIMENTS, run_experiment
from planner.renamed import RENAMED

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

    def question(self, seed: int) -> dict[str, Any]:
        """What one seed of it answers."""
        return {"experiment": self.experiment, "sizes": self.config(), "seed": seed}


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


def answers_in(folder: Path) -> Answers:
    """The store of finished seeds in a folder."""
    return Answers(folder, RENAMED, _label)


def _label(question: Any) -> str:
    parts = [question["experiment"], *(question["sizes"].get(name) for name in ("norm", "place", "depth"))]
    return "-".join(str(part) for part in [*parts, f"seed{question['seed']}"] if part is not None)


def run_parts(parts: Sequence[Part], folder: Path, device: torch.device, executor: Executor) -> list[str]:
    """Runs what is not yet finished.

    A CPU takes seed by seed, since stacks of this size gain nothing there; a GPU takes all seeds of a part at once.

    Returns:
        The names of the jobs that were not finished before.

    Raises:
        UserError: some failed; the others are finished first.
    """
    store, jobs = answers_in(folder), []
    for part in parts:
        for seeds in [part.seeds] if device.type == "cuda" else [(seed,) for seed in part.seeds]:
            name = f"{part.name}-seed{','.join(map(str, seeds))}"
            asked = (store, part, seeds)
            jobs.append(Job(name, partial(_run_seeds, *asked, device), partial(_all_finished, *asked)))
    return run_jobs(jobs, executor, "experiments")


def _all_finished(store: Answers, part: Part, seeds: Sequence[int]) -> bool:
    return all(store.find(part.question(seed)) is not None for seed in seeds)


def _run_seeds(store: Answers, part: Part, seeds: Sequence[int], device: torch.device) -> None:
    """Runs the seeds of a part that are not finished, and keeps each for itself."""
    with ExitStack() as claims:
        for seed in seeds:
            claims.enter_context(store.claim(part.question(seed)))
        missing = [seed for seed in seeds if store.find(part.question(seed)) is None]
        if not missing:
            return
        result = run_experiment(part.experiment, part.config(), missing, device)
        seconds = round(result["config"]["seconds"] / len(missing), 1)
        for seed in missing:
            own = [row for row in result["rows"] if row["seed"] == seed]
            summary = EXPERIMENTS[part.experiment].summarize(part.config(), own)
            about = {**result["config"], "seeds": [seed], "seconds": seconds}
            store.keep(part.question(seed), {"config": about, "rows": own, "summary": summary})


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
            store = answers_in(source)
            stored = [one for seed in part.seeds if (one := store.find(part.question(seed))) is not None]
            if stored:
                rows = [row for one in stored for row in one["rows"]]
                seconds = sum(one["config"]["seconds"] for one in stored)
                found[part.name] = Collected(part, rows, seconds, borrowed)
                break
    return found
