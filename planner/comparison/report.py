"""A comparison as tables and as a section, out of what ``comparison.json`` holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from envs.maps import world_of
from groundwork.intervals import HOW
from groundwork.section import Picture, Section, command_text, counted, listed, origin_facts
from groundwork.tables import Cell, Table
from planner.comparison.figures import (
    Summaries,
    fewest_and_most,
    headline_measures,
    horizon_of,
    pools_over_time,
    shortest_columns,
    split_of,
)
from planner.measures import LONGEST_VALID_STEP, MEASURES
from planner.norms import in_legend_order, norm_of

OVER = f"Means with {HOW}."
NOTES = (
    "**Look at the plans before the success.** The controller bridges a hole in a plan, and then it holds the plan's "
    "last point, which is the goal itself. So success can stay high while plans fall apart. A failed episode counts as "
    "its whole length in steps to goal.",
    "**Held out beside demonstrated.** A planner that composes the pieces that it has seen loses little from "
    "demonstrated tasks to held-out ones. A norm that pools over time tells every point of a plan about all others. "
    "Such a planner can draw a demonstrated route, and can jump to the goal where it must compose one.",
    "**Longer horizons.** At twice the training horizon a norm that pools over time takes its statistics over twice "
    "as many points as in training.",
    "**Training windows** are the reference. Their row holds what the measures give for the data themselves.",
    "**A lower training loss does not make a better planner.** Part of it is information about the whole trajectory, "
    "which a planner that composes pieces should not have.",
)


def table_measures(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The columns of a table: the measures that have one and were taken."""
    cells = next(iter(next(iter(summaries.values())).values()))
    return [name for name, measure in MEASURES.items() if measure.column and name in cells]


def comparison_table(result: Mapping[str, Any]) -> Table:
    """One row per norm and column, and the training windows."""
    names, reference = table_measures(result["summary"]), result["reference"]
    rows = _rows(result["summary"])
    cells: list[Cell] = [MEASURES[name].cell(reference.get(name)) for name in names]
    return Table(["norm", "tasks", *names], [*rows, ["*training windows*", "reference", *cells]])


def family_table(result: Mapping[str, Any]) -> Table:
    """Success, validity, gaps by family of tasks: one row per family, multiple and norm."""
    families = result["families"]
    return Table(["tasks", "norm", *table_measures(families)], _rows(families), "By family of tasks", folded=True)


def _rows(summaries: Mapping[str, Mapping[str, Any]]) -> list[list[Cell]]:
    """One row per outer and inner name, a measure each."""
    return [
        [outer, inner, *(MEASURES[name].cell(measures.get(name)) for name in table_measures(summaries))]
        for outer, entries in summaries.items()
        for inner, measures in entries.items()
    ]


def headline_table(result: Mapping[str, Any]) -> Table:
    """What decides: valid plans and success per norm and horizon, held out beside demonstrated."""
    summary = result["summary"]
    measures = sorted(headline_measures(summary), key=lambda name: MEASURES[name].of != "plan")
    columns = list(next(iter(summary.values())))
    splits = sorted({split_of(column) for column in columns}, reverse=True)
    rows: list[list[Cell]] = []
    for label in in_legend_order(summary):
        for horizon in dict.fromkeys(map(horizon_of, columns)):
            here = {split_of(name): cells for name, cells in summary[label].items() if horizon_of(name) == horizon}
            cells = [MEASURES[name].cell(here.get(split, {}).get(name)) for name in measures for split in splits]
            rows.append([label, "yes" if pools_over_time(label) else "no", horizon, *cells])
    titles = [f"{MEASURES[name].label}, {split}" for name in measures for split in splits]
    return Table(["norm", "pools over time", "horizon", *titles], rows, "Results", OVER, cards=True)


def headline(result: Mapping[str, Any]) -> str:
    """The sentence with the numbers that decide: of the norms with the fewest and the most valid plans."""
    summary = result["summary"]
    columns = shortest_columns(summary)
    valid = _valid_plans(summary, columns[0])
    if not valid:
        return ""
    fewest, most = fewest_and_most({label: cell["mean"] for label, cell in valid.items()})
    held_out = split_of(columns[0]) == "held out"
    tasks = "tasks that nobody demonstrated" if held_out else f"{split_of(columns[0])} tasks"
    text = f"On {tasks}, {_of_plans(valid, fewest, most)}."
    seen = _valid_plans(summary, columns[1]) if held_out and len(columns) > 1 else {}
    return f"{text} On demonstrated tasks, {_of_plans(seen, fewest, most)}." if seen else text


def _valid_plans(summary: Summaries, column: str) -> dict[str, Mapping[str, Any]]:
    """Label → the share of valid plans, where it was measured."""
    cells = {label: entries.get(column, {}).get("plan_valid") for label, entries in summary.items()}
    return {label: cell for label, cell in cells.items() if cell is not None and cell["mean"] is not None}


def _of_plans(cells: Mapping[str, Mapping[str, Any]], *labels: str) -> str:
    text = MEASURES["plan_valid"].text
    first, *others = dict.fromkeys(label for label in labels if label in cells)
    whole = f"{text(cells[first])} of the plans of `{first}` are valid"
    return " and ".join([whole, *(f"{text(cells[label])} of those of `{label}`" for label in others)])


def _all_measures(result: Mapping[str, Any]) -> Table:
    """Every measure, with what its intervals are over."""
    whole, reference = comparison_table(result), result["reference"]
    counts = [cells["success"] for entries in result["summary"].values() for cells in entries.values()]
    over = [f"{cell['n']} {cell['over']}" for cell in counts]
    over.append(f"{reference['plan_valid']['n']} windows" if reference else "no data here")
    rows = [[*row, end] for row, end in zip(whole.rows, over, strict=True)]
    return Table([*whole.columns, "over"], rows, "All measures", OVER, folded=True)


def comparison_section(result: Mapping[str, Any]) -> Section:
    """What a comparison found, also one of an earlier day."""
    config, seeds = result["config"], sorted({row["run_seed"] for row in result["rows"]})
    settings, runs = config["settings"], result.get("runs", [])
    radius_m = world_of(config.get("maze", "")).body_radius_m
    origin = result.get("provenance", {})
    made = (
        f"planner compare {' '.join(config['runs'])} --multiples {','.join(map(str, config['multiples']))} "
        f"--episodes {settings['episodes']} --seed {settings['seed']}"
    )
    columns, norms = list(runs[0]) if runs else [], {norm_of(label) for label in result["summary"]}
    told = " but for what its name tells" if len(norms) < len(result["summary"]) else ""
    facts = {
        "runs": listed(config["runs"]),
        "training seeds": listed(seeds),
        "episodes": f"{settings['episodes']} per task, {len(result['rows']):,} in all",
        "rollouts": ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, "")),
    }
    return Section(
        "Comparison",
        headline(result),
        [
            f"The same planner was trained with {counted(len(norms), 'norm')} and {_seeds_of_each(result)} each, "
            f"everything else equal{told}, on demonstrations alone. It then planned "
            "demonstrated and held-out tasks, and MuJoCo executed every plan. A plan is valid if it keeps "
            f"{radius_m} m from every wall and no step is longer than {LONGEST_VALID_STEP:g} times the data's "
            f"longest. {result.get('counted', '')}"
        ],
        pictures=_pictures(result),
        tables=[
            headline_table(result),
            _all_measures(result),
            family_table(result),
            *([Table(columns, [list(run.values()) for run in runs], "Runs", folded=True)] if runs else []),
        ],
        notes=NOTES,
        facts=facts | origin_facts(origin),
        commands=[command_text(origin) or made],
        data=["comparison.json", "comparison.json.gz"],
    )


def _seeds_of_each(result: Mapping[str, Any]) -> str:
    pairs = {(row["norm"], row["run_seed"]) for row in result["rows"]}
    fewest, *_, most = sorted([*Counter(norm for norm, _ in pairs).values()] * 2)
    return counted(most, "seed") if fewest == most else f"{fewest} to {most} seeds"


def _pictures(result: Mapping[str, Any]) -> list[Picture]:
    task = result.get("example", "one task")
    shown = {
        "example.png": f"Six plans each of the norms with the fewest and the most valid plans, for {task}, from the "
        "circle to the star. Red steps are longer than any of a valid plan.",
        "bars.png": "Valid plans and success with 95 % intervals at the shortest horizon.",
    }
    moving = {
        animation_file(label): f"`{label}`: a plan for {task}, and the ball that follows it."
        for label in in_legend_order(result["summary"])
    }
    plans = {
        f"plans_{multiple}x.png": f"Six plans of each norm (rows) for the first task of each family (columns), at "
        f"{multiple}× the training horizon. Points are planned waypoints."
        for multiple in result["config"]["multiples"]
    }
    return [
        *(Picture(file, caption) for file, caption in (shown | moving).items()),
        *(Picture(file, caption, folded=True) for file, caption in plans.items()),
    ]


def animation_file(label: str) -> str:
    """The name of the animation of a label's rollout."""
    return f"rollout_{re.sub(r'[^A-Za-z0-9_]+', '-', label).strip('-')}.gif"
