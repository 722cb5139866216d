"""One section of a report, and what every reader of a folder needs to make one."""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundwork.errors import UserError
from groundwork.page import ImageKind, image_uri
from norm_study.report.markdown import Table


@dataclass(frozen=True)
class Picture:
    """A figure with its caption; ``image`` is an address that holds it."""

    name: str
    image: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What a report shows of one folder.

    Attributes:
        kind: what the folder holds, such as "comparison".
        folder: where it lies.
        summary: one sentence for the overview.
        introduction: what to know before reading.
        claims: entries of ``claims.json`` with ``measured``, their interval as text.
        tables: in the order in which they are shown.
        pictures: likewise.
        facts: provenance: commit, versions, seeds, budget.
        commands: that made it, one per line.
    """

    kind: str
    folder: Path
    summary: str
    introduction: str = ""
    claims: Sequence[Mapping[str, Any]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Kind and name of the folder, unless they say the same."""
        name = self.folder.resolve().name
        return self.kind.capitalize() if self.kind.startswith(name) else f"{self.kind.capitalize()}: {name}"


def read_stored(path: Path) -> Any:
    """The content of a JSON file, gzipped or not.

    Raises:
        UserError: damaged.
    """
    try:
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error})") from error


def pictures_in(folder: Path, captions: Mapping[str, str]) -> list[Picture]:
    """The pictures of a folder, those with a caption first and in its order; an SVG is taken before a PNG."""
    found: dict[str, Path] = {}
    for kind in ("png", "svg"):
        found |= {path.stem: path for path in sorted(folder.glob(f"*.{kind}"))}
    names = [name for name in captions if name in found] + [name for name in found if name not in captions]
    return [_picture(name, found[name], captions.get(name, name.replace("_", " "))) for name in names]


def _picture(name: str, path: Path, caption: str) -> Picture:
    kind: ImageKind = "svg" if path.suffix == ".svg" else "png"
    return Picture(name, image_uri(path.read_bytes(), kind), caption)


def origin_facts(origin: Mapping[str, Any]) -> dict[str, str]:
    """A stored provenance as a reader wants it."""
    versions = ", ".join(f"{name} {version}" for name, version in origin.get("versions", {}).items())
    facts = {
        "budget": origin.get("budget"),
        "commit": commit_text(origin) if "git_commit" in origin else None,
        "seed": origin.get("seed"),
        "versions": f"Python {origin['python']}, {versions}" if "python" in origin else None,
        "platform": origin.get("platform"),
        "device": origin.get("device"),
        "threads": origin.get("threads"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def commit_text(origin: Mapping[str, Any]) -> str:
    """The commit, and whether files differed from it."""
    return (origin["git_commit"] or "unknown")[:10] + (" (changed)" if origin["git_dirty"] else "")


def command_text(origin: Mapping[str, Any]) -> str:
    """The command of a stored provenance as one types it."""
    command = origin.get("command", "")
    return command if isinstance(command, str) else shlex.join(command)


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(values: Sequence[Any]) -> str:
    """Distinct values in their order, with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))
