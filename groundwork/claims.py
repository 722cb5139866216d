"""Who works on what: claims that hold on network file systems, too, and that a dead process loses.

A claim is a file beside what is claimed, with a name of its own. Whoever writes one and then sees no other that is
alive holds the claim: of two that come together at least one sees the other, and the one with the smaller name wins.
No file is ever taken over, so there is nothing to race for; no lock of the operating system is needed.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

from groundwork.errors import UserError
from groundwork.files import write_atomically

BEAT_S, EXPIRY_S = 20.0, 120.0
"""A holder on another machine touches its claim so often, and is thought dead after so long without."""
SETTLE_S, LOOK_S = 0.3, 0.02


class InUseError(UserError):
    """Another living process holds the claim."""


class Claim:
    """The right to work on something, for one process at a time.

    Args:
        path: what the claim's files begin with; the folder is made if need be.
        what: how an error calls it.
    """

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what
        self._own: Path | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Takes the claim.

        Raises:
            InUseError: another process holds it.
        """
        own = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        write_atomically(own, json.dumps({"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}))
        try:
            self._settle(own)
        except BaseException:
            own.unlink(missing_ok=True)
            raise
        self._own, self._ended = own, threading.Event()
        threading.Thread(target=_beat, args=(own, self._ended), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Gives the claim back."""
        self._ended.set()
        if self._own is not None:
            self._own.unlink(missing_ok=True)
            self._own = None

    def _settle(self, own: Path) -> None:
        deadline = time.monotonic() + SETTLE_S
        while others := self._living(own):
            if min(others) < own or time.monotonic() > deadline:
                raise InUseError(f"{self.what} is in use by another process")
            time.sleep(LOOK_S)

    def _living(self, own: Path) -> list[Path]:
        """The other claims whose holders live; those of the dead are removed."""
        found, now = [], own.stat().st_mtime  # the file system's clock
        for other in self.path.parent.glob(f"{self.path.name}.*"):
            if other == own:
                continue
            if _alive(other, now):
                found.append(other)
            else:
                other.unlink(missing_ok=True)
        return found


def _beat(own: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        try:
            os.utime(own)
        except OSError:  # the folder is gone, or a network is down for a moment
            continue


def _alive(claim: Path, now: float) -> bool:
    try:
        holder, beaten = json.loads(claim.read_text()), claim.stat().st_mtime
    except FileNotFoundError:
        return False
    if holder["machine"] == _machine():
        return _started(holder["pid"]) == holder["started"]
    return now - beaten < EXPIRY_S


def _machine() -> str:
    """The host, and which of its process tables: containers have their own."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str | None:
    """When a living process began, in the kernel's ticks, so that a new one of the same number is told apart."""
    try:
        os.kill(pid, 0)
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        return ""
    except FileNotFoundError:  # no /proc
        return ""
    return None if state in "ZX" else numbers[18]
