"""Command-line options out of the fields of a settings dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from groundwork.errors import UserError


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """One option per field, with the field's default and help."""
    for item in fields(config):
        choices = item.metadata.get("choices")
        if choices is not None and len(choices) == 1:
            continue  # what the experiment is about is not an option
        flag, text = "--" + item.name.replace("_", "-"), item.metadata["help"]
        if isinstance(item.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default, help=text)
        elif isinstance(item.default, tuple):
            parser.add_argument(
                flag,
                type=list_of(type(item.default[0])),
                default=item.default,
                metavar="A,B",
                help=f"{text}; comma-separated",
            )
        else:
            parser.add_argument(
                flag,
                type=type(item.default),
                default=item.default,
                choices=choices,
                help=text,
                metavar=None if choices else type(item.default).__name__.upper(),
            )


def list_of(kind: type) -> Callable[[str], tuple[Any, ...]]:
    """What argparse needs to read a comma-separated list of ``kind``."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    parse.__name__ = f"comma-separated {kind.__name__}"  # what argparse calls it in an error
    return parse


def config_from(config: type, arguments: argparse.Namespace) -> Any:
    """The dataclass with what the user gave; it checks itself."""
    given = vars(arguments)
    return config(**{item.name: given[item.name] for item in fields(config) if item.name in given})


def add_run_options(parser: argparse.ArgumentParser, seeds: int) -> None:
    """The options that every measuring command has."""
    parser.add_argument("--seed", type=int, default=0, metavar="INT", help="the first seed")
    parser.add_argument("--seeds", type=int, default=seeds, metavar="INT", help="how many seeds, counted up")
    add_device(parser)
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``, of every command that measures."""
    parser.add_argument("--json", metavar="FILE", help="write config, rows and summary there; - for standard output")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if any")


def seeds_from(arguments: argparse.Namespace) -> list[int]:
    """The seeds that were asked for.

    Raises:
        UserError: none, or negative ones.
    """
    if arguments.seeds < 1:
        raise UserError(f"seeds = {arguments.seeds} must be at least 1")
    if arguments.seed < 0:
        raise UserError(f"seed = {arguments.seed} must be at least 0")
    return list(range(arguments.seed, arguments.seed + arguments.seeds))
