"""What docs/migration.md says of where modules went."""

import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from norm_study.main import PROGRAM
from planner.plan import Planner
from planner.sampling import Sampling

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "migration.md").read_text(encoding="utf-8")
MODULES = TEXT.partition("| was | is |")[2].partition("\n## ")[0]
MOVED = [line.strip("| ").split(" | ") for line in MODULES.splitlines() if line.startswith("| `")]
FOLDERS_NOW = {"norm_study.localization", "norm_study.reproduce", "planner.bench"}
"""Old names of modules that are new names of folders."""


def is_there(name):
    """Whether a module, or what a module holds, can be imported by this name."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no folder
        module, _, inside = name.rpartition(".")
        return hasattr(importlib.import_module(module), inside)


@pytest.mark.parametrize(("was", "now"), MOVED, ids=lambda text: text)
def test_what_moved_is_where_the_page_says_and_nowhere_else(was, now):
    assert all(is_there(name) for name in re.findall(r"`([\w.]+\.[\w.]+)`", now))
    assert all(name in FOLDERS_NOW or not is_there(name) for name in re.findall(r"`([\w.]+)`", was))


def test_imports_that_the_pages_show_go_on_working():
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})


def test_the_call_of_today_fits_and_the_earlier_one_does_not():
    [before, now] = re.findall(r"`planner\.plan\((start, .*?\)?)\)`", TEXT)
    takes, given = inspect.signature(Planner.plan), {"planner": None, "start": 0, "goal": 1, "Sampling": Sampling}
    call = "bind(planner, {})".format
    eval(f"takes.{call(now)}", {"takes": takes, **given})
    with pytest.raises(TypeError):
        eval(f"takes.{call(before)}", {"takes": takes, **given})


@pytest.mark.parametrize("command", ["init-bias", "init-bias-training"])
def test_places_of_the_norm_go_on_being_read_by_their_earlier_names(command):
    assert [PROGRAM.read([command, "--place", told])[1][0].place for told in ("before", "after")] == ["pre", "post"]
