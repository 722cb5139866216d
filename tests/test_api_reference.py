"""The page of the Python reference is what the docstrings say, and nothing public lacks one."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("api_reference", str(ROOT / "scripts" / "api_reference"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("api_reference", loader))
    loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_script_writes(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/api_reference"


def test_all_that_is_public_has_a_docstring(script):
    bare = []
    for name in script.module_names():
        module = importlib.import_module(name)
        bare += [name] if not script.first_paragraph(module) else []
        for member, value in script.public(module):
            inner = script.public_methods(value) if isinstance(value, type) else []
            things = [(member, value), *((f"{member}.{method}", got) for method, got in inner)]
            bare += [f"{name}.{path}" for path, thing in things if not script.first_paragraph(thing)]
    assert not bare


def test_the_page_shows_signatures_as_the_source_spells_them(script):
    page = script.page()
    assert "- `seed_of(seed: int, step: int) -> int`: One seed per (run seed, step)" in page
    assert "order: PathOrder = 'breadth'" in page
    assert " at 0x" not in page
    assert "self" not in page.split("`plan(")[1].split("`")[0]
