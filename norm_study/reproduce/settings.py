"""What ``norm-study reproduce`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundwork.options import Settings, option


@dataclass(frozen=True)
class ReproduceSettings(Settings):
    """How much of the study is run, and where it goes."""

    budget: Literal["quick", "full"] = option(
        "quick", "A quick reproduction takes the slowest parts from the committed full rows."
    )
    out: Path = option(Path("runs/localization"), "Write the results to this folder.", metavar="FOLDER")
    full_rows: Path | None = option(
        None,
        "The folder of the full budget's rows.",
        metavar="FOLDER",
        default_text="the committed ones",
    )
    only: str = option("", "Run the parts whose names begin so; the page shows whatever is finished.", metavar="PREFIX")
