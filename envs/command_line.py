"""What the console commands share: one-line errors, exit codes, and an argument parser that keeps to them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

INTERRUPTED = 130
USER_ERROR = 2


class UserError(ValueError):
    """A mistake that the user can mend; its message is one line that names field, value and remedy."""


class OneLineParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line on standard error and exit code 2."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Prints ``message`` on one line and exits with 2."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run_command(command: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and turns what a user can mend into one line and an exit code.

    Args:
        command: takes the argument list, prints results to standard output.
        argv: the arguments; ``None`` takes those of the process.

    Returns:
        0; 2 after a :class:`UserError` or an operating system's refusal (missing file, full disk,
        read-only folder); 130 after Ctrl-C. Anything else is our own mistake and keeps its traceback.
    """
    try:
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0
