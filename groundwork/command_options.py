"""Settings on the command line: a field is an option, and words spell its value."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from groundwork.command_line import OneLineParser
from groundwork.errors import UserError
from groundwork.options import choices_of, leaf_fields, nested, one_of, shown, typed

_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files"}
"""How shtab says that a word completes as a file's name."""
_METAVARS = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH"}


def add_options(parser: OneLineParser, kind: type) -> None:
    """One option per field, nested ones as ``--model.norm``; a field that ``option`` did not make is none."""
    for name, item, kept in leaf_fields(kind):
        about, choices, kept = item.metadata, choices_of(item, kept), one_of(kept)
        listed, required = get_origin(kept) is tuple, item.default is MISSING
        default = "" if required or item.default is None or item.default is False else typed(item.default)
        default = default if about["default_text"] is None else about["default_text"]
        words = f"{about['help']} Default: {default}." if default else about["help"]
        more: dict[str, Any] = {"help": words.replace("%", "%%"), "default": argparse.SUPPRESS}
        if kept is bool and "." not in name and about["metavar"] is None:
            more["action"] = argparse.BooleanOptionalAction if item.default else "store_true"
        elif choices is not None and not listed:
            more["choices"] = choices
            more["type"] = partial(_spelled_today, about["old_values"] or {})
        else:
            usual = item.name.upper() if about["positional"] else "A,B" if listed else _METAVARS[kept]
            more["metavar"] = about["metavar"] or usual
        if about["positional"]:
            flag = ""
            if listed or not required:
                more["nargs"] = "?" if not listed else "+" if required else "*"
            action = parser.add_argument(name, **more)
        else:
            flag = f"--{about['flag'] or name.replace('_', '-')}"
            if about["repeated"]:
                more["action"] = "append"
            action = parser.add_argument(flag, dest=name, required=required, **more)
        if kept is Path or about["positional"]:
            action.complete = _FILES  # type: ignore[attr-defined]
        parser.old_names |= dict.fromkeys(about["old"], flag)


def _spelled_today(old_values: Mapping[str, str], told: str) -> str:
    return old_values.get(told, told)


def read_options(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    """What the command line gave of the settings, as nested plain values."""
    values: dict[str, Any] = {}
    for name, item, inner in leaf_fields(kind):
        if not hasattr(arguments, name):
            continue
        told = getattr(arguments, name)
        split = item.metadata["repeated"] or item.metadata["positional"]
        values[name] = _read(told, inner) if not isinstance(told, list) or not split else _read_each(told, inner)
    return nested(values)


def read_change(kind: type, told: str) -> tuple[str, Any]:
    """The dotted name of a setting and the plain value that ``SETTING=VALUE`` gives it, as the command line reads it.

    Raises:
        UserError: it is not that, or no such setting.
    """
    name, _, value = told.partition("=")
    known, leaf = {leaf: inner for leaf, _, inner in leaf_fields(kind)}, name.strip().replace("-", "_")
    if "=" not in told or leaf not in known:
        raise UserError(f"{shown(told)} is no SETTING=VALUE; settings are {', '.join(known)}")
    return leaf, _read(value.strip(), known[leaf])


def said(value: Any) -> str:
    """A setting's value as one types it; an empty text has a word, too."""
    return str(value).lower() if isinstance(value, bool) else typed(value) or "none"


def _read_each(told: list[str], kind: Any) -> list[Any]:
    return [_read(text, get_args(one_of(kind))[0]) for text in told]


def _read(told: Any, kind: Any) -> Any:
    """A word of the command line as the plain value that it spells; what it cannot be stays a text."""
    optional, kind = kind != one_of(kind), one_of(kind)
    if get_origin(kind) is tuple:
        return [_read(part, get_args(kind)[0]) for part in told.strip("[]()").split(",")]
    if not isinstance(told, str) or (optional and told == "none" and kind is not str):
        return told if not isinstance(told, str) else None
    if kind is bool:
        return yaml.SafeLoader.bool_values.get(told.lower(), told)
    try:
        return kind(told) if kind in (int, float) else told
    except ValueError:
        return told
