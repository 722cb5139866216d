"""Help, a misspelt option and the version answer at once: they import nothing that takes long."""

from __future__ import annotations

import importlib
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundwork.program import Later, Program

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("envs", "planner", "norm_study")
HEAVY = {"torch", "diffusers", "matplotlib", "mujoco", "scipy", "sklearn", "minari", "gymnasium", "pandas"}
DOORS = """
import contextlib, importlib, io, sys
program = importlib.import_module(sys.argv[1]).PROGRAM
for words in (["--help"], ["--version"], ["--print-completion", "bash"], ["--hlep"],
              *([name, "--help"] for name in program.commands), *([name, "--hlep"] for name in program.commands)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            program.main(words)
        except SystemExit as stop:
            assert stop.code == (2 if "--hlep" in words else 0), words
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def program(package: str) -> Program:
    return importlib.import_module(f"{package}.main").PROGRAM


def doors() -> Iterator[tuple[str, ...]]:
    for package in PACKAGES:
        yield from ((package, "--help"), (package, "--version"), (package, "--hlep"))
        for name in program(package).commands:
            yield from ((package, name, "--help"), (package, name, "--hlep"))


@pytest.mark.parametrize("package", PACKAGES)
def test_help_a_mistake_and_the_version_import_nothing_heavy(package):
    done = subprocess.run([sys.executable, "-c", DOORS, f"{package}.main"], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        *(((program(package).name, ""), set(program(package).commands)) for package in PACKAGES),
        (("planner", "train", "--model.norm", "pack"), {"packnorm_isolated"}),
        (("norm-study", "audit", "--proj"), {"--projections"}),
        (("maze-data", "convert", "pyproj"), {"pyproject.toml"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_shell_completes_subcommands_options_choices_and_files(words, wanted, capsys):
    name = words[0]
    [package] = (package for package in PACKAGES if program(package).name == name)
    with pytest.raises(SystemExit):
        program(package).main(["--print-completion", "bash"])
    asked = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_{name.replace('-', '_')}"
    script = f'{capsys.readouterr().out}\n{asked}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert wanted <= set(done.stdout.split())
    assert len(words) == 2 or wanted == set(done.stdout.split())


@pytest.mark.slow  # it measures time, which a busy machine spoils
@pytest.mark.parametrize("words", list(doors()), ids=" ".join)
def test_a_door_takes_less_than_half_a_second_of_processor_time(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *words], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("package", PACKAGES)
def test_whatever_a_command_runs_can_be_imported(package):
    for command in program(package).commands.values():
        named = [command.run, *getattr(command.run, "args", ()), getattr(command.run, "func", None)]
        found = [one for one in named if isinstance(one, Later)]
        assert found
        assert all(callable(one.function()) for one in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_subcommand_says_what_it_does_and_takes_in_sentences(package):
    for name, command in program(package).commands.items():
        assert command.help[0].isupper(), name
        assert command.help.endswith("."), name
        for kind in command.settings:
            for item in kind.__dataclass_fields__.values():
                words = item.metadata.get("help")
                assert words is None or (words[0].isupper() and words.endswith(".")), f"{name}: {item.name}: {words}"
