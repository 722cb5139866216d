"""What ``norm-study stitch`` and ``norm-study leakage`` take, and the cells of the stitching grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from groundwork.errors import UserError
from groundwork.options import Settings, option, part_of
from groundwork.program import Jobs
from planner.config import Config, ModelConfig, PaddingMode
from planner.norms import NORM_TABLE, WHOLE_KINDS, NormKind, packs_of

Reach = Literal["quarter", "half", "whole"]
"""Reach of the receptive field to one side: about 18, 32 and 78 points, named by their shares of the '#' maze's 68."""

REACHES: dict[Reach, tuple[int, tuple[int, ...]]] = {
    "quarter": (5, (1,)),  # −18 … +18
    "half": (3, (1, 2)),  # −32 … +31
    "whole": (3, (1, 2, 4)),  # −78 … +75
}
"""Kernel size and width multipliers of the network."""
WINDOWED: NormKind = "group_window"
MOST_GROUPS = ModelConfig.dim
"""Groups of a norm can be no more than the narrowest level has channels."""
STUDIED: tuple[NormKind, ...] = (
    *("group", "none", "channel", "instance", "layer", "batch", "rms"),
    *("packnorm_isolated", "instance_isolated"),
)
"""The norms that the committed study is about."""


@dataclass(frozen=True)
class FactorRun:
    """One cell of the grid at one seed.

    Attributes:
        norm: its kind.
        padding: of the convolutions.
        reach: of the receptive field.
        seed: of the training.
        window: planned points of a norm with a sliding window, else ``None``.
        control: whether such a norm has as many groups as its window has points.
    """

    norm: NormKind
    padding: PaddingMode
    reach: Reach
    seed: int
    window: int | None = None
    control: bool = False

    @property
    def name(self) -> str:
        """Of its run folder and its rows."""
        control = f"-groups{self.window}" if self.control else ""
        return f"{self.norm}{self.window or ''}{control}-{self.padding}-{self.reach}-seed{self.seed}"

    def config(self, base: Config, rates: Mapping[str, float]) -> Config:
        """Its settings, those of ``base`` but for the factors, and for the learning rate where its norm has one."""
        kernel, mults = REACHES[self.reach]
        model = replace(
            base.model,
            norm=self.norm,
            norm_window=self.window or base.model.norm_window,
            norm_groups=self.window if self.window and self.control else base.model.norm_groups,
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
        window = model["norm_window"] if has_window(model["norm"]) else None
        control = window == model.get("norm_groups") != ModelConfig.norm_groups
        return cls(model["norm"], model["padding_mode"], reach, config["seed"], window, control)


def has_window(norm: NormKind) -> bool:
    """Whether a norm takes its statistics over a sliding window of time."""
    return "window" in NORM_TABLE[norm].over


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
    seeds: int = option(3, "Each cell is trained with this many seeds.", low=1)
    windows: tuple[int, ...] = option(
        (ModelConfig.norm_window,), "Norms with a sliding window have it over this many planned points.", low=1
    )

    def runs(self) -> list[FactorRun]:
        """All cells, seed by seed within a cell, the ones that decide first."""
        cells = [
            (norm, padding, reach)
            for reach in self.reaches
            for padding in self.paddings
            for norm in self.norms
            if norm in WHOLE_KINDS or (padding, reach) == (self.paddings[0], self.reaches[0])
        ]
        return [
            FactorRun(*cell, seed, window)
            for cell in cells
            for window in (self.windows if has_window(cell[0]) else (None,))
            for seed in range(self.seeds)
        ]


@dataclass(frozen=True)
class DoseGrid(Grid):
    """From no norm over time to one over the whole plan: GroupNorm's window as a dose.

    Its groups are 8 at every window; as a control they are as many as the window has points, so that all windows have
    equally many numbers per statistic. ``group`` is the dose without end, ``channel`` the control's at one point.
    """

    def runs(self) -> list[FactorRun]:
        """All cells, the ones that decide first."""
        equal = [window for window in self.windows if 1 < window <= MOST_GROUPS and window != ModelConfig.norm_groups]
        cells: list[tuple[NormKind, int | None, bool]] = [
            *((WINDOWED, window, False) for window in self.windows),
            *((kind, None, False) for kind in ("group", "channel")),
            *((WINDOWED, window, True) for window in equal),
        ]
        return [
            FactorRun(kind, "zeros", reach, seed, window, control)
            for reach in self.reaches
            for kind, window, control in cells
            if not control or reach == self.reaches[0]
            for seed in range(self.seeds)
        ]


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


Suite = Literal["factors", "dose", "rates", "fix"]
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
DOSE: dict[str, Any] = {"windows": (1, 8, 32, 68, 2, 4, 16), "reaches": ("half", "whole")}
"""What suite dose takes where nothing else is asked, the windows that decide first."""
_MEASURED = {"multiples", "episodes", "best_of", "best_of_episodes", "seed"}
_WHERE = {"budget", "steps", "out", "runs_folder", *(item.name for item in fields(Jobs))}
_TRAINED = {*_WHERE, "preset", "dataset", "norms"}
READ: dict[Suite | None, set[str]] = {
    None: _MEASURED,
    "factors": _MEASURED | _TRAINED | {"paddings", "reaches", "seeds", "rates_from", "stored_only"},
    "dose": _MEASURED | _TRAINED - {"norms"} | {"reaches", "seeds", "windows", "stored_only"},
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
        "x seeds (dose); each norm at several learning rates, on demonstrated tasks (rates); or the runs of --from, "
        "fine-tuned with another norm (fix).",
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
    rates_from: Path | None = option(
        None,
        "Suite factors takes each norm's learning rate from this rates.json of suite rates.",
        metavar="FILE",
        default_text="the preset's rate for every norm",
    )
    stored_only: bool = option(
        False, "Suites factors and dose make tables and figures of what is stored, and train nothing."
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
        dose, quick = DOSE if suite == "dose" else {}, QUICK if given.get("budget") == "quick" else {}
        return super().from_options({**dose, **quick, **given})

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
