"""Settings as frozen dataclasses: one field is a YAML key, a command-line option, a check and a one-line error.

:mod:`groundwork.command_options` has the words of the command line, :mod:`groundwork.yaml_files` the files.

A field's type says what it takes, strictly: 2.7 is no whole number, ``'false'`` is not false, NaN is no number. Its
metadata hold the rest: help, range, choices, and how the command line spells it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import cache, reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from groundwork.errors import UserError

Kind = TypeVar("Kind")
REQUIRED = MISSING
_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", Path: "a path"}


def option(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: tuple[str, ...] | None = None,
    positional: bool = False,
    repeated: bool = False,
    metavar: str | None = None,
    default_text: str | None = None,
    flag: str | None = None,
    old: tuple[str, ...] = (),
    old_values: Mapping[str, str] | None = None,
) -> Any:
    """A field with all that is said about it.

    Args:
        default: or ``REQUIRED``.
        help: a whole sentence that can be read without the option's name, with the unit.
        low: the least value that is allowed, of a tuple for each entry.
        high: the largest.
        choices: what is allowed of the names that the type has.
        positional: whether the command line takes it by its place, without its name.
        repeated: whether the option is given once per entry of the tuple instead of once with commas.
        metavar: what the help calls the value.
        default_text: what the help says of the default instead of its value; empty: nothing.
        flag: the option's name without its hyphens in front, where it is not the field's; errors use it too.
        old: earlier names of the option, which go on working and are not shown.
        old_values: earlier spelling of a choice → today's; the command line still takes the earlier one.
    """
    about = {name: value for name, value in locals().items() if name != "default"}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """The base: types, ranges and choices are checked on construction, whoever constructs.

    A subclass says what differs: ``class Small(Sizes, defaults={"width": 8}, hidden=("depth",))`` has another default
    for the one and offers no option for the other.
    """

    def __init_subclass__(cls, defaults: Mapping[str, Any] | None = None, hidden: Sequence[str] = ()) -> None:
        """Fields of the base anew, before the dataclass is made of them."""
        for name in dict.fromkeys((*(defaults or {}), *hidden)):
            known = (vars(base).get("__dataclass_fields__", {}) for base in cls.__mro__)
            item: Field = next(fields_of_base[name] for fields_of_base in known if name in fields_of_base)
            cls.__annotations__[name] = item.type
            about = {key: value for key, value in item.metadata.items() if key != "help" or name not in hidden}
            setattr(cls, name, field(default=(defaults or {}).get(name, item.default), metadata=about))

    def __post_init__(self) -> None:
        """Checks each field, then what fields demand of each other.

        Raises:
            UserError: one line that names the field, its value and what is allowed.
        """
        for item, kind in _typed_fields(type(self)):
            object.__setattr__(self, item.name, _checked(item, kind, getattr(self, item.name)))
        self.check()

    def check(self) -> None:
        """What fields demand of each other; raises ``UserError``."""

    @classmethod
    def from_options(cls: type[Kind], given: Mapping[str, Any]) -> Kind:
        """The settings out of what the command line gave; see :func:`groundwork.command_options.read_options`."""
        return from_dict(cls, given)


@cache  # names become types by running them, a tenth of the time of a small network's plan
def _fields_of(kind: Any) -> tuple[tuple[Field, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((item, hints[item.name]) for item in fields(kind))


_typed_fields: Callable[[Any], tuple[tuple[Field, Any], ...]] = _fields_of


def one_of(kind: Any) -> Any:
    """``X`` of ``X | None``, other types as they are."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    return kind


def typed(value: Any) -> str:
    """A value as it is typed on the command line, a list with commas."""
    return ",".join(map(typed, value)) if isinstance(value, tuple | list) else str(value)


def shown(value: Any) -> str:
    """As an error names it, on one line."""
    return " ".join((repr(value) if isinstance(value, str) else typed(value)).split())


def choices_of(item: Field, kind: Any) -> tuple[Any, ...] | None:
    """The names that a field allows; ``None``: its values are no names."""
    kind = one_of(kind)
    return item.metadata.get("choices") or (get_args(kind) if get_origin(kind) is Literal else None)


def _name(item: Field) -> str:
    """What an error calls the field."""
    return (item.metadata.get("flag") or item.name).replace("-", "_")


def _checked(item: Field, kind: Any, value: Any) -> Any:
    """The value as its field keeps it: lists as tuples, whole numbers of a float as floats."""
    try:
        return _kept(item, kind, value)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{_name(item)} = {shown(value)} {error}") from None


def _kept(item: Field, kind: Any, value: Any) -> Any:
    if value is None and kind != one_of(kind):
        return None
    kind, choices = one_of(kind), choices_of(item, kind)
    low, high = item.metadata.get("low"), item.metadata.get("high")
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, tuple | list) or not value:
            raise ValueError("must be a list such as 1,2")
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ValueError(f"must be {item.metadata['metavar']}")
        return tuple(_kept(item, inner[0], entry) for entry in value)
    if choices is not None:
        if type(value) is not str or value not in choices:
            raise UserError(f"{_name(item)} = {' '.join(str(value).split())} is not one of {', '.join(choices)}")
        return value
    if (kind, type(value)) == (Path, str):
        return Path(value)
    if (kind, type(value)) == (float, int):
        value = float(value) if abs(value) < 2**1000 else math.inf
    right = isinstance(value, kind) if kind not in (int, float, bool) else type(value) is kind
    if not right or (kind is float and not math.isfinite(value)):
        raise ValueError(f"must be {_WORDS.get(kind, 'a group of settings')}")
    if low is not None and value < low:
        raise ValueError(f"must be at least {low}")
    if high is not None and value > high:
        raise ValueError(f"must be at most {high}")
    return value


def part_of(kind: type[Kind], settings: Any) -> Kind:
    """The settings of a kind out of larger ones that have its fields."""
    return kind(**{item.name: getattr(settings, item.name) for item, _ in _typed_fields(kind)})


# plain values


def from_dict(kind: type[Kind], values: Any, path: str = "") -> Kind:
    """Settings from nested plain values.

    Args:
        kind: the dataclass.
        values: a mapping of its fields' names.
        path: what stands before the names in an error, such as ``model.``.

    Raises:
        UserError: an unknown key, a value of the wrong type or range; one line that names the field by its whole path.
    """
    known: dict[str, tuple[Field, Any]] = {item.name: (item, inner) for item, inner in _typed_fields(kind)}
    if not isinstance(values, Mapping):
        raise UserError(f"{path.rstrip('.') or 'settings'} = {shown(values)} must be a group of settings")
    unknown = ", ".join(sorted(f"{path}{key}" for key in values if key not in known))
    if unknown:
        raise UserError(f"unknown key {shown(unknown)[1:-1]}; known are {', '.join(known)}")
    made = dict(values)
    for name, (item, inner) in known.items():
        if name in made and is_dataclass(inner):
            assert isinstance(inner, type)
            made[name] = from_dict(inner, made[name], f"{path}{name}.")
        if name not in made and item.default is MISSING and item.default_factory is MISSING:
            raise UserError(f"{path}{name} is missing: {item.metadata['help']}")
    try:
        return kind(**made)
    except UserError as error:
        raise UserError(f"{path}{error}") from error


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as nested plain values, fit for YAML and JSON; the inverse of :func:`from_dict`."""
    return asdict(settings, dict_factory=lambda pairs: {name: _plain(value) for name, value in pairs})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over`` written over its own."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


# by dotted names


def leaf_fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Field, Any]]:
    """Fields with their dotted names, those of nested settings behind the name of their group."""
    for item, inner in _typed_fields(kind):
        if is_dataclass(inner):
            assert isinstance(inner, type)
            yield from leaf_fields(inner, f"{prefix}{item.name}.")
        elif "help" in item.metadata:
            yield f"{prefix}{item.name}", item, inner


def leaves_of(settings: Settings) -> dict[str, Any]:
    """The settings' values by their dotted names; :func:`nested` makes groups of such names."""
    return {name: reduce(getattr, name.split("."), settings) for name, _, _ in leaf_fields(type(settings))}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted names, as nested groups."""
    groups: dict[str, Any] = {}
    for name, value in values.items():
        *rooms, last = name.split(".")
        reduce(lambda group, room: group.setdefault(room, {}), rooms, groups)[last] = value
    return groups
