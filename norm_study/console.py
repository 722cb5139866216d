"""What ``norm-study`` starts; all that takes time is imported where Ctrl-C already ends with one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from groundwork.command_line import run_command


def main() -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command)


def _command(argv: Sequence[str] | None) -> None:
    from norm_study.main import command

    command(argv)


if __name__ == "__main__":
    sys.exit(main())
