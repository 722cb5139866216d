"""Files that are whole whenever we are killed, and that tell when a disk has changed them.

A folder's ``checksums.json`` holds the SHA-256 of its files. What has none, from elsewhere or from before there were
any, is read unchecked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundwork.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKSUMS = "checksums.json"
_SEAL = "sha256"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a small file so that it is either the old one or the new one, whenever we are killed.

    A link stays one; a pipe or a device is written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:  # a full disk should not keep what did not fit
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Ctrl-C comes after the context: a library that swallows it would tell of a damaged file instead."""
    if threading.current_thread() is not threading.main_thread():  # it never comes there
        yield
        return
    told: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if told:
            raise KeyboardInterrupt


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: is {path.parent} the right folder?") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Draws a matplotlib figure into a file of the kind that its suffix says, written aside."""
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.lower().removeprefix("."), **options)
    write_atomically(path, stream.getvalue())


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Writes the checksums of finished files, given relative to their folder."""
    write_atomically(folder / CHECKSUMS, json.dumps({name: digest(folder / name) for name in names}, indent=1) + "\n")


def verify_checksums(folder: Path, names: Iterable[str], remedy: str) -> None:
    """Compares files with their checksums, where there are any.

    Args:
        folder: may hold ``checksums.json``.
        names: of files, relative to it.
        remedy: what the user can do about a damaged one.

    Raises:
        UserError: a file that is not what was written, by its path.
    """
    path = folder / CHECKSUMS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("no mapping of names")
    except FileNotFoundError:
        return
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    for name in names:
        if (folder / name).is_file() and known.get(name) != digest(folder / name):
            raise UserError(f"{folder / name} is damaged or was edited: it does not fit {path.name}; {remedy}")


def with_checksum(values: Mapping[str, Any]) -> str:
    """An object as JSON that carries the checksum of its other entries.

    Raises:
        ValueError: NaN or an infinite number among the values.
    """
    return json.dumps({**values, _SEAL: _seal(values)}, allow_nan=False)


def read_checked(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, compressed or not; ``None`` if it is missing, cut short or not what was written."""
    try:
        content = path.read_bytes()
        values = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (EOFError, OSError, ValueError, zlib.error):
        return None
    if not isinstance(values, dict):
        return None
    seal = values.pop(_SEAL, None)
    return values if seal in (None, _seal(values)) else None


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
