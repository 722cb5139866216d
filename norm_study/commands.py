"""What the subcommands of ``norm-study`` do with their settings; those of a wing's own stand there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from groundwork.options import Settings
from groundwork.program import Compute, Jobs, JsonOutput, Seeds, command_line
from groundwork.tables import interval_text
from norm_study.reproduce import results
from norm_study.reproduce.experiments import run_experiment
from norm_study.reproduce.parts import full_rows_folder
from norm_study.reproduce.settings import ReproduceSettings
from norm_study.stitching.cells import Grid
from norm_study.stitching.leakage import run_leakage
from norm_study.stitching.settings import LeakageSettings
from planner.device import pick_device


def experiment(name: str, config: Settings, seeds: Seeds, compute: Compute, output: JsonOutput) -> None:
    """Runs one experiment."""
    emit(run_experiment(name, config, seeds.all, pick_device(compute.device)), output)


def bench(run: Callable[..., dict[str, Any]], config: Settings, compute: Compute, output: JsonOutput) -> None:
    """Times what ``run`` times."""
    emit(run(config, pick_device(compute.device)), output)


def leakage(settings: LeakageSettings, grid: Grid, jobs: Jobs, compute: Compute, output: JsonOutput) -> None:
    """Audits the stitching study's planners."""
    executor, command = jobs.run_in(settings.stitching), command_line()
    emit(run_leakage(settings, grid.runs(), executor, compute.device, command=command), output)


def reproduce(settings: ReproduceSettings, jobs: Jobs, compute: Compute) -> None:
    """Runs everything, with a verdict per claim."""
    full_rows, device = settings.full_rows or full_rows_folder(), pick_device(compute.device)
    results.reproduce(settings.budget, settings.out, full_rows, device, settings.only, jobs.run_in(settings.out))


def emit(result: dict[str, Any], output: JsonOutput) -> None:
    """Writes the result where it is wanted, and prints the summary."""
    if output.write(result):
        for key, value in result["summary"].items():
            print(f"{key}: {_readable(value)}")


def _readable(value: Any) -> str:
    if isinstance(value, dict) and "mean" in value:
        return f"{interval_text(value, '.4g')} (n = {value['n']})"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "".join("\n  " + ", ".join(f"{k} {_readable(v)}" for k, v in entry.items()) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
