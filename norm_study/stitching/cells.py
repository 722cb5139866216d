"""The cells of the stitching grids: which norm, padding, receptive field and window a run has, and their orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from groundwork.options import Settings, option
from planner.config import Config, ModelConfig, PaddingMode
from planner.norms import NORM_TABLE, WHOLE_KINDS, NormKind, packs_of

Reach = Literal["quarter", "half", "whole"]
"""Reach of the receptive field to one side: about 18, 32 and 78 points, named by their shares of the '#' maze's 68."""

Change = Literal["steps-x4", "groups-1", "groups-4", "groups-32", "noise", "width-x2", "steps-x10", "conditioned"]
"""What suite chances changes of a training, one at a time: names of :data:`norm_study.stitching.chances.CHANGES`."""

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
            for seed in range(self.seeds)
        ]
