"""The page of faults names tests that exist, and all of those that were written for it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", (TESTS.parent / "docs" / "faults.md").read_text("utf-8")))


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists():
    assert len(NAMED) > 30
    for file, name in sorted(NAMED):
        assert name in names_in(TESTS / file), f"{file}::{name}"


def test_the_page_names_every_test_of_a_fault():
    laws = {"test_the_optimizer_keeps_the_same_tensors_of_every_parameter"}  # what the code relies on, no fault
    for file in TESTS.glob("test_faults_*.py"):
        assert names_in(file) - laws == {name for where, name in NAMED if where == file.name}
