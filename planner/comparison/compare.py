"""Compare finished runs: roll each out, group them by norm, and write table, figures and one page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundwork.command_options import said
from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.intervals import interval_over_seeds, mean_interval
from groundwork.jobs import Executor, run_jobs
from groundwork.options import leaves_of
from groundwork.page import page
from planner.comparison.countable import counted, counting_rule, mark_countable
from planner.comparison.kept import rollout_job, run_rollout
from planner.comparison.pictures import draw_comparison, example_task
from planner.comparison.report import comparison_section, comparison_table, family_table
from planner.comparison.run_facts import network_facts, run_facts, watching
from planner.config import Config, what_trains
from planner.data import PlannerData, load_data
from planner.device import pick_device
from planner.measures import MEASURES, held, plan_measures
from planner.norms import in_legend_order
from planner.plan import Planner
from planner.rollout import RolloutSettings
from planner.training.find import find_runs
from planner.training.provenance import provenance
from planner.training.run import RunFolder

REFERENCE_WINDOWS = 2000
LONGEST_LABEL = 48
"""In characters; longer ones do not fit beside bars and into files' names."""


@dataclass(frozen=True)
class Measured:
    """One run's episodes at one multiple of its training horizon."""

    label: str
    seed: int
    multiple: int
    rows: list[dict[str, Any]]


def reference_scores(data: PlannerData) -> dict[str, dict[str, Any]]:
    """The plan measures of training windows themselves: what a plan like the data scores.

    Raises:
        UserError: the data are of no maze.
    """
    maze = data.statistics.maze_for("a measure of plans")
    count = len(data.training)
    which = torch.linspace(0, count - 1, min(REFERENCE_WINDOWS, count)).long().to(data.training.starts_W.device)
    normalized = data.training.gather(which).transpose(1, 2).cpu()
    points = data.statistics.normalizer.denormalize(normalized).numpy()
    measures = plan_measures(points[..., :2], maze, data.statistics.longest_step_m)
    return {name: mean_interval(values) for name, values in measures.items()}


def _reference(config: Config) -> dict[str, dict[str, Any]]:
    """What the data themselves score; nothing where they are not at hand, as those of a shipped planner may be."""
    try:
        return reference_scores(load_data(config.data))
    except UserError as error:
        print(f"note: there are no training windows to compare with: {error}", file=sys.stderr)
        return {}


def _group(measured: Sequence[Measured]) -> dict[str, dict[str, dict[str, Any]]]:
    """Label → column → measure → interval; over seeds where a label has at least three, else over episodes."""
    summaries: dict[str, dict[str, dict[str, Any]]] = {}
    names = held(row for item in measured for row in item.rows)
    for label in dict.fromkeys(item.label for item in measured):
        runs = [item for item in measured if item.label == label]
        for multiple in sorted({item.multiple for item in runs}):
            for split in sorted({row["split"] for item in runs for row in item.rows}):
                here = [[r for r in item.rows if r["split"] == split] for item in runs if item.multiple == multiple]
                shown = f"{split.replace('_', ' ')}, {multiple}× horizon"
                column = counted([row for rows in here for row in rows], shown)[0]
                chosen = [counted(rows, shown)[1] for rows in here]
                summaries.setdefault(label, {})[column] = {name: _interval(chosen, name) for name in names}
    return summaries


def _interval(rows_by_seed: Sequence[Sequence[dict[str, Any]]], name: str) -> dict[str, Any]:
    if any(row.get(name) is None for rows in rows_by_seed for row in rows):  # from before it existed, or no score
        return {**mean_interval([]), "over": "episodes"}
    return interval_over_seeds([[row[name] for row in rows] for rows in rows_by_seed], share=MEASURES[name].share)


def _families(measured: Sequence[Measured]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Column "family, multiple" → label → measure → interval."""
    table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    names = held(row for item in measured for row in item.rows)
    for multiple in sorted({item.multiple for item in measured}):
        for family in dict.fromkeys(row["family"] for item in measured for row in item.rows):
            for label in dict.fromkeys(item.label for item in measured):
                runs = [item for item in measured if (item.label, item.multiple) == (label, multiple)]
                here = [[row for row in item.rows if row["family"] == family] for item in runs]
                column = counted([row for rows in here for row in rows], f"{family}, {multiple}× horizon")[0]
                chosen = [counted(rows, column)[1] for rows in here]
                cells = {name: _interval(chosen, name) for name in names}
                table.setdefault(column, {})[label] = cells
    return table


def _labels(folders: Sequence[RunFolder]) -> list[str]:
    """The norm of each run, with its placement where these differ, and the settings in which it is not like most.

    Runs of one label are seeds of one another. Where that would be long, or not so, folders' names tell runs apart.
    """
    configs = [folder.config() for folder in folders]
    shared = [held_equal(config) for config in configs]
    usual = leaves_of(max(shared, key=shared.count))
    placed = len({config.model.norm_placement for config in configs if config.model.norm != "none"}) > 1
    labels = []
    for model, its in zip((config.model for config in configs), map(leaves_of, shared), strict=True):
        unusual = [f"{name.split('.')[-1]} {said(its[name])}" for name in usual if its[name] != usual[name]]
        placement = [model.norm_placement] * (placed and model.norm != "none")
        labels.append(", ".join([model.norm, *placement, *unusual]))
    trained = {replace(what_trains(config), compile=False) for config in configs}
    seeds = {replace(config, seed=0) for config in trained}
    if len(trained) == len(labels) and len(seeds) == len(set(labels)) and max(map(len, labels)) <= LONGEST_LABEL:
        return labels
    names = [folder.path.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    return [f"{config.model.norm} ({name})" for config, name in zip(configs, names, strict=True)]


def held_equal(config: Config) -> Config:
    """What runs have equal whose norms are compared: their settings but for the norm, its placement and the seed.

    What changes how a training is watched or computed, and not what it does, stands at its default.
    """
    model = replace(config.model, norm="none", num_packs=0, norm_placement="pre")
    return replace(what_trains(config), seed=0, model=model, compile=False)


def compare(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: RolloutSettings,
    *,
    multiples: Sequence[int] = (1, 2),
    tasks: Sequence[str] = ("demonstrated", "held_out"),
    device: str = "auto",
    command: str = "planner compare",
    executor: Executor | None = None,
) -> Path:
    """Rolls out finished runs, on ``executor`` if one is given, and writes what sets them apart.

    Writes into ``out``: ``report.html`` (self-contained), ``comparison.json`` (rows and summaries),
    ``comparison.md``, ``families.md``, ``example.png``, ``bars.png``, ``rollout_NORM.gif`` and ``plans_1x.png`` …
    (one per multiple of the horizon). Norms stand in the order of :data:`planner.norms.LEGEND`.
    Returns the path of the page.

    Raises:
        UserError: unfinished or damaged runs, one run twice, or runs on different mazes.
    """
    folders, multiples = _comparable(paths), list(dict.fromkeys(multiples))
    labels = _labels(folders)
    asked = [
        (label, folder, multiple, replace(settings, horizon=multiple * folder.config().data.horizon))
        for label, folder in zip(labels, folders, strict=True)
        for multiple in multiples
    ]
    if executor is not None:
        run_jobs([rollout_job(one.path, scaled, tasks, device) for _, one, _, scaled in asked], executor, "rollouts")
    measured = [
        Measured(label, folder.config().seed, multiple, run_rollout(folder.path, scaled, tasks, device))
        for label, folder, multiple, scaled in asked
    ]
    for item in measured:
        mark_countable(item.rows, item.multiple, folders, tasks)
    target, summaries, maze = Path(out), _group(measured), folders[0].statistics().maze_for("compare")
    first = dict(reversed(list(zip(labels, folders, strict=True))))
    planners = {label: _drawing_as(settings, Planner.from_run(first[label].path, device=device)) for label in summaries}
    task = example_task(maze, [row for item in measured for row in item.rows])
    draw_comparison(target, planners, summaries, task, multiples)
    about = {"settings": asdict(settings), "multiples": multiples, "maze": maze.name}
    result: dict[str, Any] = {
        "config": {"runs": [*map(str, paths)], **about},
        "runs": [run_facts(folder) | network_facts(folder) | watching(folder) for folder in folders],
        "example": f"one {task.split.replace('_', '-')} task ({task.name})",
        "provenance": {**provenance(settings.seed, pick_device(device)), "command": command},
        "summary": summaries,
        "families": _families(measured),
        "reference": _reference(folders[0].config()),
        "counted": counting_rule([row for item in measured for row in item.rows], maze),
        "rows": [{"norm": item.label, "run_seed": item.seed, **row} for item in measured for row in item.rows],
    }
    section = comparison_section(result).write(target)
    write_atomically(target / "comparison.json", json.dumps(result))
    write_atomically(target / "comparison.md", f"{comparison_table(result).markdown()}\n\n{result['counted']}\n")
    write_atomically(target / "families.md", family_table(result).markdown() + "\n")
    write_atomically(target / "report.html", page([section]))
    return target / "report.html"


def _drawing_as(settings: RolloutSettings, planner: Planner) -> Planner:
    """The planner, drawing plans with the sampler, steps and noise of those that are rolled out, each in one go."""
    planner.config = replace(planner.config, diffusion=planner.config.diffusion.drawn_as(settings))
    return planner


def _comparable(paths: Sequence[str | Path]) -> list[RunFolder]:
    """The runs, if they are finished, each there once, and on one maze."""
    folders = find_runs(paths)
    for folder in folders:
        if not folder.done:
            raise UserError(f"{folder.path} is not finished: `planner train` with the same settings continues it")
    if any(folder.statistics().maze != folders[0].statistics().maze for folder in folders):
        raise UserError(f"runs {', '.join(str(path) for path in paths)} are on different mazes: compare those on one")
    order = in_legend_order(folder.config().model.norm for folder in folders)
    return sorted(folders, key=lambda folder: order.index(folder.config().model.norm))
