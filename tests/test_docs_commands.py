"""Every command in README and docs: the tutorial is executed whole, in order; every other command is at least read by
its own parser, its preset and settings included, and executed at a reduced size, here or by scripts/check around this.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from browser import missing
from conftest import HASH, TINY
from tensorboard import program
from wanted import TINY_PARTS, d4rl_stream, write_d4rl, write_grid, write_ogbench

import envs.main
import norm_study.main
import planner.main
from envs.maps import get_map
from groundwork.command_line import run_command
from groundwork.errors import UserError
from planner.config import from_dict, load_preset, merge
from planner.training.train import train
from planner.unet import TemporalUNet

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.md"
REFERENCE = ROOT / "docs" / "api.md"  # docstrings, which name commands and do not show them
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page != REFERENCE)]
PROGRAMS = {"maze-data": envs.main.PROGRAM, "planner": planner.main.PROGRAM, "norm-study": norm_study.main.PROGRAM}
MAINS = {name: program.run for name, program in PROGRAMS.items()}
OTHER_PROGRAMS = ("tensorboard", ".venv/bin/tensorboard")
OURS = re.compile(r"([A-Z_]+=\S+ )*((maze-data|planner|norm-study|tensorboard|\.venv/bin/tensorboard) |scripts/\w)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SIZES = "--length 24 --depth 3 --kernel 3 --width 8 --batch 4 --steps 3"
PROBES = "--probe-steps 2 --probe-width 4 --probe-batch 2"
# Commands that are executed here as they are documented, with these options behind their own.
REDUCED = {
    "norm-study localize": f"{SIZES} --predictions 40",
    "norm-study probe": f"{SIZES} --predictions 40 {PROBES}",
    "norm-study multihop": f"{SIZES} --predictions 40",
    "norm-study packnorm": "--length 9 --depth 3 --kernel 3 --width 4 --batch 2 --steps 2 --overlap 4 --predictions 9",
    "norm-study groups": f"{SIZES} --predictions 40 {PROBES} --group-counts 1,4",
    "norm-study batchnorm": f"{SIZES} --predictions 40 --calibration 4",
    "norm-study unet": "--length 24 --dim 8 --kernel 3 --batch 2 --steps 2 --predictions 40",
    "norm-study bench": "--steps 2 --networks 2 --repeats 1",
    "norm-study init-bias": "--inits 8 --points 20 --width 16",
    "norm-study report docs/localization": "",
    "planner animate": "",
    "norm-study init-bias-training": "--networks 2 --steps 4 --depth 2",
}
# Commands that take longer even so: scripts/check --all executes them, on a tiny run for every run they name.
SUITE = (
    "--preset tiny.yaml --norms group --paddings zeros --reaches half --seeds 1 --horizons 1,4 --episodes 1 "
    "--best-of 1 --best-of-episodes 1 --jobs 1 --out suite --runs-folder suite/runs"
)
LONG = {
    "planner sweep --dry-run": f"--data.dataset {HASH} --out sweep",
    "planner sweep": f"--data.dataset {HASH} --data.horizon 32 --data.stride 4 --model.dim 8 --diffusion.train-steps 4 "
    "--diffusion.sampling-steps 1 --batch-size 4 --steps 4 --evaluate-every 0 --seeds 1 --episodes 1 --horizons 1 "
    "--jobs 1 --out sweep",
    "planner samplers": "--tasks demonstrated --samplers ddim --steps 1,2 --episodes 1 --out samplers",
    "planner denoise": "--windows 8 --levels 0.5 --out denoise",
    "planner bench": f"--data.dataset {HASH} --data.stride 4 --model.dim 8 --diffusion.train_steps 4 --episodes 2 "
    "--diffusion.sampling_steps 1 --batch_size 4 --repeats 1 --bench-steps 1 --json bench.json",
    "maze-data references": "umaze --episodes 2",
    "norm-study stitch --suite factors": f"{SUITE} --dataset {HASH}",
    "norm-study stitch --suite dose": f"{SUITE} --windows 1,4 --dataset {HASH}".replace(
        "--norms group --paddings zeros ", ""
    ),
    "norm-study stitch --suite chances": f"{SUITE} --changes noise --dataset {HASH}".replace(
        "--paddings zeros --reaches half ", ""
    ),
    "norm-study cause": "--horizons 1 --episodes 2 --decoded-plans 4 --jobs 1 --out cause",
    "norm-study closed-loop": "--horizons 4 --episodes 1 --replan-every 20 --sampling-steps 1 --best-of 2 --resample 1 "
    "--jobs 1 --out loop",
    "norm-study stitch --suite fix": "--steps 2 --every 1 --horizons 1,4 --episodes 1 --best-of 1 --out fix "
    "--runs-folder fix/runs",
    "norm-study init-bias-unet": f"--preset tiny.yaml --dataset {HASH} --norms group --inits 2 --windows 2 "
    "--loss-steps 2",
    "norm-study init-bias-bench": "--depth 2 --width 8 --inits 4 --points 20 --dimensions 40 --repeats 1",
    "maze-data convert": "",
    "norm-study audit --factory": "--times 4 --projections 1 --redraws 1 --no-attribution",
    "norm-study leakage": "--stitching study --runs-folder study/runs --times 4",
    "norm-study report runs/quickstart": "--out page.html",
    "norm-study report docs": "--out page.html",
    "norm-study reproduce": "--out localization --full-rows full/rows",
}
# Commands that the tutorial executes, at its sizes; elsewhere they are documented at others.
IN_THE_TUTORIAL = (
    "maze-data collect",
    "maze-data list",
    "maze-data show",
    "planner train",
    "planner show",
    "planner plan",
    "planner rollout",
    "planner compare",
    "norm-study stitch",
    "norm-study audit",
    "tensorboard --logdir",
    ".venv/bin/tensorboard --logdir",
)
# Scripts that take longer even so: scripts/check --all executes them with these arguments in place of their own.
SCRIPTS = {
    "scripts/reproduce": ["--smoke", "OUT"],
    "scripts/init_bias": ["--smoke", "OUT"],
    "scripts/audit": ["--smoke", "OUT"],
    "scripts/screenshots": ["page.html", "OUT"],
}
# A reader's own packages, by the names that the docs give them.
NETWORK = "from torch import nn\ndef function():\n    return nn.Conv1d(6, 6, 3, padding=1)\n"
DENOISER = """
from torch import nn
class Denoiser(nn.Conv1d):
    def forward(self, sample, level):
        return super().forward(sample) * level[:, None, None]
def make_denoiser():
    return Denoiser(6, 6, 3, padding=1)
"""
# Commands that go to the Hub: tests/test_hub.py and tests/test_minari.py execute them against a stand-in.
TO_THE_HUB = ("planner push", "maze-data push")
# What scripts/check does besides running these tests.
THE_CHECK = ("scripts/check", "scripts/install", "scripts/quickstart")


@dataclass(frozen=True)
class Command:
    """One documented command line.

    Attributes:
        page: where it stands.
        words: as the shell passes them on; assignments before the program left out.
        whole: whether it stands in a block of code; a name within a sentence may leave out what is required.
    """

    page: Path
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"

    def is_like(self, pattern: str) -> bool:
        """Whether it is of this program and subcommand and has the pattern's options."""
        length = 1 if pattern.startswith("scripts/") else 2
        first, rest = pattern.split()[:length], pattern.split()[length:]
        return list(self.words[: len(first)]) == first and set(rest) <= set(self.words)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Fenced blocks as (language, text); the language of a bare fence is empty."""
    return FENCED.findall(page.read_text(encoding="utf-8"))


def split_lines(text: str) -> list[list[str]]:
    """Our command lines in a block, without comments and assignments before the program."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words(line) for line in lines if OURS.match(line)]


def words(line: str) -> list[str]:
    """What the shell passes on."""
    split = shlex.split(line, comments=True)
    while split and re.match(r"[A-Z_]+=", split[0]):
        split = split[1:]
    return split


def documented() -> list[Command]:
    found: dict[Command, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in blocks(page):
            if language in ("", "bash"):
                found |= {Command(page, tuple(line), True): None for line in split_lines(block)}
        prose = re.sub(FENCED, "", text)
        for quoted in re.findall(r"`([^`]+)`", prose):
            if OURS.match(quoted):
                found[Command(page, tuple(words(quoted.replace("\n", " "))), False)] = None
    return list(found)


COMMANDS = documented()


def read(command: Command) -> None:
    """Has the command's own parser, presets and settings read the words; raises if one of them refuses."""
    program_name, *arguments = command.words
    if program_name in OTHER_PROGRAMS:
        return
    if program_name.startswith("scripts/"):
        text = (ROOT / program_name).read_text(encoding="utf-8")
        assert os.access(ROOT / program_name, os.X_OK)
        assert all(word in text for word in arguments if word.startswith("--"))
        return
    if not command.whole and len(arguments) == 1 and not arguments[0].startswith("-"):
        arguments = [*arguments, "--help"]  # the subcommand's name alone
    _, settings = PROGRAMS[program_name].read(arguments)
    match arguments[0]:
        case "collect" if not settings[0].map.endswith(".txt"):
            get_map(settings[0].map)
        case "stitch":
            load_preset(settings[0].preset)


def refusal(command: Command) -> str | None:
    """Why the command cannot be run as it is documented."""
    try:
        read(command)
    except SystemExit as stop:
        return f"exit code {stop.code}" if stop.code else None  # --help ends with 0
    except (UserError, AssertionError, OSError) as error:
        return str(error) or "no such option"
    return None


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_read_by_its_own_parser(command):
    assert refusal(command) is None


@pytest.mark.parametrize(
    "line",
    [
        "planner train hash --modle.norm none",
        "planner train hsah",
        "planner train hash --model.norm nnoe",
        "planner plan runs/x --start=-4,2",
        "norm-study localize --kernel 4",
        "norm-study stitch --suite factros",
        "maze-data collect hsah",
        "scripts/check --al1",
        "scripts/chekc",
    ],
)
def test_a_mistake_in_a_documented_command_is_found(line):
    assert refusal(Command(TUTORIAL, tuple(line.split()), True))


def test_each_documented_command_is_executed_somewhere():
    known = [*REDUCED, *LONG, *IN_THE_TUTORIAL, *SCRIPTS, *TO_THE_HUB, *THE_CHECK]
    for command in COMMANDS:
        named = not command.whole and any(pattern.split()[:2] == list(command.words) for pattern in known)
        like = any(command.is_like(pattern) for pattern in known)
        assert named or like or "--help" in command.words, str(command)
    tutorial = [command for command in COMMANDS if command.page == TUTORIAL and command.whole]
    for pattern in IN_THE_TUTORIAL:
        assert pattern.startswith(".venv/") or any(command.is_like(pattern) for command in tutorial), pattern
    for pattern in (*REDUCED, *LONG, *SCRIPTS):
        assert any(command.is_like(pattern) for command in COMMANDS), pattern


def draws_anew(command: Command) -> bool:
    """Whether it makes committed tables out of committed rows."""
    return command.is_like("norm-study stitch --suite factors") and any(w.startswith("docs/") for w in command.words)


def executed(small: dict[str, str]) -> list[tuple[str, Command]]:
    """Documented commands that ``small`` has options for; those in a sentence only where there are no whole ones."""
    found = []
    for pattern in small:
        like = [command for command in COMMANDS if command.is_like(pattern) and not draws_anew(command)]
        found += [(pattern, command) for command in ([it for it in like if it.whole] or like)]
    return found


def run(line: Sequence[str], errors: Callable[[], str]) -> None:
    """Runs one of the console commands in this process, which saves seconds of imports each time."""
    try:
        code = run_command(MAINS[line[0]], line[1:])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 0, f"{shlex.join(line)}: {errors()}"


@pytest.mark.parametrize(("pattern", "documented"), executed(REDUCED), ids=str)
def test_a_short_command_runs_at_a_reduced_size(pattern, documented, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run([*documented.words, *REDUCED[pattern].split()], lambda: capsys.readouterr().err)


@pytest.mark.parametrize("documented", {it.words: it for it in COMMANDS if draws_anew(it)}.values(), ids=str)
def test_committed_tables_are_what_their_command_makes_of_the_committed_rows(documented, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", list(documented.words))  # the page names its command
    out = Path(documented.words[documented.words.index("--out") + 1])
    shutil.copytree(ROOT / out / "rows", out / "rows")
    run(documented.words, lambda: capsys.readouterr().err)
    assert (out / "tables.md").read_text() == (ROOT / out / "tables.md").read_text()
    assert (out / "headline.png").stat().st_size > 0


def lay_out(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts into the current folder what the command wants to find, other than runs."""
    match pattern:
        case "norm-study report docs":  # the only one that reads there; others write
            Path("docs").symlink_to(ROOT / "docs")
        case "planner sweep" | "planner sweep --dry-run":
            Path("configs").symlink_to(ROOT / "configs")
        case "planner denoise":  # of runs that saw unknown ends
            config = from_dict(merge(TINY, {"diffusion": {"drop_ends": 0.5}}))
            for link in [path for path in Path("runs").rglob("*") if path.is_symlink()]:
                link.unlink()
                train(config, link, "cpu", progress=False)
        case "maze-data convert":
            write_d4rl(Path("maze2d-umaze-sparse-v1.hdf5"), d4rl_stream())
            write_ogbench(Path("pointmaze-medium-stitch-v0.npz"))
            monkeypatch.setenv("MINARI_DATASETS_PATH", str(Path("data").resolve()))
        case "norm-study leakage":
            write_grid(Path("study"), Path("study/runs"), Path("runs/tiny").resolve(), multiple=2)
        case "norm-study audit --factory":
            for file, text in (("my_package/models.py", DENOISER), ("package/module.py", NETWORK)):
                Path(file).parent.mkdir()
                Path(file).write_text(text)
            monkeypatch.syspath_prepend(str(Path.cwd()))
        case "norm-study reproduce":
            sizes = "{inits: 8, points: 20, width: 16}"
            init = f"- {{name: init, experiment: init-bias, budgets: [full], seeds: [0], sizes: {sizes}}}"
            Path("parts.yaml").write_text(TINY_PARTS + init)
            monkeypatch.setattr("norm_study.reproduce.results.parts_file", lambda: Path("parts.yaml"))
            run(["norm-study", "reproduce", "--budget", "full", "--out", "full"], str)


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "documented"), executed(LONG), ids=str)
def test_a_long_command_runs_at_a_reduced_size(pattern, documented, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    for name in ("runs/tiny", *documented.words):
        if name.startswith("runs/") and not name.endswith(".json"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).symlink_to(tiny_run)
    lay_out(pattern, monkeypatch)
    line = [*documented.words, *LONG[pattern].split()]
    if "--stored-only" in line:
        run([word for word in line if word != "--stored-only"], lambda: capsys.readouterr().err)
    run(line, lambda: capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs(script, tiny_run, tmp_path, monkeypatch, capsys):
    if script == "scripts/screenshots":
        if missing():
            pytest.skip(missing())
        run(
            ["norm-study", "report", str(tiny_run), "--out", str(tmp_path / "page.html")],
            lambda: capsys.readouterr().err,
        )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    arguments = [str(tmp_path / word) if not word.startswith("-") else word for word in SCRIPTS[script]]
    done = subprocess.run([ROOT / script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "OUT").rglob("*.png"))


# the tutorial


def tensorboard_layout(folder: str) -> list[str]:
    """Starts a real TensorBoard on a folder; the titles of the charts that its custom scalars page offers."""
    server = program.TensorBoard()
    server.configure(
        argv=["tensorboard", "--logdir", folder, "--port", "0", "--load_fast", "false", "--reload_interval", "0"]
    )
    address = server.launch() + "data/plugin/custom_scalars/layout"
    for _ in range(100):
        with urllib.request.urlopen(address, timeout=10) as answer:
            found = json.loads(answer.read())
        if found:
            return [chart["title"] for category in found["category"] for chart in category["chart"]]
        time.sleep(0.1)
    raise AssertionError("TensorBoard shows no layout")


@pytest.mark.timeout(900)  # a minute of one core, but of a core that is shared
def test_the_tutorial_runs_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    namespace: dict[str, object] = {"__name__": "tutorial"}
    for language, text in blocks(TUTORIAL):
        if language == "python":
            exec(compile(text, str(TUTORIAL), "exec"), namespace)
            continue
        assert language == "bash"
        for line in text.replace("\\\n", " ").splitlines():
            match shlex.split(line, comments=True):
                case ["export", assignment]:
                    name, _, value = assignment.partition("=")
                    monkeypatch.setenv(name, os.path.expandvars(value))
                case ["cd", folder]:
                    monkeypatch.chdir(folder)
                    monkeypatch.setenv("PWD", os.getcwd())
                case ["tensorboard", "--logdir", folder]:
                    assert "loss" in tensorboard_layout(folder)
                case [name, *_] as whole if name in MAINS:
                    run(whole, lambda: capsys.readouterr().err)
                case []:
                    pass
                case _:
                    subprocess.run(["bash", "-euc", line], check=True, timeout=20)
    names = (
        "data.png",
        "plan.png",
        "plan.gif",
        "rollout.json",
        "stitch.json",
        "audit/audit.html",
        "runs/comparison/report.html",
        "runs/pendulum/DONE",
        "pendulum.json",
    )
    for name in names:
        assert Path(name).stat().st_size > 0 or name.endswith("DONE"), name


# Python elsewhere


def python_of(page: Path) -> list[str]:
    return [text for language, text in blocks(page) if language == "python"]


class _OfImages(torch.nn.Module):
    """A reader's denoiser of images."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images, level):
        return self.conv(images) + level


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != TUTORIAL and python_of(page)], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page, tiny_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tiny_run)
    monkeypatch.chdir(tmp_path)
    network = TemporalUNet(transition_dim=4, dim=8, dim_mults=(1,), kernel_size=3, norm="group", norm_groups=4)
    names = {"network": network, "trajectory": torch.randn(1, 4, 48), "noise_level": torch.tensor([3])}
    package = types.ModuleType("my_package")
    package.make_network = lambda: torch.nn.Conv1d(3, 3, 3, padding=1)
    monkeypatch.setitem(sys.modules, "my_package", package)
    names |= {"unet": _OfImages(), "images": torch.randn(1, 1, 24, 24), "level": torch.tensor([3]), "batches": []}
    for text in python_of(page):
        exec(compile(text, str(page), "exec"), names)


def test_arguments_of_a_command_are_what_the_shell_would_pass():
    text = "A=b planner plan runs/x \\\n  --start=-4,2 --title 'two words'   # a comment\n\n# nothing\nenvs/  it's\n"
    assert split_lines(text) == [["planner", "plan", "runs/x", "--start=-4,2", "--title", "two words"]]
