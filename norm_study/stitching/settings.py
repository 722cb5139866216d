"""What the commands of the stitching study take: ``norm-study stitch``, ``leakage`` and ``cause``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from groundwork.errors import UserError
from groundwork.options import Settings, option, part_of
from groundwork.program import Jobs
from norm_study.stitching.cells import Change, DoseGrid, Grid
from planner.norms import WHOLE_KINDS, NormKind
from planner.sampling import MOST_TIMES


@dataclass(frozen=True)
class StitchSettings(Settings):
    """What is asked of a planner."""

    multiples: tuple[int, ...] = option(
        (1, 2, 4),
        "Measure at these multiples of the training horizon.",
        low=1,
        flag="horizons",
        old=("--multiples",),
    )
    episodes: int = option(10, "Measure this many episodes per task.", low=1)
    best_of: int = option(16, "Draw this many plans per problem for the best-of-N columns; 1 leaves them out.", low=1)
    best_of_episodes: int = option(2, "This many of a task's episodes are planned that often.", low=1)
    seed: int = option(0, "The seed of starts, goals and plans.", low=0)


@dataclass(frozen=True)
class RateSettings(Settings):
    """Which rates are tried.

    Attributes:
        norms: each is tried with every rate.
        rates: Adam's peak learning rates.
        episodes: per demonstrated task and multiple of the training horizon.
    """

    norms: tuple[NormKind, ...]
    rates: tuple[float, ...] = option(
        (1e-3, 2e-3, 4e-3), "Suite rates tries these peak learning rates of Adam.", low=1e-9, high=1
    )
    episodes: int = option(10, "Measure this many episodes per task.", low=1)


Way = Literal["few", "best", "again", "cold", "warm", "cool"]
Suite = Literal["factors", "dose", "chances", "rates", "fix"]
OUT = {"full": Path("runs/stitching"), "quick": Path("runs/stitching-quick")}
QUICK: dict[str, Any] = {
    "steps": 3000,
    "multiples": (1, 2),
    "episodes": 4,
    "best_of": 1,
    "paddings": ("zeros",),
    "reaches": ("half",),
    "seeds": 1,
}
OWN: dict[Suite | None, dict[str, Any]] = {
    "dose": {"windows": (1, 8, 32, 68, 2, 4, 16), "reaches": ("half", "whole")},  # the windows that decide first
    "chances": {"norms": WHOLE_KINDS},  # all that its changes are about
}
"""What a suite takes where nothing else is asked and that is not the default of all."""
_MEASURED = {"multiples", "episodes", "best_of", "best_of_episodes", "seed"}
_WHERE = {"budget", "steps", "out", "runs_folder", *(item.name for item in fields(Jobs))}
_TRAINED = {*_WHERE, "preset", "dataset", "norms"}
READ: dict[Suite | None, set[str]] = {
    None: _MEASURED,
    "factors": _MEASURED | _TRAINED | {"paddings", "reaches", "seeds", "windows", "rates_from", "stored_only"},
    "dose": _MEASURED | _TRAINED - {"norms"} | {"reaches", "seeds", "windows", "stored_only"},
    "chances": _MEASURED | _TRAINED | {"changes", "seeds", "stored_only"},
    "rates": _TRAINED | {"rates", "episodes"},
    "fix": _MEASURED | _WHERE | {"sources", "to", "every"},
}
"""What is read of the options, with a suite and without one."""


@dataclass(frozen=True)
class StitchOptions(StitchSettings, Grid, RateSettings, Jobs):
    """Finished runs to measure, or a suite that trains and measures."""

    runs_measured: tuple[str, ...] | None = option(
        None,
        "Measure these finished run folders, or shipped planners, which differ in their seed alone.",
        positional=True,
        metavar="RUN",
        old=("--run",),
    )
    suite: Suite | None = option(
        None,
        "Train and measure: norms x paddings x reaches x seeds (factors); windows of GroupNorm's statistics x reaches "
        "x seeds (dose); one setting changed at a time, such as more steps (chances); each norm at several learning "
        "rates, on demonstrated tasks (rates); or the runs of --from, fine-tuned with another norm (fix).",
    )
    budget: Literal["quick", "full"] = option(
        "full",
        "A quick suite has one padding, one receptive field, one seed, 3000 training steps, 4 episodes at 1 and 2 "
        "times the horizon and no best of N, but for what is asked otherwise.",
    )
    preset: str = option("hash", "Suites train with this preset, a YAML file or a shipped name.")
    dataset: str | None = option(
        None, "Suites train on the dataset of this id.", metavar="ID", default_text="the preset's"
    )
    steps: int | None = option(
        None, "Suites train for this many training steps.", low=1, default_text="the preset's; suite fix: 2000"
    )
    changes: tuple[Change, ...] = option(get_args(Change), "Suite chances changes these settings, one at a time.")
    rates_from: Path | None = option(
        None,
        "Suite factors takes each norm's learning rate from this rates.json of suite rates.",
        metavar="FILE",
        default_text="the preset's rate for every norm",
    )
    stored_only: bool = option(
        False, "Suites factors, dose and chances make tables and figures of what is stored, and train nothing."
    )
    out: Path | None = option(
        None,
        "Write rows, tables and figures to this folder.",
        metavar="FOLDER",
        default_text=f"{OUT['full']}; quick: {OUT['quick']}",
    )
    runs_folder: Path | None = option(
        None, "Keep run folders in this folder.", metavar="FOLDER", default_text="runs in the default of --out"
    )
    sources: tuple[str, ...] | None = option(
        None,
        "Suite fix exchanges the norm of this run folder or shipped planner; give it once per run.",
        metavar="RUN",
        flag="from",
        repeated=True,
    )
    to: NormKind = option(
        "channel",
        "Suite fix exchanges the norm for this one.",
        choices=WHOLE_KINDS,
    )
    every: int = option(500, "Suite fix measures whenever this many training steps are done.", low=1)

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> StitchOptions:
        """Refuses what the suite does not read; a quick suite has defaults of its own.

        Raises:
            UserError: also where there are neither or both of runs and a suite.
        """
        suite = given.get("suite")
        if bool(given.get("runs_measured")) == bool(suite):
            raise UserError(f"stitch needs either RUN … or --suite {'|'.join(get_args(Suite))}")
        unread = set(given) - READ.get(suite, set()) - {"suite", "runs_measured"}
        for item in cls.__dataclass_fields__.values():
            if suite in READ and item.name in unread:
                name = item.metadata.get("flag") or item.name.replace("_", "-")
                raise UserError(f"--{name} is not read {f'by suite {suite}' if suite else 'when runs are measured'}")
        quick = QUICK if given.get("budget") == "quick" else {}
        return super().from_options({**OWN.get(suite, {}), **quick, **given})

    @property
    def settings(self) -> StitchSettings:
        """What is asked of each planner."""
        return part_of(StitchSettings, self)

    @property
    def grid(self) -> Grid:
        """The cells that are asked for."""
        return part_of(DoseGrid if self.suite == "dose" else Grid, self)

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where rows and where runs go; a quick study has folders of its own, since its runs are not the grid's."""
        return self.out or OUT[self.budget], self.runs_folder or OUT[self.budget] / "runs"


@dataclass(frozen=True)
class AuditedPlans(Settings):
    """What the audits are asked for."""

    multiple: int = option(
        2,
        "Plans are audited, and their validity is read, at this multiple of the training horizon.",
        low=1,
        flag="horizons",
        old=("--multiple", "--multiples"),
    )
    times: int = option(16, "This many output times are measured per noise level.", low=1)
    seed: int = option(0, "The seed of the audited plans and of everything random in an audit.", low=0)


@dataclass(frozen=True)
class LeakageSettings(AuditedPlans):
    """What the audits are asked for, of which planners."""

    stitching: Path = option(
        OUT["full"], "The folder that norm-study stitch --suite factors put its rows in.", metavar="FOLDER"
    )
    runs_folder: Path = option(OUT["full"] / "runs", "The folder of the run folders.", metavar="FOLDER")
    out: Path | None = option(
        None, "Draw the figure into this folder, as leakage.png and leakage.svg.", metavar="FOLDER"
    )


@dataclass(frozen=True)
class CauseSettings(Settings):
    """How much is sampled while rules take the place of a norm's statistics."""

    multiples: tuple[int, ...] = option(
        (1, 2), "Plans have these multiples of the training horizon.", low=1, flag="horizons"
    )
    episodes: int = option(4, "Draw this many plans per task.", low=2)
    decoded_plans: int = option(
        32, "The task is decoded from the statistics of this many plans of each demonstrated task.", low=4
    )
    levels: tuple[float, ...] = option(
        (0.1, 0.5, 0.9), "They are decoded at these noise levels, shares of the training's.", low=0, high=1
    )
    seed: int = option(0, "The seed of starts, goals, plans and noise.", low=0)


@dataclass(frozen=True)
class CauseOptions(CauseSettings, Jobs):
    """What is sampled, of which planners."""

    runs: tuple[str, ...] | None = option(
        None,
        "Take over the statistics of these finished run folders, or shipped planners, with GroupNorms.",
        positional=True,
        metavar="RUN",
    )
    lenders: tuple[str, ...] | None = option(
        None,
        "This planner of the same data, which stitches, lends right plans; give it once, or once per RUN.",
        flag="lender",
        metavar="RUN",
        repeated=True,
    )
    out: Path = option(OUT["full"], "Write rows, table and figure to this folder.", metavar="FOLDER")


@dataclass(frozen=True)
class ClosedLoopSettings(Settings):
    """How plans are followed."""

    ways: tuple[Way, ...] = option(
        ("few", "best", "again", "cold", "warm"),
        "Beside one plan followed to its end, follow plans from few evaluations (few), the best of several (best), "
        "from steps taken again (again), drawn anew from noise (cold) or from the last plan (warm), or drawn at a low "
        "temperature (cool).",
    )
    multiples: tuple[int, ...] = option(
        (1, 2), "Plans have these multiples of the training horizon.", low=1, flag="horizons"
    )
    episodes: int = option(4, "Execute this many episodes of each task.", low=1)
    every: tuple[int, ...] = option(
        (35, 70, 140), "Plan the rest anew after these numbers of environment steps.", low=1, flag="replan-every"
    )
    warm: float = option(
        0.25, "Warm replanning begins from the last plan, noised to this share of the noise levels.", low=0, high=1
    )
    sampling_steps: int = option(
        16, "The modes few, best, cold and warm draw plans by DDIM with this many evaluations.", low=1
    )
    best_of: int = option(16, "One mode follows the shortest valid plan of this many.", low=1)
    resample: int = option(
        8, "One mode takes each of the run's sampling steps this often again.", low=1, high=MOST_TIMES
    )
    resample_levels: tuple[float, float] = option(
        (0.1, 0.5),
        "It does so between these shares of the noise levels.",
        low=0,
        high=1,
        metavar="LOW,HIGH",
    )
    temperature: float = option(0.0, "One mode (cool) draws noise of this standard deviation.", low=0, high=1)
    seed: int = option(0, "The seed of starts, goals, plans and noise.", low=0)


@dataclass(frozen=True)
class ClosedLoopOptions(ClosedLoopSettings, Jobs):
    """Which planners are followed."""

    runs: tuple[str, ...] | None = option(
        None, "Roll out these finished run folders, or shipped planners.", positional=True, metavar="RUN"
    )
    out: Path = option(OUT["full"] / "closed_loop", "Write rows, tables and figures to this folder.", metavar="FOLDER")
