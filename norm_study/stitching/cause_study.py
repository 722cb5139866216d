"""``norm-study cause``: which explanation of a pooling norm's failure survives, with a verdict for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from groundwork.answers import Answers
from groundwork.errors import UserError
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import student_interval
from groundwork.jobs import Job, run_jobs
from groundwork.options import part_of
from groundwork.program import Compute, command_line
from groundwork.section import Picture, Section
from groundwork.style import PALETTE, legend_outside, open_axes, plot_intervals
from groundwork.tables import Cell, Table, measured
from groundwork.verdicts import Claim, Number, Rule, judge
from norm_study.stitching.cause import cause_rows, decoded_rows
from norm_study.stitching.settings import CauseOptions, CauseSettings
from norm_study.stitching.summary import Rows, countable, interval, study_cell
from planner.renamed import RENAMED
from planner.training.find import find_run, find_seeds

RULES = {
    "own": "its own, as trained",
    "frozen": "the training's average at each noise level",
    "windowed": "windows of the training's length",
    "right": "those of a right plan of the same task",
    "demonstrated": "those of a demonstrated plan from the same start",
}
"""What takes the place of the statistics."""
CAPTION = "Valid plans while a rule takes the place of GroupNorm's statistics; 95 % intervals."
NOTE = (
    "Nothing is trained here. *Right* plans are lent by a planner whose norm does not pool; the distance is the root "
    "mean square between a plan and the lent one, first under its own statistics and then under the lent."
)

Found = dict[str, Rows]
"""``plans`` and ``decoded`` of all runs."""


def cause(options: CauseOptions, compute: Compute) -> None:
    """Samples under every rule, decodes, and writes table, figure and verdicts.

    Raises:
        UserError: no runs, or not one lender for each.
    """
    runs, lenders = options.runs or (), options.lenders or ()
    if len(lenders) == 1:
        lenders *= len(runs)
    if not runs or len(lenders) != len(runs):
        raise UserError("cause needs RUN … and --lender RUN, once for all of them or once for each")
    settings, store = part_of(CauseSettings, options), Answers(options.out / "cause", RENAMED, _label, compressed=True)
    jobs: list[Job] = []
    asked, seeds = [], []
    for folder, run, lender in zip(find_seeds(runs), runs, lenders, strict=True):
        config = folder.config()
        if not any(isinstance(module, nn.GroupNorm) for module in folder.make_network().modules()):
            raise UserError(
                f"{run} has no GroupNorm whose statistics could be taken over: its norm is {config.model.norm}"
            )
        seeds.append(config.seed)
        about = {"name": Path(run).name, "run": config, "lender": find_run(lender).config()}
        asked.append({"cause": settings, **about})
        jobs.append(store.job(asked[-1], partial(_measured, run, lender, settings, compute.device)))
    run_jobs(jobs, options.run_in(options.out), "cause")
    answers = [store[question] for question in asked]
    found = {name: [row for answer in answers for row in answer[name]] for name in ("plans", "decoded")}
    save_figure(cause_figure(found["plans"]), options.out / "cause.png", dpi=150)
    section = cause_section(found, seeds, command_line())
    write_atomically(options.out / "cause.md", section.write(options.out, "cause").markdown())
    print(options.out / "cause.md")


def _label(question: Any) -> str:
    return question["name"]


def _measured(run: str, lender: str, settings: CauseSettings, device: str) -> Found:
    return {"plans": cause_rows(run, lender, settings, device), "decoded": decoded_rows(run, settings, device)}


def cause_section(found: Found, seeds: Sequence[int], command: str = "") -> Section:
    """What became of the plans, and which predictions failed."""
    return Section(
        "Cause",
        "Plans of planners with GroupNorm while rules take the place of its statistics.",
        claims=[judge(claim, found, seeds) for claim in CLAIMS],
        tables=[plans_table(found["plans"]), decoded_table(found["decoded"])],
        pictures=[Picture("cause.png", CAPTION)],
        notes=[NOTE],
        commands=[command] if command else [],
    )


def _under(rows: Rows, rule: str, multiple: int, split: str) -> Rows:
    return [row for row in countable(rows, split=split, multiple=multiple) if row["rule"] == rule]


def _places(rows: Rows) -> list[tuple[str, int]]:
    """The rules and multiples that were sampled, in the order of a page."""
    there = {(row["rule"], row["multiple"]) for row in rows}
    return sorted(there, key=lambda place: (place[1], list(RULES).index(place[0])))


def plans_table(rows: Rows) -> Table:
    """One line per rule and multiple."""
    lines: list[list[Cell]] = []
    for rule, multiple in _places(rows):
        held_out, shown = (_under(rows, rule, multiple, split) for split in ("held_out", "demonstrated"))
        measures = [study_cell(interval(held_out, name), name) for name in ("plan_valid", "success")]
        away = [_seed_means(held_out, name) for name in ("own_to_lender_m", "to_lender_m")]
        distances = [measured(student_interval(means), ".2f", " m") if means else "–" for means in away]
        valid = study_cell(interval(shown, "plan_valid"), "plan_valid")
        lines.append([RULES[rule], f"{multiple}×", *measures, valid, *distances])
    columns = ["statistics", "horizon", "held-out valid", "held-out success", "demonstrated valid"]
    return Table([*columns, "to the lent plan, own", "to the lent plan, lent"], lines, "Plans under other statistics")


def decoded_table(rows: Rows) -> Table:
    """How often the task is read from the statistics alone."""
    lines: list[list[Cell]] = []
    for level in sorted({row["level"] for row in rows}):
        own = [row for row in rows if row["level"] == level]
        accuracy = measured(student_interval([row["accuracy"] for row in own], (0, 1)), ".0f", " %")
        lines.append([f"{level:g}", accuracy, f"{100 * own[0]['chance']:.0f} %", str(own[0]["n"]), str(len(own))])
    columns = ["noise level", "tasks read rightly", "chance", "plans", "seeds"]
    return Table(columns, lines, "The demonstrated task, read from means and variances alone")


def cause_figure(rows: Rows) -> Figure:
    """Valid plans by rule, held out and demonstrated, one panel per multiple."""
    multiples = sorted({row["multiple"] for row in rows})
    figure = Figure(figsize=(3.4 * len(multiples) + 2.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(multiples), squeeze=False, sharey=True)[0]
    rules = [rule for rule in RULES if any(row["rule"] == rule for row in rows)]
    for axis, multiple in zip(axes, multiples, strict=True):
        for split, marker, color, side in (
            ("held_out", "o", PALETTE[0], -0.12),
            ("demonstrated", "s", PALETTE[1], 0.12),
        ):
            there = [at for at, rule in enumerate(rules) if _under(rows, rule, multiple, split)]
            cells = [interval(_under(rows, rules[at], multiple, split), "plan_valid") for at in there]
            look = {"color": color, "marker": marker, "ls": "none", "label": split.replace("_", " ")}
            plot_intervals(axis, np.array(there) + side, cells, **look)
        axis.set_xticks(range(len(rules)), rules, rotation=25, ha="right")
        axis.set(ylim=(-4, 104), title=f"{multiple}× training horizon", xlabel="statistics")
    axes[0].set_ylabel("valid plans (%)")
    open_axes(axes)
    legend_outside(figure, axes[0])
    return figure


# the predictions, written down after one planner and before the three seeds that decide them


def _seed_means(rows: Rows, name: str) -> list[float]:
    """The mean over each run's rows, of those that have the number."""
    kept = [row for row in rows if row.get(name) is not None]
    seeds = sorted({row["run_seed"] for row in kept})
    return [float(np.mean([row[name] for row in kept if row["run_seed"] == seed])) for seed in seeds]


def _valid_percent(rule: str, multiple: int, split: str = "held_out") -> Callable[[Found], list[float]]:
    return lambda found: [
        100 * share for share in _seed_means(_under(found["plans"], rule, multiple, split), "plan_valid")
    ]


def _nearer(found: Found) -> list[float]:
    """How much nearer to the lent demonstrated plan the held-out plan comes, in metres."""
    rows = _under(found["plans"], "demonstrated", 1, "held_out")
    own, lent = _seed_means(rows, "own_to_lender_m"), _seed_means(rows, "to_lender_m")
    return [before - after for before, after in zip(own, lent, strict=True)]


def _read_percent(found: Found) -> list[float]:
    return [100 * row["accuracy"] for row in found["decoded"] if row["level"] == 0.5]


HALF, PERCENT = 50.0, (0.0, 100.0)
CLAIMS = (
    Claim(
        "The statistics name the demonstrated task.",
        "explanation a: can they be decoded?",
        Rule(Number("tasks read rightly at noise level 0.5, %", _read_percent, PERCENT), "decoded", "at least", 90),
    ),
    Claim(
        "Under a demonstrated plan's statistics a held-out plan comes nearer to that plan.",
        "explanation a: do they steer?",
        Rule(Number("distance under its own minus under the lent statistics, m", _nearer), "plans", "at least", 0.1),
    ),
    Claim(
        "Under a right plan's statistics most held-out plans are valid.",
        "explanation a: are wrong statistics all that is wrong?",
        Rule(Number("valid held-out plans at 1×, %", _valid_percent("right", 1), PERCENT), "plans", "at least", HALF),
    ),
    Claim(
        "Frozen at the training's averages, most held-out plans are valid.",
        "explanation b: are a held-out plan's statistics unlike any in training?",
        Rule(Number("valid held-out plans at 1×, %", _valid_percent("frozen", 1), PERCENT), "plans", "at least", HALF),
    ),
    Claim(
        "Frozen so, the network still draws what was demonstrated.",
        "explanation b: is the rule above a fair one?",
        Rule(
            Number("valid demonstrated plans at 1×, %", _valid_percent("frozen", 1, "demonstrated"), PERCENT),
            *("plans", "at least", HALF),
        ),
    ),
    Claim(
        "Over windows of the training's length, most held-out plans of twice that length are valid.",
        "explanation b: are the statistics of another length what is wrong?",
        Rule(
            Number("valid held-out plans at 2×, %", _valid_percent("windowed", 2), PERCENT), "plans", "at least", HALF
        ),
    ),
)
