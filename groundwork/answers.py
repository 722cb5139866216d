"""One store of answers: what was asked, as plain data, and what came out, sealed in one file.

A question is a mapping of plain values and of settings (dataclasses), which are stored in full. A stored question that
lacks a setting was asked before there was one, and means its default: a new setting at its default finds what was
answered without it. What a question of an earlier day calls otherwise, one table of translations says. The name of a
file follows from its question; files of other names, from earlier days, are found by what they were asked.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from groundwork.claims import Claim
from groundwork.files import read_checked, with_checksum, write_atomically
from groundwork.jobs import Job

Question = Mapping[str, Any]
Answer = dict[str, Any]
Pairs = list[tuple[dict[str, Any], Answer]]


def plain(value: Any) -> Any:
    """A question as JSON gives it back: settings as mappings, tuples as lists, whole numbers without a point.

    Raises:
        ValueError: NaN or an infinite number in it.
        TypeError: a value that is none of JSON's.
    """
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _text(question: Any) -> str:
    return json.dumps(question, sort_keys=True, allow_nan=False)


def _defaults(value: Any) -> dict[str, Any]:
    """What the settings in a question are where nobody sets them."""
    found: dict[str, Any] = {}
    if is_dataclass(value):
        for item in fields(value):
            if is_dataclass(getattr(value, item.name)):
                found[item.name] = _defaults(getattr(value, item.name))
            elif item.default is not MISSING:
                found[item.name] = plain(item.default)
            elif item.default_factory is not MISSING:
                found[item.name] = plain(item.default_factory())
    elif isinstance(value, Mapping):
        found = {key: inner for key, entry in value.items() if (inner := _defaults(entry))}
    return found


def _completed(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A stored question with what it lacks."""
    whole = dict(stored)
    for key, default in defaults.items():
        if key not in whole:
            whole[key] = default
        elif isinstance(default, dict) and isinstance(whole[key], dict):
            whole[key] = _completed(whole[key], default)
    return whole


@dataclass(frozen=True, eq=False)
class Renamed:
    """A setting that stored questions know by an older name, by other values, or not at all.

    Attributes:
        old: its place in a stored question, with dots.
        new: its place today; empty: the same.
        values: old value → today's.
        absent: what a question without it means, if that is no longer the default.
    """

    old: str
    new: str = ""
    values: Mapping[Any, Any] = field(default_factory=dict)
    absent: Any = None

    def __call__(self, question: dict[str, Any]) -> None:
        """Translates a question in place; one of another study, without such a place, stays as it is."""
        *way, name = self.old.split(".")
        place = _walk(question, way)
        if place is None or (name not in place and self.absent is None):
            return
        value = place.pop(name, self.absent)
        *way, name = (self.new or self.old).split(".")
        for step in way:
            question = question.setdefault(step, {})
        question[name] = self.values.get(value, value) if isinstance(value, str) else value


def _walk(question: Any, way: Sequence[str]) -> dict[str, Any] | None:
    for step in way:
        question = question.get(step) if isinstance(question, dict) else None
    return question if isinstance(question, dict) else None


@dataclass(frozen=True, eq=False)
class Translations:
    """How files of earlier days are read.

    Attributes:
        files: name of a kind of file without a ``question`` → the questions and answers in it; the first that does
            not return ``None`` counts.
        names: applied one after the other to every stored question.
    """

    files: Sequence[Callable[[Answer], Pairs | None]] = ()
    names: Sequence[Callable[[dict[str, Any]], None]] = ()

    def read(self, path: Path) -> Pairs:
        """The questions, in today's words, and the answers in a file; none if it is damaged or holds none."""
        stored = read_checked(path)
        if stored is None:
            return []
        pairs = next((found for of_kind in self.files if (found := of_kind(stored)) is not None), None)
        if pairs is None:
            question = stored.pop("question", None)
            pairs = [(question, stored)] if isinstance(question, dict) else []
        for question, _ in pairs:
            for rename in self.names:
                rename(question)
        return [(plain(question), answer) for question, answer in pairs]


def _unlabelled(_: Any) -> str:
    return ""


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*.json*") if path.suffix in (".json", ".gz")]


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=16)
def _index(folder: Path, changed_ns: int, translations: Translations, defaults: str) -> dict[str, Path]:
    """Question, completed by defaults → file, of a folder that was last changed then."""
    lacking = json.loads(defaults)
    return {
        _text(_completed(asked, lacking)): path
        for path in _files(folder)
        for asked in _asked(path, _changed(path), translations)
    }


@lru_cache(maxsize=2**17)
def _asked(path: Path, changed_ns: int, translations: Translations) -> list[dict[str, Any]]:
    """The questions in a file that was last changed then: a folder that grows is not read whole again each time."""
    return [asked for asked, _ in translations.read(path)]


class Answers:
    """The answers of a study, one file each.

    Args:
        folder: where they are kept.
        translations: how those of earlier days are read.
        label: what a reader calls a question (in today's words, as plain data); begins the name of its file.
        compressed: whether files are compressed, as large ones should be.
        others: folders that are only read.
    """

    def __init__(
        self,
        folder: Path,
        translations: Translations = Translations(),
        label: Callable[[Any], str] = _unlabelled,
        compressed: bool = False,
        others: Sequence[Path] = (),
    ):
        self.folder, self.translations, self.label = folder, translations, label
        self.suffix = ".json.gz" if compressed else ".json"
        self.others = tuple(others)

    def name(self, question: Question) -> str:
        """The name of a question's file, without the folder and the suffix."""
        asked = plain(question)
        digest = hashlib.sha256(_text(asked).encode()).hexdigest()[:16]
        return "-".join(part for part in (self.label(asked), digest) if part)

    def path(self, question: Question) -> Path:
        """Where the answer to a question is written."""
        return self.folder / (self.name(question) + self.suffix)

    def find(self, question: Question) -> Answer | None:
        """The answer to a question, if there is one and it is whole."""
        wanted, defaults = _text(plain(question)), _defaults(question)
        for path in self._where(question, wanted, _text(defaults)):
            for asked, answer in self.translations.read(path):
                if _text(_completed(asked, defaults)) == wanted:
                    return answer
        return None

    def __getitem__(self, question: Question) -> Answer:
        """The stored answer.

        Raises:
            KeyError: there is none.
        """
        if (stored := self.find(question)) is None:
            raise KeyError(self.name(question))
        return stored

    def _where(self, question: Question, wanted: str, defaults: str) -> Iterator[Path]:
        """Files that may hold the answer: the one of its name, then what its folders hold under other names."""
        yield self.path(question)
        for folder in (self.folder, *self.others):
            if path := _index(folder, _changed(folder), self.translations, defaults).get(wanted):
                yield path

    def keep(self, question: Question, answer: Mapping[str, Any]) -> None:
        """Writes an answer, whole or not at all."""
        text = with_checksum({"question": plain(question), **answer})
        compressed = self.suffix.endswith(".gz")
        write_atomically(self.path(question), gzip.compress(text.encode(), mtime=0) if compressed else text + "\n")

    def claim(self, question: Question) -> Claim:
        """The right to work on an answer, for one process at a time."""
        name = self.name(question)
        return Claim(self.folder / ".claims" / name, str(self.folder / name))

    def answer(self, question: Question, work: Callable[[], Mapping[str, Any]]) -> Answer:
        """The stored answer, or else the one that ``work`` finds, which is then kept.

        Raises:
            InUseError: another process works on it.
        """
        if (stored := self.find(question)) is not None:
            return stored
        with self.claim(question):
            if (stored := self.find(question)) is None:  # another may have answered before we held the claim
                stored = dict(work())
                self.keep(question, stored)
        return stored

    def job(self, question: Question, work: Callable[[], Mapping[str, Any]], after: str | None = None) -> Job:
        """The work of answering a question, for :func:`groundwork.jobs.run_jobs`; ``work`` must be picklable."""
        return Job(self.name(question), partial(self.answer, question, work), partial(self.find, question), after)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        """All questions with their answers, the oldest first."""
        paths = sorted(_files(self.folder), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in paths:
            yield from self.translations.read(path)
