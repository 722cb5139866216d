"""Settings in YAML files, read strictly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from groundwork.errors import UserError
from groundwork.options import to_dict


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a string, where scientists mean a number, and keeps the last of repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [(self.construct_object(key, deep=True), key) for key, _ in node.value if not key.tag.endswith(":merge")]
        for index, (name, key) in enumerate(own):
            if any(name == earlier for earlier, _ in own[:index]):
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(path: Path) -> Any:
    """The plain values of a YAML file.

    Raises:
        UserError: it is no YAML, or a key stands twice, at any depth.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # an impossible date or number is a plain ValueError
        mark = getattr(error, "problem_mark", None)
        text = f"{error.problem} in line {mark.line + 1}" if isinstance(error, yaml.MarkedYAMLError) and mark else error
        raise UserError(f"{path} is not valid YAML: {' '.join(str(text).split())}") from error


def to_yaml(settings: Any) -> str:
    """The settings as YAML, itself a preset."""
    return yaml.safe_dump(to_dict(settings), sort_keys=False)
