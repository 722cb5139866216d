"""Settings: one field is a key, an option, a check and a line of help; YAML says nothing twice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from groundwork.command_line import OneLineParser
from groundwork.command_options import add_options, read_options
from groundwork.errors import UserError
from groundwork.options import REQUIRED, Settings, from_dict, option, to_dict
from groundwork.yaml_files import load_yaml


@dataclass(frozen=True)
class Inner(Settings):
    """A group."""

    kind: Literal["one", "two"] = option("one", "Which of the two.", old_values={"second": "two"})
    widths: tuple[int, ...] = option((1, 2), "Widths in channels.", low=1)


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    """A whole."""

    runs: tuple[str, ...] = option(REQUIRED, "Run folders.", positional=True, old=("--run",))
    inner: Inner = field(default_factory=Inner)
    steps: int = option(3, "Training steps.", low=1, high=9)
    rate: float = option(0.5, "The learning rate, a share of 100 %.")
    region: tuple[float, float, float] | None = option(None, "A region.", metavar="X,Y,RADIUS")
    limit: int | None = option(None, "At most so many.", low=1)
    quiet: bool = option(False, "Say nothing.")
    told: bool = option(True, "Say what is done.")
    out: Path = option(Path("runs"), "The folder.", old=("--output",))
    shape: tuple[tuple[int, ...], ...] = option(((1,),), "Of an input.", repeated=True, low=1)

    def check(self) -> None:
        """Two fields that do not go together."""
        if self.quiet and self.limit:
            raise UserError("quiet and limit exclude each other")


def parse(*words: str) -> Outer:
    parser = OneLineParser(prog="program")
    add_options(parser, Outer)
    return Outer.from_options(read_options(parser.parse_args(words), Outer))


def test_plain_values_and_back_give_the_same_settings():
    settings = Outer(runs=("a", "b"), inner=Inner("two", (4,)), rate=1, region=(1.0, 2.0, 0.5), limit=4, quiet=False)
    assert from_dict(Outer, to_dict(settings)) == settings
    assert type(settings.rate) is float


def test_a_command_line_spells_every_type():
    words = "a --inner.kind two --inner.widths 3,4 --steps 7 --rate 1e-3 --region=-1,2,0.5 --limit none --out x/y"
    told = parse(*words.split(), "--quiet", "--shape", "1,2", "--shape", "3")
    wanted = Outer(
        runs=("a",),
        inner=Inner("two", (3, 4)),
        steps=7,
        rate=1e-3,
        region=(-1.0, 2.0, 0.5),
        quiet=True,
        out=Path("x/y"),
        shape=((1, 2), (3,)),
    )
    assert told == wanted
    assert parse("a", "--no-told") == Outer(runs=("a",), told=False)


def test_earlier_spellings_mean_the_same_and_are_not_shown(capsys):
    assert parse("a", "b", "--output", "x") == parse("--run", "a", "--output=x", "--run=b")
    assert parse("a", "--inner.kind", "second").inner.kind == "two"
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert "--out " in shown
    assert "--output" not in shown
    assert "--run" not in shown
    assert "second" not in shown


def test_help_says_meaning_range_and_default_once(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--steps INT Training steps. Default: 3." in shown
    assert "--inner.widths A,B Widths in channels. Default: 1,2." in shown
    assert "--inner.kind {one,two}" in shown
    assert "a share of 100 %. Default: 0.5." in shown
    assert "At most so many. --" in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--steps 2.5", "steps = '2.5' must be a whole number"),
        ("--steps many", "steps = 'many' must be a whole number"),
        ("--steps 0", "steps = 0 must be at least 1"),
        ("--steps 10", "steps = 10 must be at most 9"),
        ("--rate nan", "rate = nan must be a finite number"),
        ("--inner.widths 1,x", "inner.widths = 1,x must be a whole number"),
        ("--inner.widths 1,0", "inner.widths = 1,0 must be at least 1"),
        ("--region 1,2", "region = 1.0,2.0 must be X,Y,RADIUS"),
        ("--quiet --limit 3", "quiet and limit exclude each other"),
    ],
)
def test_a_mistake_on_the_command_line_names_field_value_and_what_is_allowed(words, line):
    with pytest.raises(UserError) as refusal:
        parse("a", *words.split())
    assert str(refusal.value) == line


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"steps": True}, "steps = True must be a whole number"),
        ({"quiet": "false"}, "quiet = 'false' must be true or false"),
        ({"rate": math.inf}, "rate = inf must be a finite number"),
        ({"inner": {"kind": "three"}}, "inner.kind = three is not one of one, two"),
        ({"inner": {"wide": 3}}, "unknown key inner.wide; known are kind, widths"),
        ({"inner": 3}, "inner = 3 must be a group of settings"),
        ({"runs": []}, "runs =  must be a list such as 1,2"),
        ({"stepz": 3}, "unknown key stepz; known are runs, inner, steps, rate, region, limit, quiet, told, out, shape"),
    ],
)
def test_a_mistake_in_plain_values_is_named_by_its_whole_path(values, line):
    with pytest.raises(UserError) as refusal:
        from_dict(Outer, {"runs": ["a"], **values})
    assert str(refusal.value) == line


def test_what_is_required_is_missed():
    with pytest.raises(UserError, match="runs is missing"):
        from_dict(Outer, {})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("steps: 2\nmodel: {}\nmodel: {dim: 8}\n", "model"),
        ("model:\n  norm: none\n  dim: 8\n  'norm': group\n", "norm"),
        ("- {name: a, sizes: {steps: 1, steps: 2}}\n", "steps"),
        ("1: a\n0x1: b\n", "1"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_name_at_any_depth(tmp_path, text, key):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"twice\.yaml .*{key}'? stands twice") as refusal:
        load_yaml(tmp_path / "twice.yaml")
    assert "\n" not in str(refusal.value)


def test_a_merged_mapping_may_be_overridden(tmp_path):
    (tmp_path / "merged.yaml").write_text("base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n")
    assert load_yaml(tmp_path / "merged.yaml")["mine"] == {"a": 1, "b": 3}


def test_a_subclass_says_what_differs_and_keeps_help_and_range(capsys):
    @dataclass(frozen=True)
    class Two(Settings):
        depth: int = option(2, "The depth.", low=2)

    @dataclass(frozen=True)
    class Small(Two, Inner, defaults={"widths": (8,), "depth": 3}, hidden=("kind",)):
        """A smaller one."""

    assert Small() == Small(kind="one", widths=(8,), depth=3)
    assert Inner().widths == (1, 2)
    with pytest.raises(UserError, match="depth = 1 must be at least 2"):
        Small(depth=1)
    with pytest.raises(UserError, match="kind = three is not one of one, two"):
        Small(kind="three")
    parser = OneLineParser(prog="program")
    add_options(parser, Small)
    shown = parser.format_help()
    assert "Widths in channels. Default: 8." in shown
    assert "--kind" not in shown
