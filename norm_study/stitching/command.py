"""``norm-study stitch``: measure trained runs, or train and measure a grid of them."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.errors import UserError
from groundwork.options import part_of
from groundwork.program import Compute, JsonOutput, command_line
from norm_study.stitching.fix import fix_rows, write_fix
from norm_study.stitching.grid import Budget, answered_runs, run_grid
from norm_study.stitching.intervention import InterventionSettings, intervention_rows
from norm_study.stitching.measurement import example_plans, stitch_rows
from norm_study.stitching.rates import choose_rates, read_rates
from norm_study.stitching.settings import RateSettings, StitchOptions, StitchSettings
from norm_study.stitching.summary import GAP_MEASURES, MEASURES, summarize
from norm_study.stitching.tables import write_study
from planner.training.run import find_run

FIX_STEPS = 2000


def stitch(options: StitchOptions, output: JsonOutput, compute: Compute) -> None:
    """Measures finished runs, or trains and measures a suite.

    Raises:
        UserError: settings that do not go together.
    """
    if options.runs_measured:
        result = _measure(list(options.runs_measured), options.settings, compute.device)
        if output.write(result):
            print_summary(result["summary"])
        return
    if output.json:
        raise UserError("--json goes with RUN …; a suite writes to --out")
    started = time.perf_counter()
    {"factors": _factors, "rates": _rates, "fix": _fix}[options.suite or ""](options, compute)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")


def _budget(options: StitchOptions) -> Budget:
    rates = read_rates(options.rates_from) if options.rates_from else {}
    return Budget(options.preset, options.steps, options.dataset, rates)


def _rates(options: StitchOptions, _: Compute) -> None:
    out, runs_folder = options.folders
    tried = part_of(RateSettings, options)
    for norm, rate in choose_rates(tried, _budget(options), out, jobs=options.jobs, runs_folder=runs_folder).items():
        print(f"{norm}: {rate:g}")


def _factors(options: StitchOptions, _: Compute) -> None:
    grid, settings, budget = options.grid, options.settings, _budget(options)
    out, runs_folder = options.folders
    if not options.stored_only:
        run_grid(grid, out, settings, budget, jobs=options.jobs, runs_folder=runs_folder)
    stored = answered_runs(out, grid, settings, budget)
    if not stored:
        raise UserError(f"out = {out} holds no run of this grid and these settings; leave out --stored-only")
    print(write_study(stored, len(grid.runs()), out, command_line()))


def _fix(options: StitchOptions, compute: Compute) -> None:
    if not options.sources:
        raise UserError("stitch --suite fix needs --from RUN")
    steps, every = options.steps or FIX_STEPS, options.every
    if steps < every:
        raise UserError(f"every = {every} must be from 1 to steps = {steps}")
    out, runs_folder = options.folders
    rows = [
        row
        for source in options.sources
        for row in fix_rows(source, options.to, steps, every, options.settings, runs_folder, compute.device)
    ]
    print(write_fix(rows, out, command_line()))


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
            cells = ", ".join(f"{name} {MEASURES[name].text(measures[name])}" for name in GAP_MEASURES)
            print(f"{multiple}x {split.replace('_', ' ')}: {cells}")
