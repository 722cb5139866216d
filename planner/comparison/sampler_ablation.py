"""The sampler's ablation: how few network evaluations a planner needs before it plans worse."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import mean_interval, paired_difference
from groundwork.section import Picture, Section
from groundwork.style import PALETTE, legend_outside, open_axes, plot_intervals
from groundwork.tables import Table, measured
from planner.comparison.kept import run_rollout
from planner.measures import MEASURES
from planner.plan import Planner
from planner.rollout import choose_tasks
from planner.sampling import Sampling
from planner.settings import STEPS, AblationSettings, RolloutSettings

MARGIN = 0.03
"""Not worse: the lower 95 % bound of the paired difference in success lies above minus this."""
TIMED_PLANS = 7
MARKERS = "osD^vP*X"
SHOWN = ("success", "plan_valid")
KEPT = ("task", "seed", *SHOWN, "steps_to_goal")


def ablate(run: str | Path, settings: AblationSettings, out: Path, device: str, command: str) -> Path:
    """Rolls out every sampler at every number of steps on the same episodes, and times one plan of each.

    The reference is ancestral sampling (``ddpm``) over all noise levels of the training. Answers are kept in the run
    folder, so that the same command goes on where it stopped.

    Returns:
        The path of the table; beside it ``samplers.json`` (summary), ``samplers_rows.json.gz`` and ``samplers.png``.

    Raises:
        UserError: no such run, tasks or settings.
    """
    planner = Planner.from_run(run, device=device)
    levels = planner.config.diffusion.train_steps
    choose_tasks(planner.statistics.maze_for(f"samplers of {run}"), settings.tasks)
    tried = settings.steps or tuple(steps for steps in STEPS if steps <= levels)
    if max(tried) > levels:
        raise UserError(f"sampling_steps = {max(tried)} must be at most the {levels} levels of {run}'s training")
    pairs = list(dict.fromkeys([("ddpm", levels), *product(settings.samplers, tried)]))
    reference: list[bool] = []
    entries, rows = [], []
    for sampler, steps in tqdm(pairs, desc="samplers", unit="setting"):
        how = Sampling(sampler=sampler, sampling_steps=steps, resample=0)  # or more evaluations than the table says
        asked = RolloutSettings(episodes=settings.episodes, seed=settings.seed, **vars(how))
        found = run_rollout(run, asked, settings.tasks, device)
        success = [row["success"] for row in found]
        reference = reference or success
        rows += [{"sampler": sampler, "steps": steps, **{name: row[name] for name in KEPT}} for row in found]
        entries.append(
            {
                "sampler": sampler,
                "steps": steps,
                **{name: mean_interval([row[name] for row in found]) for name in SHOWN},
                "difference": paired_difference(success, reference),
                "milliseconds": plan_milliseconds(planner, asked),
            }
        )
    about = {
        "run": Path(run).name,
        "norm": planner.config.model.norm,
        "threads": torch.get_num_threads(),
        **asdict(replace(settings, steps=tried)),
    }
    write_atomically(out / "samplers_rows.json.gz", gzip.compress(json.dumps(rows).encode(), mtime=0))
    write_atomically(
        out / "samplers.json", json.dumps({"config": about, "summary": {"settings": entries}}, allow_nan=False) + "\n"
    )
    save_figure(ablation_figure(entries), out / "samplers.png", dpi=150)
    section = ablation_section(about, entries, command).write(out, "samplers")
    write_atomically(out / "samplers.md", section.markdown())
    return out / "samplers.md"


def ablation_section(about: Mapping[str, Any], entries: Sequence[dict[str, Any]], command: str = "") -> Section:
    """What the ablation found, out of ``samplers.json``."""
    return Section(
        "Samplers",
        verdict(entries),
        tables=[ablation_table(entries)],
        pictures=[Picture("samplers.png", "Success and valid plans against network evaluations per plan.")],
        notes=[verdict(entries)],
        facts={name: str(value) for name, value in about.items()},
        commands=[command] if command else [],
        data=["samplers.json", "samplers_rows.json.gz"],
    )


def plan_milliseconds(planner: Planner, sampling: Sampling) -> float:
    """Median time of one plan (batch 1)."""
    maze = planner.statistics.maze_for("samplers")
    start, goal = maze.cell_to_xy(maze.free_cells[0]), maze.cell_to_xy(maze.free_cells[-1])
    times = []
    for _ in range(TIMED_PLANS):
        begun = time.perf_counter()
        planner.plan(start, goal, sampling=sampling)
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times))


def fewest_steps(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry with the fewest steps that is not worse than the reference, the quickest of equals."""
    good = [entry for entry in entries if entry["difference"]["low"] > -MARGIN]
    return min(good, key=lambda entry: (entry["steps"], entry["milliseconds"]), default=None)


def verdict(entries: Sequence[dict[str, Any]]) -> str:
    """What the table says, in a sentence."""
    best, full = fewest_steps(entries), entries[0]
    rule = f"lower 95 % bound of the paired difference in success above −{100 * MARGIN:.0f} points"
    if best is None:
        return f"No setting is as good as full DDPM ({rule})."
    return (
        f"Fewest steps not worse than DDPM with all {full['steps']} ({rule}): **{best['sampler']}, {best['steps']} "
        f"steps**, {best['milliseconds']:.0f} ms a plan instead of {full['milliseconds']:.0f}."
    )


def ablation_table(entries: Sequence[dict[str, Any]]) -> Table:
    """One line per setting."""
    labels = [MEASURES[name].label for name in SHOWN]
    columns = ["sampler", "steps", *labels, "success minus full DDPM's", "ms per plan"]
    lines = [
        [
            entry["sampler"],
            str(entry["steps"]),
            *(MEASURES[name].cell(entry[name]) for name in SHOWN),
            measured(entry["difference"], ".1f", " points"),
            f"{entry['milliseconds']:.0f}",
        ]
        for entry in entries
    ]
    return Table(columns, lines)


def ablation_figure(entries: Sequence[dict[str, Any]]) -> Figure:
    """Success and validity against steps, one line per sampler."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    samplers = sorted({entry["sampler"] for entry in entries})
    for axis, measure in zip(axes, SHOWN, strict=True):
        for index, sampler in enumerate(samplers):
            own = sorted((e for e in entries if e["sampler"] == sampler), key=lambda e: e["steps"])
            steps = np.array([e["steps"] for e in own]) * 1.04 ** (index - (len(samplers) - 1) / 2)
            style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)], "label": sampler}
            plot_intervals(axis, steps, [entry[measure] for entry in own], lw=1.4, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(xlabel="network evaluations per plan", ylabel=f"{MEASURES[measure].label} (%)", ylim=(-4, 104))
    open_axes(axes)
    legend_outside(figure, axes[0])
    return figure
