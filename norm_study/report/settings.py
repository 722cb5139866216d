"""What ``norm-study report`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundwork.options import REQUIRED, Settings, option

TITLE = "What normalization tells a planner"


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """Which runs and studies the page shows."""

    folders: tuple[Path, ...] = option(
        REQUIRED, "Folders of runs and studies, any mix.", positional=True, metavar="FOLDER"
    )
    out: Path = option(Path("runs/report.html"), "Write the page to this file.", metavar="FILE")
    title: str = option(TITLE, "The title of the page.")
