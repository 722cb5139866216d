"""A comparison as tables and as a section, out of what ``comparison.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundwork.section import Picture, Section, command_text, counted, listed, origin_facts
from groundwork.tables import Cell, Table
from planner.measures import MEASURES

OVER = "Means with 95 % intervals, over training seeds where there are at least three, else over episodes."
NOTES = (
    "**Plans before success.** The controller bridges a hole in a plan and then holds the plan's last point, which is "
    "the goal itself. So success can stay high while plans fall apart: look at valid plans, the longest step and the "
    "end gap first. Failures count as the episode limit in steps to goal.",
    "**Demonstrated against held out.** A planner that composes seen pieces loses little from one to the other. A norm "
    "that pools over the horizon tells every point of a plan about all others; such a planner can draw a demonstrated "
    "route and jump to the goal it was told.",
    "**Longer horizons.** At twice the training horizon, statistics over time are those of another length.",
    "**Training windows** are the reference: what the measures give for the data themselves.",
    "**A lower training loss is no evidence for a better planner**: part of it is information about the whole "
    "trajectory that a local denoiser should not have.",
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


def _results_table(result: Mapping[str, Any]) -> Table:
    """The comparison with what its intervals are over."""
    whole, reference = comparison_table(result), result["reference"]
    counts = [cells["success"] for entries in result["summary"].values() for cells in entries.values()]
    over = [f"{cell['n']} {cell['over']}" for cell in counts]
    over.append(f"{reference['plan_valid']['n']} windows" if reference else "no data here")
    rows = [[*row, end] for row, end in zip(whole.rows, over, strict=True)]
    return Table([*whole.columns, "over"], rows, "Results", OVER)


def comparison_section(result: Mapping[str, Any]) -> Section:
    """What a comparison found, also one of an earlier day."""
    config, seeds = result["config"], sorted({row["run_seed"] for row in result["rows"]})
    settings, runs = config["settings"], result.get("runs", [])
    origin = result.get("provenance", {})
    made = (
        f"planner compare {' '.join(config['runs'])} --multiples {','.join(map(str, config['multiples']))} "
        f"--episodes {settings['episodes']} --seed {settings['seed']}"
    )
    pictures = {"bars": "Means of each norm with 95 % intervals. Dotted: the longest step of the data."} | {
        f"plans_{multiple}x": f"Six plans of each norm (rows) for the first task of each family (columns), at "
        f"{multiple}× the training horizon. Points are planned waypoints."
        for multiple in config["multiples"]
    }
    columns = list(runs[0]) if runs else []
    facts = {
        "runs": listed(config["runs"]),
        "training seeds": listed(seeds),
        "episodes": f"{settings['episodes']} per task, {len(result['rows']):,} in all",
        "rollouts": ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, "")),
    }
    return Section(
        "Comparison",
        f"{counted(len(result['summary']), 'norm')}, {counted(len(seeds), 'training seed')}. {_validity(result)}",
        [
            "The same planner was trained once per norm and seed, everything else equal, on demonstrations alone. "
            "It then planned demonstrated and held-out tasks; every plan was executed on MuJoCo. "
            + result.get("counted", "")
        ],
        pictures=[Picture(f"{name}.png", caption) for name, caption in pictures.items()],
        tables=[
            _results_table(result),
            family_table(result),
            *([Table(columns, [list(run.values()) for run in runs], "Runs", folded=True)] if runs else []),
        ],
        notes=NOTES,
        facts=facts | origin_facts(origin),
        commands=[command_text(origin) or made],
        data=["comparison.json", "comparison.json.gz"],
    )


def _validity(result: Mapping[str, Any]) -> str:
    """Valid plans on the last column of held-out tasks, norm by norm."""
    columns = [column for column in next(iter(result["summary"].values())) if column.startswith("held out")]
    if not columns:
        return ""
    cells = {label: entries[columns[-1]]["plan_valid"] for label, entries in result["summary"].items()}
    shown = "; ".join(f"{label} {MEASURES['plan_valid'].text(cell)}" for label, cell in cells.items())
    return f"Valid plans ({columns[-1]}): {shown}."
