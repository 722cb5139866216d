"""Sections out of the files that ``--json`` writes: audits, leakage beside validity, and any other measurement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundwork.section import Picture, Section, listed, read_stored
from groundwork.tables import Cell, Table, cell_text, measured
from norm_study.audit.findings import with_todays_names
from norm_study.audit.report import MAPS

LONGEST_LIST = 12
CAPTIONS = {
    **{f"map_{name}": caption for name, (_, caption) in MAPS.items()},
    "distance": "What comes from farther than the receptive field is leakage.",
    "modules": "Leakage of each module alone, and what remains without it.",
    "leakage": "Leakage of each trained planner beside its valid plans on held-out tasks.",
}


def measurement_section(folder: Path, told: Collection[str] = ()) -> Section | None:
    """All measurements that lie in a folder but in the files ``told``, or ``None`` if there are none."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name not in told]
    stored = {path.stem: one for path in files if isinstance(one := read_stored(path), dict)}
    stored = {name: one for name, one in stored.items() if {"config", "summary"} <= set(one)}
    if not stored:
        return None
    stored = {name: with_todays_names(one) for name, one in stored.items()}
    audits = {name: one for name, one in stored.items() if is_audit(one)}
    others = {name: one for name, one in stored.items() if name not in audits}
    tables = [_audits_table(audits)] if audits else []
    tables += [_modules_table(name, one) for name, one in audits.items() if one["summary"]["leaking_modules"]]
    tables += [table for name, one in others.items() for table in summary_tables(name, one["summary"])]
    drawn = {name: [*folder.glob(f"{name}.svg"), *folder.glob(f"{name}.png")] for name in CAPTIONS}
    return Section(
        "Audits" if audits else "Measurements",
        _said(audits, others),
        [_INTRODUCTION] if audits else [],
        pictures=[Picture(found[0].name, CAPTIONS[name]) for name, found in drawn.items() if found],
        tables=tables,
        facts={name: _settings(one["config"]) for name, one in stored.items()},
        data=[f"{name}.json" for name in stored],
        folder=folder,
    )


def is_audit(result: Mapping[str, Any]) -> bool:
    """Whether a measurement is a network's leak audit."""
    return {"leakage", "receptive_field", "leaking_modules"} <= set(result["summary"])


_INTRODUCTION = (
    "Leakage is the share of the Jacobian's energy that comes from beyond the receptive field, ± its standard error; "
    "the change of the Jacobian, squared and over its energy, is what making every mixing module local does; "
    "movement is how far the output moves, in its standard deviations, when all that lies beyond is drawn anew."
)


def _said(audits: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    leaks = [f"{name} {_share(one['summary']['leakage'])}" for name, one in audits.items()]
    parts = [f"Leakage: {'; '.join(leaks)}."] if leaks else []
    return " ".join(parts + ([f"Measured: {listed(list(others))}."] if others else []))


def _share(found: Mapping[str, Any] | None) -> str:
    """A share with its standard error, in per cent."""
    if found is None or found["value"] is None:
        return "–"
    error = found["standard_error"]
    return f"{100 * found['value']:.3g} %" + ("" if error is None else f" ± {100 * error:.2g}")


def _audits_table(audits: Mapping[str, Any]) -> Table:
    head = [
        "audit",
        "network",
        "shape",
        "receptive field",
        "verdict",
        "leakage",
        "change of the Jacobian",
        "movement",
        "modules that mix",
    ]
    rows = []
    for name, one in audits.items():
        config, summary = one["config"], one["summary"]
        left, right = summary["receptive_field"]
        moved = [f"{movement['value']:.3g}" for movement in summary["finite"] if movement["value"] is not None]
        shape = " × ".join(map(str, config["shapes"][0]))
        mixing = f"{summary['leaking_modules']} of {len(one['rows'])}"
        rows.append(
            [
                name,
                str(config.get("network", config["module"])),
                shape,
                f"−{left} … +{right}",
                summary.get("verdict", "–"),
                _share(summary["leakage"]),
                _plain(summary["jacobian_change"]["value"]),
                listed(moved) or "–",
                mixing,
            ]
        )
    return Table(head, rows, "Networks")


def _modules_table(name: str, one: Mapping[str, Any]) -> Table:
    rows = [
        [row["name"] or "the network itself", row["type"], row["verdict"], *(_plain(row[key]) for key in keys)]
        for keys in [("leakage_alone", "leakage_without")]
        for row in one["rows"]
        if row["verdict"] != "local"
    ]
    columns = ["module", "class", "verdict", "leakage, alone", "without it"]
    return Table(columns, rows, f"{name}: modules that mix")


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in config.items() if value is not None)


# any summary


def summary_tables(name: str, summary: Mapping[str, Any]) -> list[Table]:
    """A summary as tables: single numbers in one, nested ones in one each; long lists of numbers are left out."""
    single = [[key.replace("_", " "), _cell(value)] for key, value in summary.items() if _is_single(value)]
    tables = [Table(["measure", "value"], single, name)] if single else []
    for key, value in summary.items():
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            columns = [column for column in value[0] if _is_single(value[0][column])]
            rows = [[_cell(entry[column]) for column in columns] for entry in value]
            tables.append(Table(columns, rows, f"{name}: {key.replace('_', ' ')}"))
    nested = {key: value for key, value in summary.items() if isinstance(value, dict) and not _is_single(value)}
    flat = {key: value for key, value in nested.items() if all(_is_single(one) for one in value.values())}
    if flat:
        columns = list(dict.fromkeys(column for value in flat.values() for column in value))
        rows = [[key, *(_cell(value.get(column)) for column in columns)] for key, value in flat.items()]
        tables.append(Table(["", *columns], rows, name))
    for key, value in nested.items():
        if key not in flat:
            tables += summary_tables(f"{name}: {key}", value)
    return tables


def _is_single(value: Any) -> bool:
    if isinstance(value, dict):
        return "mean" in value
    if isinstance(value, list):
        return len(value) <= LONGEST_LIST and not any(isinstance(entry, dict | list) for entry in value)
    return True


def _cell(value: Any) -> Cell:
    """A number, interval, list or word as a cell."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case {"mean": _}:
            return measured(value, ".3g")
        case float():
            return f"{value:.3g}"
        case list():
            return _listed(value)
        case _:
            return str(value)


def _plain(value: Any) -> str:
    return cell_text(_cell(value))


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"({_listed(one)})" if isinstance(one, list) else _plain(one) for one in values)
