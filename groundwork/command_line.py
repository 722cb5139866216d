"""What the console commands share: one-line errors, exit codes, and an argument parser that keeps to them."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from groundwork.errors import UserError, out_of_memory

INTERRUPTED = 130
IMPORT_WAIT_S = 0.05
USER_ERROR = 2


class OneLineParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line on standard error and exit code 2."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.old_names: dict[str, str] = {}

    def parse_known_args(self, args=None, namespace=None):
        """Reads earlier spellings too: underscores for hyphens, and the keys of ``old_names`` for its values."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._spelled_as_today(words), namespace)

    def _spelled_as_today(self, words: Sequence[str]) -> list[str]:
        """Words whose option is now taken by its place go to the front, without the option's name."""
        first: list[str] = []
        rest = list(words)
        for index in reversed(range(len(rest))):
            name, equals, value = rest[index].partition("=")
            if not name.startswith("--") or "--" in words[:index]:
                continue
            name = name.replace("_", "-")
            name = self.old_names.get(name, name)
            if name:
                rest[index] = name + equals + value
            else:
                first[:0] = [value] if equals else rest[index + 1 : index + 2]
                del rest[index : index + (1 if equals else 2)]
        return first + rest

    def error(self, message: str) -> NoReturn:
        """Prints ``message`` on one line and exits with 2."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run_command(command: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and turns what a user can mend into one line and an exit code.

    Args:
        command: takes the argument list, prints results to standard output.
        argv: the arguments; ``None`` takes those of the process.

    Returns:
        0; 2 after a :class:`UserError`, an operating system's refusal (missing file, full disk,
        read-only folder) or too little memory; 130 after Ctrl-C. Anything else is our own mistake and
        keeps its traceback.
    """
    try:
        with _imports_whole():
            command(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return USER_ERROR
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("error: not enough memory: fewer or shorter plans, or a smaller network, need less", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as interruption:
        _discard(interruption)
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _discard(interruption: KeyboardInterrupt) -> None:
    """Throws away what Ctrl-C left half made, unheard: a progress bar cut off in its constructor has no position."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(interruption.__traceback__)
    finally:
        sys.unraisablehook = hook


@contextmanager
def _imports_whole() -> Iterator[None]:
    """Ctrl-C during an import waits for its end: some libraries catch it there and go on half loaded.

    Raised where Python drops exceptions (a finalizer, the callback of a weak reference), it is raised once more.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    alarm, report = signal.getsignal(signal.SIGALRM), sys.unraisablehook

    def soon() -> None:
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, IMPORT_WAIT_S)

    def dropped(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            soon()
        else:
            report(unraisable)

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                soon()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGALRM) is interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
