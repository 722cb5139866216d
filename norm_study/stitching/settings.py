"""What ``norm-study stitch`` and ``norm-study leakage`` take, and the cells of the stitching grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from groundwork.errors import UserError
from groundwork.options import Settings, option, part_of
from groundwork.program import Jobs
from planner.config import Config, PaddingMode
from planner.norms import WHOLE_KINDS, NormKind, packs_of

Reach = Literal["quarter", "half", "whole"]
"""Reach of the receptive field to one side: about 18, 32 and 78 points, named by their shares of the '#' maze's 68."""

REACHES: dict[Reach, tuple[int, tuple[int, ...]]] = {
    "quarter": (5, (1,)),  # −18 … +18
    "half": (3, (1, 2)),  # −32 … +31
    "whole": (3, (1, 2, 4)),  # −78 … +75
}
"""Kernel size and width multipliers of the network."""
STUDIED: tuple[NormKind, ...] = (
    *("group", "none", "channel", "instance", "layer", "batch", "rms"),
    *("packnorm_isolated", "instance_isolated"),
)
"""The norms that the committed study is about."""


@dataclass(frozen=True)
class FactorRun:
    """One cell of the grid at one seed."""

    norm: NormKind
    padding: PaddingMode
    reach: Reach
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder and its rows."""
        return f"{self.norm}-{self.padding}-{self.reach}-seed{self.seed}"

    def config(self, base: Config, rates: Mapping[str, float]) -> Config:
        """Its settings, those of ``base`` but for the factors, and for the learning rate where its norm has one."""
        kernel, mults = REACHES[self.reach]
        model = replace(
            base.model,
            norm=self.norm,
            num_packs=packs_of(self.norm),
            padding_mode=self.padding,
            kernel_size=kernel,
            dim_mults=mults,
        )
        return replace(base, model=model, seed=self.seed, learning_rate=rates.get(self.norm, base.learning_rate))

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The cell of a stored config."""
        model = config["model"]
        size = (model["kernel_size"], tuple(model["dim_mults"]))
        reach = next(reach for reach, its in REACHES.items() if its == size)
        return cls(model["norm"], model["padding_mode"], reach, config["seed"])


@dataclass(frozen=True)
class Grid(Settings):
    """Which cells of the grid to run, each with ``seeds`` seeds.

    Packed norms exist at one padding and one receptive field only: they belong to the 2×2 table.
    """

    norms: tuple[NormKind, ...] = option(STUDIED, "Take these kinds of norm.")
    paddings: tuple[PaddingMode, ...] = option(("zeros", "replicate"), "Take these paddings.")
    reaches: tuple[Reach, ...] = option(
        ("half", "quarter", "whole"),
        "Take these reaches of the receptive field to one side: 18 (quarter), 32 (half), 78 (whole) points.",
        old=("--fields",),
    )
    seeds: int = option(3, "Each cell has so many training seeds.", low=1)

    def runs(self) -> list[FactorRun]:
        """All cells, seed by seed within a cell, the ones that decide first."""
        cells = [
            (norm, padding, reach)
            for reach in self.reaches
            for padding in self.paddings
            for norm in self.norms
            if norm in WHOLE_KINDS or (padding, reach) == (self.paddings[0], self.reaches[0])
        ]
        return [FactorRun(*cell, seed) for cell in cells for seed in range(self.seeds)]


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
    episodes: int = option(10, "Measure so many episodes per task.", low=1)
    best_of: int = option(16, "Draw so many plans per problem for the best-of-N columns; 1 leaves them out.", low=1)
    best_of_episodes: int = option(2, "So many of a task's episodes are planned that often.", low=1)
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
    episodes: int = option(10, "Measure so many episodes per task.", low=1)


Suite = Literal["factors", "rates", "fix"]
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
_MEASURED = {"multiples", "episodes", "best_of", "best_of_episodes", "seed"}
_WHERE = {"budget", "steps", "out", "runs_folder", *(item.name for item in fields(Jobs))}
_TRAINED = {*_WHERE, "preset", "dataset", "norms"}
READ: dict[Suite | None, set[str]] = {
    None: _MEASURED,
    "factors": _MEASURED | _TRAINED | {"paddings", "reaches", "seeds", "rates_from", "stored_only"},
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
        "Train and measure: norms x paddings x reaches x seeds (factors); each norm at several learning rates, on "
        "demonstrated tasks (rates); or the runs of --from, fine-tuned with another norm (fix).",
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
        None, "Suites train for so many training steps.", low=1, default_text="the preset's; suite fix: 2000"
    )
    rates_from: Path | None = option(
        None,
        "Suite factors takes each norm's learning rate from this rates.json of suite rates.",
        metavar="FILE",
        default_text="the preset's rate for every norm",
    )
    stored_only: bool = option(False, "Suite factors makes tables and figures of what is stored, and trains nothing.")
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
    every: int = option(500, "Suite fix measures every so many training steps.", low=1)

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> StitchOptions:
        """Refuses what the suite does not read; a quick suite has defaults of its own.

        Raises:
            UserError: also where there are neither or both of runs and a suite.
        """
        suite = given.get("suite")
        if bool(given.get("runs_measured")) == bool(suite):
            raise UserError("stitch needs either RUN … or --suite factors|rates|fix")
        unread = set(given) - READ.get(suite, set()) - {"suite", "runs_measured"}
        for item in cls.__dataclass_fields__.values():
            if suite in READ and item.name in unread:
                name = item.metadata.get("flag") or item.name.replace("_", "-")
                raise UserError(f"--{name} is not read {f'by suite {suite}' if suite else 'when runs are measured'}")
        return super().from_options({**(QUICK if given.get("budget") == "quick" else {}), **given})

    @property
    def settings(self) -> StitchSettings:
        """What is asked of each planner."""
        return part_of(StitchSettings, self)

    @property
    def grid(self) -> Grid:
        """The cells that are asked for."""
        return part_of(Grid, self)

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
    times: int = option(16, "So many output times are measured per noise level.", low=1)
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
