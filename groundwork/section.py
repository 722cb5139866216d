"""What a study found, as data: text, tables, figures, claims and the command; written to JSON and Markdown.

A study writes ``section.json`` beside its rows and figures; :mod:`groundwork.page` makes HTML of any sections.
"""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.tables import Table, measured

SUFFIX = "section.json"


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        file: PNG, SVG or GIF, relative to the section's folder.
        caption: whole sentences.
        folded: whether a page shows it only to those who ask.
        content: the image's bytes where it lies in no file.
    """

    file: str
    caption: str
    folded: bool = False
    content: bytes = b""


@dataclass(frozen=True)
class Section:
    """What a report shows of one study. Text may hold code, bold and emphasis, marked as in Markdown.

    Attributes:
        title: what it is, such as "Comparison".
        summary: one sentence with the numbers that decide.
        text: paragraphs to know before reading.
        claims: each with its ``sentence``, ``source``, ``number``, ``rule``, ``interval``, ``seeds`` and ``verdict``.
        pictures: figures, in the order in which they are shown.
        tables: likewise.
        notes: paragraphs after the tables.
        facts: provenance: commit, versions, seeds, budget.
        commands: that made it, as one types them.
        data: files beside it that hold its numbers.
        folder: where it lies; not stored.
    """

    title: str
    summary: str = ""
    text: Sequence[str] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    data: Sequence[str] = ()
    folder: Path = Path()

    @property
    def heading(self) -> str:
        """Title and name of the folder, unless they say the same."""
        name = self.folder.resolve().name
        return self.title if self.title.lower().startswith(name) else f"{self.title}: {name}"

    def markdown(self) -> str:
        """Command, text and tables; pictures lie beside it."""
        blocks = [*(f"Command: `{command}`" for command in self.commands), *self.text]
        for table in [*claims_tables(self.claims), *self.tables]:
            blocks += [f"## {table.title}"] * bool(table.title) + [table.note] * bool(table.note) + [table.markdown()]
        return "\n\n".join([*blocks, *self.notes]) + "\n"

    def write(self, folder: Path, study: str = "") -> Section:
        """Writes ``section.json``, or ``STUDY_section.json`` where several studies share a folder."""
        stored = {name: value for name, value in asdict(self).items() if name != "folder"}
        for picture in stored["pictures"]:
            del picture["content"]
        text = json.dumps(stored, allow_nan=False, ensure_ascii=False)
        write_atomically(folder / "_".join(filter(None, [study, SUFFIX])), text + "\n")
        return replace(self, folder=folder)


def read_sections(folder: Path) -> Iterator[Section]:
    """The sections that a folder holds.

    Raises:
        UserError: one is damaged, or no section.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (path.name != SUFFIX, path.name)):
        try:
            stored = read_stored(path)
            stored["pictures"] = [Picture(**one) for one in stored["pictures"]]
            stored["tables"] = [Table(**one) for one in stored["tables"]]
            yield Section(**stored, folder=folder)
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} holds no section ({error!r})") from error


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


def claims_tables(claims: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Each claim with the number that decides it; nothing where there are none."""
    rows = []
    for claim in claims:
        verdict = f"**{claim['verdict']}**" + (" (from the full rows)" if claim["from_full_rows"] else "")
        about = [claim[key] for key in ("sentence", "source", "number", "rule")]
        rows.append([*about, measured(claim["interval"], ".3g"), str(len(claim["seeds"])), verdict])
    columns = ["claim", "source", "number", "rule", "measured, mean [95 % interval]", "seeds", "verdict"]
    return [Table(columns, rows, cards=True)] if rows else []


# what a section tells of its origin


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


def row_facts(configs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, str]:
    """What stored rows say of where and how long they were made."""
    facts = {"seeds": listed(sorted(seeds))}
    for name in ("torch", "device", "threads"):
        values = [config[name] for config in configs if name in config]
        facts |= {name: listed(values)} if values else {}
    seconds = sum(config.get("seconds", 0) for config in configs)
    return facts | ({"computed for": f"{seconds / 60:.0f} minutes, one part after another"} if seconds else {})


def commit_text(origin: Mapping[str, Any]) -> str:
    """The commit, and whether files differed from it."""
    return (origin["git_commit"] or "unknown")[:10] + (" (changed)" if origin["git_dirty"] else "")


def command_text(origin: Mapping[str, Any]) -> str:
    """The command of a stored provenance as one types it."""
    command = origin.get("command", "")
    return command if isinstance(command, str) else shlex.join(command)


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(values: Sequence[Any]) -> str:
    """Distinct values in their order, with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))
