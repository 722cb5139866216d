"""What ``norm-study audit`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundwork.errors import UserError
from groundwork.options import Settings, option


@dataclass(frozen=True)
class AuditSettings(Settings):
    """Which network is audited, on which inputs, and how closely."""

    run: str | None = option(
        None, "Audit this trained planner: a run folder, or the name of a shipped planner.", positional=True
    )
    length: int | None = option(
        None, "The plans of RUN have this many points.", low=1, default_text="its training horizon"
    )
    weights: Literal["ema", "model"] = option("ema", "Audit RUN's moving average, or its last weights.")
    diffusers: bool = option(False, "Audit RUN's weights in diffusers.UNet1DModel, if it can express them.")
    levels: tuple[int, ...] | None = option(
        None, "Audit at these noise levels, passed as the second argument.", default_text="of RUN three"
    )
    factory: str | None = option(
        None,
        "Instead of RUN, audit what this function without arguments returns: the network, or (network, inputs).",
        metavar="PACKAGE.MODULE:FUNCTION",
    )
    shape: tuple[tuple[int, ...], ...] | None = option(
        None, "An input of this shape is drawn from a standard normal; give it once per input.", low=1, repeated=True
    )
    time_dim: tuple[int | None, ...] | None = option(
        None,
        "This is the time axis of an input, or none; give it once per input.",
        repeated=True,
        metavar="INT",
        default_text="-1 for the first",
    )
    output_time_dim: int | None = option(
        None, "This is the time axis of the output.", default_text="that of the first input"
    )
    output: str | None = option(
        None,
        "Of several tensors returned this one is meant: a key, an index, or a path of them.",
        metavar="NAME",
        default_text="the only sequence",
    )
    mode: Literal["own", "train", "eval"] = option("own", "The network is audited in this mode.")
    dtype: Literal["float64", "float32", "own"] = option("float64", "The audit computes in this type.")
    times: int = option(32, "This many output times are measured.", low=1)
    projections: int = option(2, "This many random projections are taken per output time.", low=1)
    exact: bool = option(False, "Take all channels instead of projections.")
    redraws: int = option(4, "The receptive field is measured on this many more inputs.", low=0)
    attribution: bool = option(True, "Measure each module's own leakage.")
    seed: int = option(0, "Draw everything random from this seed.", low=0)
    out: Path | None = option(None, "Write maps, tables and a page to this folder.", metavar="FOLDER")

    def check(self) -> None:
        """A run knows its inputs, a factory's are described."""
        if (self.run is None) == (self.factory is None):
            raise UserError("give either RUN or --factory package.module:function")
        if self.run is not None and (self.shape or self.time_dim or self.output_time_dim is not None):
            raise UserError("--shape, --time-dim and --output-time-dim go with --factory; a RUN knows its own")
        if self.factory is not None and (self.length is not None or self.diffusers):
            raise UserError("--length and --diffusers go with RUN; a factory's inputs get their length from --shape")
