"""Functions fit on a screen, and the formatter is on everywhere."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("groundwork", "envs", "planner", "norm_study")
LONGEST_FUNCTION = 60


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{file.relative_to(ROOT)}: {node.name} has {lines} lines"
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long


def test_the_formatter_is_on_everywhere():
    files = [file for room in (*ROOMS, "tests", "scripts") for file in (ROOT / room).rglob("*") if file.is_file()]
    marks = ("# fmt: " + "skip", "# fmt: " + "off")
    texts = {file: file.read_bytes() for file in files if file.suffix in ("", ".py")}
    assert not [file for file, text in texts.items() if any(mark.encode() in text for mark in marks)]
