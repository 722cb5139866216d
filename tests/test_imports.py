"""Imports run one way, folder by folder, and never in a circle, not even inside functions or for types alone."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("groundwork", "envs", "planner", "norm_study")
WINGS = ("localization", "init_bias", "stitching", "audit")
ORDER = {
    "groundwork": set(),
    "envs": {"groundwork"},
    "planner": {"groundwork", "envs"},
    **{f"norm_study.{wing}": {"groundwork", "envs", "planner"} for wing in WINGS},
}
"""Which rooms and wings each may import, besides itself and the modules that lie beside the wings."""
ORDER["norm_study.init_bias"] |= {"norm_study.localization"}
ORDER["norm_study.stitching"] |= {"norm_study.audit"}
ORDER["norm_study.reproduce"] = {"groundwork", "envs", "planner", *(f"norm_study.{wing}" for wing in WINGS)}
ORDER["norm_study.report"] = ORDER["norm_study.reproduce"] | {"norm_study.reproduce"}


@cache
def imports() -> dict[str, set[str]]:
    """Which modules of ours each of them imports, wherever in its file that is said."""
    files = {}
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            files[".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = file
    return {name: set(_imported(file, files)) for name, file in files.items()}


def _imported(file: Path, ours: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in ours else str(node.module) for name in whole]
        yield from (name for name in names if name in ours)


def folder(module: str) -> str:
    """The room, or the wing of the study; a module beside the wings is in none of them."""
    wing = ".".join(module.split(".")[:2])
    return wing if wing in ORDER else module.split(".")[0]


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves by way of others."""

    def behind(module: str) -> set[str]:
        found, waiting = set(), set(graph[module])
        while waiting:
            found |= waiting
            waiting = set().union(*(graph[one] for one in waiting)) - found
        return found

    return {module for module in graph if module in behind(module)}


@pytest.mark.parametrize("place", ORDER)
def test_imports_run_one_way(place):
    own = {module: targets for module, targets in imports().items() if folder(module) == place}
    assert own
    for module, targets in own.items():
        wrong = {target for target in targets if folder(target) not in ORDER[place] | {place, "norm_study"}}
        assert not wrong, f"{module} imports {wrong}"
        if place in ("groundwork", "envs", "planner"):
            assert not any(target.startswith("norm_study") for target in targets), module


def test_no_file_imports_itself_by_way_of_others():
    assert in_circles(imports()) == set()


def test_a_circle_would_be_found():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == {"a", "b", "c"}
    graph = imports() | {"groundwork.errors": {"planner.unet"}}  # as an import inside a function would be seen, too
    assert {"groundwork.errors", "planner.unet"} <= in_circles(graph)


def test_configs_hold_no_code_and_scripts_no_python():
    assert not list((ROOT / "configs").rglob("*.py"))
    assert not list((ROOT / "scripts").rglob("*.py"))
