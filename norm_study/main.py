"""The console command ``norm-study``: the paper's experiments, one by one or all of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from groundwork.command_line import OneLineParser, run_command
from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.tables import interval_text
from norm_study.audit.command import add_audit, readable, run_audit
from norm_study.init_bias.bench import InitBiasBenchConfig, run_init_bias_bench
from norm_study.localization.bench import BenchConfig, run_bench
from norm_study.options import (
    add_device,
    add_options,
    add_run_options,
    config_from,
    seeds_from,
)
from norm_study.report.command import add_report, run_report
from norm_study.reproduce.experiments import EXPERIMENTS, run_experiment
from norm_study.reproduce.parts import full_rows_folder
from norm_study.reproduce.results import reproduce
from norm_study.stitching.command import add_stitch, emit_stitch, run_stitch
from norm_study.stitching.leakage import add_leakage, run_leakage
from planner.plan import pick_device

BENCHES: dict[str, tuple[str, type, Callable[[Any, torch.device], dict[str, Any]]]] = {
    "bench": ("one stacked training against one by one", BenchConfig, run_bench),
    "init-bias-bench": ("untrained networks at once against one by one", InitBiasBenchConfig, run_init_bias_bench),
}


def parser() -> argparse.ArgumentParser:
    """All subcommands with their options."""
    top = OneLineParser(prog="norm-study", description="What normalization layers tell through time.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, experiment in EXPERIMENTS.items():
        command = commands.add_parser(name, help=experiment.help, description=experiment.config.__doc__)
        add_options(command, experiment.config)
        add_run_options(command, seeds=1)
    for name, (text, config, run) in BENCHES.items():
        bench = commands.add_parser(name, help=text, description=run.__doc__)
        add_options(bench, config)
        add_device(bench)
        bench.add_argument("--json", metavar="FILE", help="write the measurement there; - for standard output")
    add_stitch(commands)
    add_audit(commands)
    add_leakage(commands)
    add_report(commands)
    whole = commands.add_parser(
        "reproduce",
        help="everything, with a verdict per claim",
        description="Runs all parts, resumes where it was stopped, writes rows, figures, claims and a page.",
    )
    whole.add_argument(
        "--budget",
        choices=("quick", "full"),
        default="quick",
        help="quick takes the slowest parts from the committed full rows",
    )
    whole.add_argument(
        "--out", type=Path, default=Path("runs/localization"), metavar="FOLDER", help="where the results go"
    )
    whole.add_argument(
        "--full-rows",
        type=Path,
        default=full_rows_folder(),
        metavar="FOLDER",
        help="the committed rows of the full budget",
    )
    whole.add_argument(
        "--jobs", type=int, default=2, metavar="INT", help="experiments at a time on a CPU, one thread each"
    )
    whole.add_argument(
        "--only",
        default="",
        metavar="PREFIX",
        help="run the parts whose names begin so; the page shows whatever is finished",
    )
    add_device(whole)
    return top


def emit(result: dict[str, Any], to: str | None, summary: str | None = None) -> None:
    """Prints the summary, in a text of its own if there is one, and writes the result where ``--json`` says."""
    text = json.dumps(result, allow_nan=False, indent=None)
    if to == "-":
        print(text)
        return
    if to is not None:
        write_atomically(Path(to), text + "\n")
    if summary is not None:
        print(summary)
        return
    for key, value in result["summary"].items():
        print(f"{key}: {_readable(value)}")


def _readable(value: Any) -> str:
    if isinstance(value, dict) and "mean" in value:
        return f"{interval_text(value, '.4g')} (n = {value['n']})"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "".join("\n  " + ", ".join(f"{k} {_readable(v)}" for k, v in entry.items()) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(argv: Sequence[str] | None) -> None:
    """Runs one subcommand."""
    arguments = parser().parse_args(argv)
    if arguments.command == "reproduce":
        if arguments.jobs < 1:
            raise UserError(f"jobs = {arguments.jobs} must be at least 1")
        device = pick_device(arguments.device)
        reproduce(arguments.budget, arguments.out, arguments.full_rows, device, arguments.only, arguments.jobs)
    elif arguments.command == "stitch":
        result = run_stitch(arguments)
        if result is not None:
            emit_stitch(result, arguments.json)
    elif arguments.command in BENCHES:
        _, bench_config, run = BENCHES[arguments.command]
        emit(run(config_from(bench_config, arguments), pick_device(arguments.device)), arguments.json)
    elif arguments.command == "audit":
        result = run_audit(arguments)
        emit(result, arguments.json, readable(result))
    elif arguments.command == "report":
        print(f"page: {run_report(arguments)}")
    elif arguments.command == "leakage":
        result = run_leakage(arguments)
        emit(result, arguments.json)
    else:
        config = config_from(EXPERIMENTS[arguments.command].config, arguments)
        seeds, device = seeds_from(arguments), pick_device(arguments.device)
        emit(run_experiment(arguments.command, config, seeds, device), arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
