"""A console command as a table: what each subcommand is called, the settings that it reads, and what it runs.

Settings are cheap to import and all that ``--help`` and a mistake need; what a subcommand runs is named by a text and
imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from groundwork.command_line import OneLineParser, run_command
from groundwork.command_options import add_options, read_options
from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.jobs import Executor, LocalExecutor
from groundwork.options import Settings, from_dict, option
from groundwork.slurm import SlurmExecutor, SlurmSettings
from groundwork.yaml_files import load_yaml

JOBS = "Run this many jobs at a time, each on one thread; 1 takes all threads."
DISTRIBUTION = "temporal-norm-planner"


@dataclass(frozen=True)
class Later:
    """A function by name, ``package.module:function``, that is imported when it is called."""

    path: str

    def function(self) -> Callable[..., Any]:
        """The function itself."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any) -> Any:
        """Imports and calls it."""
        return self.function()(*arguments)


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        help: what it does, in sentences of which the first stands in the list of subcommands.
        settings: dataclasses whose fields are its options.
        run: called with the settings in this order.
    """

    help: str
    settings: tuple[type[Settings], ...]
    run: Callable[..., None]


class _Version(argparse.Action):
    """Says the installed version; looking it up takes time."""

    def __call__(self, parser, namespace, values, option_string=None):
        from importlib.metadata import version

        print(parser.prog, version(DISTRIBUTION))
        parser.exit()


class _Completion(argparse.Action):
    """Prints a shell's completion script of the whole parser."""

    def __call__(self, parser, namespace, values, option_string=None):
        import shtab

        print(shtab.complete(parser, values))
        parser.exit()


@dataclass(frozen=True)
class Program:
    """A console command with its subcommands by name."""

    name: str
    help: str
    commands: Mapping[str, Command]

    def parser(self) -> OneLineParser:
        """All subcommands with their options; the parsed ``subcommand`` is the chosen one's name."""
        parser = OneLineParser(prog=self.name, description=self.help)
        parser.add_argument("--version", action=_Version, nargs=0, help="Say the version and stop.")
        completion = "Print the completion script of this shell and stop; eval it in the shell's startup file."
        parser.add_argument("--print-completion", action=_Completion, choices=("bash", "zsh"), help=completion)
        chosen = parser.add_subparsers(dest="subcommand", title="commands", required=True, metavar="COMMAND")
        for name, command in self.commands.items():
            first = command.help.split(". ")[0].rstrip(".") + "."
            one = chosen.add_parser(name, help=first, description=command.help)
            for kind in command.settings:
                add_options(one, kind)
        return parser

    def read(self, argv: Sequence[str] | None = None) -> tuple[Command, list[Any]]:
        """The chosen subcommand and its settings.

        Raises:
            UserError: settings out of range, or that do not go together.
        """
        arguments = self.parser().parse_args(argv)
        command = self.commands[arguments.subcommand]
        return command, [kind.from_options(read_options(arguments, kind)) for kind in command.settings]

    def run(self, argv: Sequence[str] | None = None) -> None:
        """Runs the chosen subcommand."""
        command, settings = self.read(argv)
        command.run(*settings)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the chosen subcommand and returns its exit code, see :func:`groundwork.command_line.run_command`."""
        return run_command(self.run, argv)


def command_line() -> str:
    """What the user typed, for the page that it makes."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


# settings that many commands share


@dataclass(frozen=True)
class Compute(Settings):
    """Where to compute."""

    device: Literal["auto", "cpu", "cuda"] = option("auto", "Compute on this device; auto takes a GPU if there is one.")


@dataclass(frozen=True)
class Jobs(Settings):
    """How much at a time, and where."""

    jobs: int = option(2, JOBS, low=1)
    executor: Literal["local", "slurm"] = option(
        "local", "Run jobs as processes of this machine, or on a Slurm cluster (with the extra slurm)."
    )
    cluster: Path | None = option(
        None, "Ask the cluster for what this YAML file says, and the options --slurm.… over it.", metavar="FILE"
    )
    pack: int = option(1, "Let one job of the cluster do this many short ones.", low=1)
    dry_run: bool = option(False, "Say what would be submitted to the cluster, and stop.")
    slurm: SlurmSettings = field(default_factory=SlurmSettings)

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Self:
        """What the cluster's file says, and the command line over it."""
        said = load_yaml(Path(given["cluster"])) if given.get("cluster") else {}
        if not isinstance(said, dict):
            raise UserError(f"cluster = {given['cluster']} holds no settings")
        return from_dict(cls, {**given, "slurm": {**said, **given.get("slurm", {})}})

    def check(self) -> None:
        """What asks something of a cluster needs one."""
        if self.executor == "local" and (
            self.dry_run or self.cluster or self.pack > 1 or self.slurm != SlurmSettings()
        ):
            raise UserError("executor = local reads no dry_run, cluster, pack or slurm: give --executor slurm")
        if self.pack > 1 < self.slurm.tasks:
            raise UserError(f"pack = {self.pack} goes with tasks = 1: processes that train together do one job")

    def run_in(self, out: Path) -> Executor:
        """Where the jobs run; logs of a cluster's go to ``out/jobs``."""
        if self.executor == "slurm":
            return SlurmExecutor(self.slurm, out / "jobs", self.pack, self.dry_run)
        return LocalExecutor(self.jobs)


@dataclass(frozen=True)
class ShortJobs(Jobs):
    """The same, of what takes less long than to start processes."""

    jobs: int = option(1, JOBS, low=1)


@dataclass(frozen=True)
class Seeds(Settings):
    """Which seeds."""

    seed: int = option(0, "The first seed.", low=0)
    seeds: int = option(1, "Run this many seeds, counted up from the first.", low=1)

    @property
    def all(self) -> list[int]:
        """The seeds, ascending."""
        return list(range(self.seed, self.seed + self.seeds))


@dataclass(frozen=True)
class JsonOutput(Settings):
    """Where the numbers go."""

    json: str | None = option(
        None, "Write config, rows and summary to this file as one JSON object; - for standard output.", metavar="FILE"
    )

    def write(self, result: Any) -> bool:
        """Writes the result where it is wanted; whether standard output is still free for a text to read."""
        if self.json == "-":
            print(json.dumps(result, allow_nan=False))
        elif self.json is not None:
            write_atomically(Path(self.json), json.dumps(result, allow_nan=False) + "\n")
        return self.json != "-"
