"""Imports run groundwork ← envs ← planner ← norm_study, and heavy ones do not slow a command's --help."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "groundwork": {"envs", "planner", "norm_study"},
    "envs": {"planner", "norm_study"},
    "planner": {"norm_study"},
    "norm_study": set(),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            rooms = {name.split(".")[0] for name in names}
            assert not rooms & FORBIDDEN[package], f"{file} imports {rooms & FORBIDDEN[package]}"


def test_configs_hold_no_code_and_scripts_no_python():
    assert not list((ROOT / "configs").rglob("*.py"))
    assert not list((ROOT / "scripts").rglob("*.py"))
