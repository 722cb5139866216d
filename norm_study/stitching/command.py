"""``norm-study stitch``: measure trained runs, or train and measure a grid of them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.tables import interval_text
from norm_study.options import add_device, add_json, list_of
from norm_study.stitching.fix import fix_rows, write_fix
from norm_study.stitching.grid import Budget, Grid, answered_runs, run_grid
from norm_study.stitching.intervention import InterventionSettings, intervention_rows
from norm_study.stitching.measurement import GAP_MEASURES, StitchSettings, example_plans, stitch_rows, summarize
from norm_study.stitching.options import add_cells, grid_from
from norm_study.stitching.rates import RateSettings, choose_rates, read_rates
from norm_study.stitching.tables import write_study
from planner.norms import ISOLATED, NORM_KINDS
from planner.training.run import find_run
from planner.unet import PaddingMode

FIX_STEPS = 2000
QUICK_STEPS, QUICK_MULTIPLES, QUICK_EPISODES = 3000, (1, 2), 4
OUT = {"full": Path("runs/stitching"), "quick": Path("runs/stitching-quick")}


def add_stitch(commands: Any) -> None:
    """Adds the subcommand."""
    stitch = commands.add_parser(
        "stitch",
        help="what compositionality a planner's norm leaves",
        description="Measures trained runs (--run), or trains and measures one planner per cell of a grid (--suite).",
    )
    stitch.add_argument(
        "--run", action="append", metavar="RUN", help="a finished run folder, or a shipped planner; may be given again"
    )
    stitch.add_argument(
        "--suite",
        choices=("factors", "rates", "fix"),
        help="factors: train and measure norms x paddings x fields x seeds; rates: choose each norm's "
        "learning rate on demonstrated tasks; fix: exchange the norm of the runs given by --from, "
        "fine-tune and measure on the way",
    )
    stitch.add_argument(
        "--horizons", type=list_of(int), default=(1, 2, 4), metavar="A,B", help="multiples of the training horizon"
    )
    stitch.add_argument("--episodes", type=int, default=10, metavar="INT", help="per task")
    stitch.add_argument("--best-of", type=int, default=16, metavar="INT", help="plans per problem; 1: leave out")
    stitch.add_argument(
        "--best-of-episodes", type=int, default=2, metavar="INT", help="episodes per task that are planned that often"
    )
    stitch.add_argument("--seed", type=int, default=0, metavar="INT", help="of starts, goals and plans")
    add_json(stitch)
    add_device(stitch)
    suite = stitch.add_argument_group("with --suite")
    suite.add_argument(
        "--budget",
        choices=("quick", "full"),
        default="full",
        help="quick: every norm, one padding, one receptive field, one seed, 3000 steps, few episodes "
        "at 1 and 2 times the horizon, no best of N",
    )
    add_cells(suite)
    suite.add_argument("--preset", default="stitch", help="a YAML file or a shipped name")
    suite.add_argument("--dataset", metavar="ID", help="Minari's id of the data (default: the preset's)")
    suite.add_argument("--steps", type=int, metavar="INT", help="optimizer steps per run (default: the preset's)")
    suite.add_argument(
        "--rates-from",
        type=Path,
        metavar="FILE",
        help="rates.json of --suite rates (default: the preset's rate for every norm)",
    )
    suite.add_argument(
        "--rates",
        type=list_of(float),
        default=RateSettings.rates,
        metavar="A,B",
        help="with --suite rates: Adam's peak learning rates to try",
    )
    suite.add_argument("--jobs", type=int, default=2, metavar="INT", help="runs at a time, one thread each")
    suite.add_argument(
        "--stored-only",
        action="store_true",
        help="with --suite factors: tables and figures of what is stored; train nothing",
    )
    suite.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"rows, tables and figures (default: {OUT['full']}; quick: {OUT['quick']})",
    )
    suite.add_argument(
        "--runs-folder", type=Path, metavar="FOLDER", help="run folders (default: runs in the default of --out)"
    )

    fix = stitch.add_argument_group("with --suite fix")
    fix.add_argument("--from", dest="sources", action="append", metavar="RUN", help="as --run; may be given again")
    fix.add_argument(
        "--to",
        choices=tuple(norm for norm in NORM_KINDS if norm not in ISOLATED),
        default="channel",
        help="the norm that replaces theirs",
    )
    fix.add_argument("--every", type=int, default=500, metavar="INT", help="steps between measurements")


def run_stitch(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Runs the subcommand; returns the result for ``--json``, or ``None`` after a suite.

    Raises:
        UserError: neither or both of ``--run`` and ``--suite``, or settings out of range.
    """
    if bool(arguments.run) == bool(arguments.suite):
        raise UserError("stitch needs either --run RUN or --suite factors|rates|fix")
    if arguments.suite and arguments.json:
        raise UserError("--json goes with --run; a suite writes to --out")
    if arguments.steps is not None and arguments.steps < 1:
        raise UserError(f"steps = {arguments.steps} must be at least 1")
    settings = StitchSettings(
        arguments.horizons, arguments.episodes, arguments.best_of, arguments.best_of_episodes, arguments.seed
    )
    if arguments.run:
        return _measure(arguments.run, settings, arguments.device)
    if arguments.suite == "fix":
        _fix(arguments, settings)
        return None
    if arguments.jobs < 1:
        raise UserError(f"jobs = {arguments.jobs} must be at least 1")
    started = time.perf_counter()
    budget = Budget(arguments.preset, arguments.steps, arguments.dataset)
    out, runs_folder = _folders(arguments)
    at_once = {"jobs": arguments.jobs, "runs_folder": runs_folder}
    if arguments.suite == "rates":
        tried = RateSettings(arguments.norms, arguments.rates, arguments.episodes)
        for norm, rate in choose_rates(tried, budget, out, **at_once).items():
            print(f"{norm}: {rate:g}")
    else:
        grid = _grid(arguments)
        if arguments.budget == "quick":
            settings = replace(settings, multiples=QUICK_MULTIPLES, episodes=QUICK_EPISODES, best_of=1)
            budget = replace(budget, steps=budget.steps or QUICK_STEPS)
        if arguments.rates_from:
            budget = replace(budget, rates=read_rates(arguments.rates_from))
        if not arguments.stored_only:
            run_grid(grid, out, settings, budget, **at_once)
        stored = answered_runs(out, grid, settings, budget)
        if not stored:
            raise UserError(f"out = {out} holds no run of this grid and these settings; leave out --stored-only")
        print(write_study(stored, len(grid.runs()), out, _this_command()))
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")
    return None


def _folders(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Where rows and where runs go; a quick study has folders of its own, since its runs are not those of the grid."""
    place = OUT[arguments.budget]
    return arguments.out or place, arguments.runs_folder or place / "runs"


def _fix(arguments: argparse.Namespace, settings: StitchSettings) -> None:
    if not arguments.sources:
        raise UserError("stitch --suite fix needs --from RUN")
    steps, every = arguments.steps or FIX_STEPS, arguments.every
    if every < 1 or steps < every:
        raise UserError(f"every = {every} must be from 1 to steps = {steps}")
    out, runs_folder = _folders(arguments)
    rows = [
        row
        for source in arguments.sources
        for row in fix_rows(source, arguments.to, steps, every, settings, runs_folder, arguments.device)
    ]
    print(write_fix(rows, out, _this_command()))


def _this_command() -> str:
    """The command line, for the page that it makes."""
    return shlex.join(["norm-study", *sys.argv[1:]])


def _grid(arguments: argparse.Namespace) -> Grid:
    if arguments.budget == "quick":
        paddings: tuple[PaddingMode, ...] = ("zeros",)
        return Grid(norms=arguments.norms, paddings=paddings, fields=("half",), seeds=1)
    return grid_from(arguments)


def _measure(runs: list[str], settings: StitchSettings, device: str) -> dict[str, Any]:
    """Measures finished runs: ``{"config", "rows", "summary", "intervention", "facts", "plans"}``."""
    started = time.perf_counter()
    configs = {replace(find_run(run).config(), seed=0) for run in runs}
    if len(configs) > 1 or len({Path(run).name for run in runs}) < len(runs):
        raise UserError("--run: give runs that differ in their seed alone, each with a name of its own")
    rows = [row for run in runs for row in stitch_rows(run, settings, device)]
    moved = [row for run in runs for row in intervention_rows(run, InterventionSettings(), device)]
    names = [Path(run).name for run in runs]
    about = {"runs": names, **asdict(settings), "intervention": asdict(InterventionSettings())}
    config = {**about, "torch": torch.__version__, "seconds": round(time.perf_counter() - started, 1)}
    facts = [_facts(run) for run in runs]
    return {
        "config": config,
        "rows": rows,
        "summary": summarize(rows),
        "intervention": moved,
        "facts": facts,
        "plans": [example_plans(run, max(settings.multiples), device=device) for run in runs],
    }


def _facts(run: str) -> dict[str, Any]:
    """What a run cost and how large it is."""
    folder = find_run(run)
    config, network, metrics = folder.config(), folder.load_network(), folder.metrics()
    rates = sorted(row["steps_per_second"] for row in metrics)
    begins = [0, *(row["step"] for row in metrics)]
    last = metrics[-5:]
    return {
        "run": folder.path.name,
        "norm": config.model.norm,
        "seed": config.seed,
        "steps": config.steps,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "reach": list(network.receptive_field()),
        "training_seconds": round(
            sum((row["step"] - begin) / row["steps_per_second"] for begin, row in zip(begins, metrics, strict=False)), 1
        ),
        "steps_per_second": rates[len(rates) // 2] if rates else None,
        "final_loss": sum(row["loss"] for row in last) / len(last) if last else None,
        "largest_mean_gradient": max((row["gradient_norm"] for row in metrics), default=None),
    }


def print_summary(summary: dict[str, Any]) -> None:
    """The table that a person reads."""
    for multiple, splits in summary["by_horizon"].items():
        for split, measures in splits.items():
            cells = ", ".join(f"{name} {interval_text(measures[name], '.3g')}" for name in GAP_MEASURES)
            print(f"{multiple}x {split.replace('_', ' ')}: {cells}")


def emit_stitch(result: dict[str, Any], to: str | None) -> None:
    """Writes the whole result where ``--json`` says, and prints the summary."""
    text = json.dumps(result, allow_nan=False)
    if to == "-":
        print(text)
        return
    if to is not None:
        write_atomically(Path(to), text + "\n")
    print_summary(result["summary"])
