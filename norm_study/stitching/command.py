"""``norm-study stitch``: measure trained runs, or train and measure a grid of them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from groundwork.errors import UserError
from groundwork.jobs import Job
from groundwork.options import part_of
from groundwork.program import Compute, JsonOutput, command_line
from norm_study.stitching.cells import FactorRun
from norm_study.stitching.chances import chance_question, chances_in, chances_of, found_chances, write_chances
from norm_study.stitching.dose import write_dose
from norm_study.stitching.fix import Fix, fix_rows, write_fix
from norm_study.stitching.grid import Budget, Stored, answered_runs, answers_in, train_and_measure
from norm_study.stitching.leakage import run_leakage, stored_audits
from norm_study.stitching.rates import choose_rates, read_rates
from norm_study.stitching.result import measure
from norm_study.stitching.settings import LeakageSettings, RateSettings, StitchOptions
from norm_study.stitching.summary import GAP_MEASURES, MEASURES
from norm_study.stitching.tables import write_study
from planner.config import Config, from_dict, load_preset, merge
from planner.training.train import train_job

FIX_STEPS = 2000


def stitch(options: StitchOptions, output: JsonOutput, compute: Compute) -> None:
    """Measures finished runs, or trains and measures a suite.

    Raises:
        UserError: settings that do not go together.
    """
    if options.runs_measured:
        result = measure(options.runs_measured, options.settings, compute.device)
        if output.write(result):
            print_summary(result["summary"])
        return
    if output.json:
        raise UserError("--json goes with RUN …; a suite writes to --out")
    started = time.perf_counter()
    suites = {"factors": _factors, "dose": _dose, "chances": _chances, "rates": _rates, "fix": _fix}
    suites[options.suite or ""](options, compute)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")


def _base(options: StitchOptions) -> Config:
    """The settings that all runs of a suite share."""
    given: dict[str, Any] = {"steps": options.steps} if options.steps else {}
    data = {"data": {"dataset": options.dataset}} if options.dataset else {}
    return from_dict(merge(load_preset(options.preset), given | data))


def _rates(options: StitchOptions, compute: Compute) -> None:
    tried, (out, runs_folder) = part_of(RateSettings, options), options.folders
    for norm, rate in choose_rates(
        tried, _base(options), out, options.run_in(out), runs_folder, compute.device
    ).items():
        print(f"{norm}: {rate:g}")


def _trained(options: StitchOptions, compute: Compute) -> tuple[Stored, Budget]:
    """The runs of a grid, first trained and measured unless only stored ones are wanted."""
    runs, (out, runs_folder) = options.grid.runs(), options.folders
    rates = read_rates(options.rates_from) if options.rates_from else {}
    budget = Budget(_base(options), options.settings, rates)
    if not options.stored_only:
        asked = {runs_folder / run.name: budget.question(run) for run in runs}
        train_and_measure(answers_in(out), asked, options.run_in(out), "stitching grid", compute.device)
    stored = answered_runs(out, runs, budget)
    if not stored:
        raise UserError(f"out = {out} holds no run of this grid and these settings; leave out --stored-only")
    return stored, budget


def _factors(options: StitchOptions, compute: Compute) -> None:
    stored, _ = _trained(options, compute)
    print(write_study(stored, len(options.grid.runs()), options.folders[0], command_line()))


def _dose(options: StitchOptions, compute: Compute) -> None:
    stored, budget = _trained(options, compute)
    runs, (out, runs_folder) = [run for run, _ in stored], options.folders
    asked = LeakageSettings(stitching=out, runs_folder=runs_folder, multiple=max(options.settings.multiples))

    def training(run: FactorRun) -> Job:
        return train_job(run.config(budget.base, {}), runs_folder / run.name, compute.device)

    if not options.stored_only:
        run_leakage(asked, runs, options.run_in(out), compute.device, training)
    print(write_dose(stored, stored_audits(asked, stored), len(options.grid.runs()), out, command_line()))


def _chances(options: StitchOptions, compute: Compute) -> None:
    chances, (out, runs_folder) = chances_of(options.norms, options.changes, options.seeds), options.folders
    if not chances:
        raise UserError(f"suite chances has none of {', '.join(options.changes)} for {', '.join(options.norms)}")
    budget = Budget(_base(options), options.settings)
    if not options.stored_only:
        asked = {runs_folder / chance.name: chance_question(chance, budget) for chance in chances}
        train_and_measure(chances_in(out), asked, options.run_in(out), "equal chances", compute.device)
    found = found_chances(chances, out, budget)
    if not found:
        raise UserError(f"out = {out} holds no run of this suite and these settings; leave out --stored-only")
    print(write_chances(found, len(chances), out, command_line()))


def _fix(options: StitchOptions, compute: Compute) -> None:
    if not options.sources:
        raise UserError("stitch --suite fix needs --from RUN")
    steps, every = options.steps or FIX_STEPS, options.every
    if steps < every:
        raise UserError(f"every = {every} must be from 1 to steps = {steps}")
    measured = replace(options.settings, best_of=1)
    fixes = [Fix(source, options.to, steps, every, measured) for source in options.sources]
    out, runs_folder = options.folders
    print(write_fix(fix_rows(fixes, out, options.run_in(out), runs_folder, compute.device), out, command_line()))


def print_summary(summary: dict[str, Any]) -> None:
    """The table that a person reads."""
    for multiple, splits in summary["by_horizon"].items():
        for split, measures in splits.items():
            cells = ", ".join(f"{name} {MEASURES[name].text(measures[name])}" for name in GAP_MEASURES)
            print(f"{multiple}x {split.replace('_', ' ')}: {cells}")
