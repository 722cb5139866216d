"""Real processes for tests of faults: killed, interrupted, starved. They fork from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["planner.training.train", "planner.rollout", "envs.collect", "norm_study.main"])


def _child(errors: str, environment: dict[str, str], function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs have Ctrl-C switched off
    file = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    import torch

    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def run_module(module: str, arguments: list[str]) -> int:
    """A console command; returns its exit code."""
    import importlib

    return importlib.import_module(module).main(arguments)


@dataclass
class Child:
    """A running process.

    Attributes:
        process: to ask for its id and exit code.
        errors: file with what it printed.
    """

    process: Any
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def printed(self) -> str:
        return self.errors.read_text() if self.errors.exists() else ""

    def wait_until(self, condition: Callable[[], Any], limit_s: float = 100) -> None:
        """Until the condition holds; fails if the process ends before."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if not self.process.is_alive() or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(self.printed())
            time.sleep(0.005)

    def send(self, what: signal.Signals) -> int:
        """Sends a signal, waits for the end; returns the exit code."""
        os.kill(self.pid, what)
        return self.end()

    def end(self, limit_s: float = 100) -> int:
        """Waits for the end; returns the exit code, the negative signal after a kill."""
        self.process.join(limit_s)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
        assert code is not None, self.printed()
        return code


def start(folder: Path, function: Callable[..., int], *arguments: Any) -> Child:
    """Calls a function of a module in a process of its own."""
    errors = folder / f"printed-{time.monotonic_ns()}.txt"
    process = _SERVER.Process(target=_child, args=(str(errors), dict(os.environ), function, arguments))
    process.start()
    return Child(process, errors)


def start_command(folder: Path, module: str, *arguments: object) -> Child:
    """Runs a console command's module in a process of its own."""
    return start(folder, run_module, module, [str(argument) for argument in arguments])
