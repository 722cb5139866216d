"""What lies in a folder, read as sections of a report: kinds are recognised by the files that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from groundwork.errors import UserError
from groundwork.tables import interval_text
from norm_study.report.markdown import Table, inline, read_command, read_introduction, read_tables, without_constants
from norm_study.report.measurements import measurement_section
from norm_study.report.section import (
    Section,
    command_text,
    counted,
    listed,
    origin_facts,
    pictures_in,
    read_stored,
)
from norm_study.reproduce.results import FIGURES, measured
from norm_study.stitching import figures as stitch_figures
from planner.comparison.compare import format_cell, result_rows, table_measures, table_rows
from planner.training.run import RunFolder, find_run, shipped_names

KINDS = (
    "planner train (config.yaml), planner compare (comparison.json), norm-study reproduce (claims.json), "
    "norm-study stitch (tables.md, fix.md), or files of --json"
)
LONGEST_SENTENCE = 8
OVER = "Means with 95 % intervals, over training seeds where there are at least three, else over episodes."


def read_folders(paths: Sequence[Path]) -> tuple[list[Section], list[RunFolder]]:
    """Sections and run folders of all ``paths``, in their order.

    A folder stands for what is known in the folders directly in it, too, such as the runs of a comparison. The name
    of a shipped planner stands for its folder.

    Raises:
        UserError: no such folder, one with nothing that is known, or a damaged file.
    """
    sections: dict[Path, list[Section]] = {}
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        if str(path) in shipped_names():
            path = find_run(path).path
        if not path.is_dir():
            raise UserError(f"{path} is {'no folder' if path.exists() else 'missing'}: report takes folders")
        own = [] if _is_run(path) else list(_sections_of(path))
        children = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
        found = {path.resolve(): own} if own else {}
        if not _is_run(path):
            studies = [child for child in children if not _is_run(child) and child.name != "rows"]
            found |= {child.resolve(): list(_sections_of(child)) for child in studies}
        inside = {folder.resolve(): RunFolder(folder) for folder in [path, *children] if _is_run(folder)}
        if not any(found.values()) and not inside:
            raise UserError(f"{path} holds nothing to report; known are outputs of {KINDS}")
        sections, runs = sections | found, runs | inside
    return [section for own in sections.values() for section in own], list(runs.values())


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _sections_of(folder: Path) -> Iterator[Section]:
    readers: tuple[tuple[Callable[[Path], bool], Callable[[Path], Section]], ...] = (
        (lambda at: (at / "claims.json").is_file(), _study),
        (lambda at: _comparison_file(at) is not None, _comparison),
        (lambda at: (at / "tables.md").is_file() and (at / "summary.json").is_file(), _stitching),
        (lambda at: (at / "fix.md").is_file(), _fix),
    )
    try:
        for known, read in readers:
            if known(folder):
                yield read(folder)
        section = measurement_section(folder)
        if section is not None:
            yield section
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{folder} holds a result that cannot be read ({error!r})") from error


# norm-study reproduce


def _study(folder: Path) -> Section:
    claims = read_stored(folder / "claims.json")
    verdicts = Counter(claim["verdict"] for claim in claims)
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    tables = []
    for name in ("init_bias.md", "parts.md"):
        if (folder / name).is_file():
            tables += list(read_tables((folder / name).read_text(encoding="utf-8")))
    tables = [table if table.title else Table("Sizes and durations", table.head, table.rows) for table in tables]
    configs = [read_stored(path)["config"] for path in sorted((folder / "rows").glob("*.json"))]
    origin = read_stored(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    facts = _row_facts(configs, [seed for config in configs for seed in config["seeds"]]) | origin_facts(origin)
    return Section(
        "reproduction",
        folder,
        f"{counted(len(claims), 'claim')} of the papers: {said}.",
        "A claim is supported when the whole 95 % interval over seeds keeps its rule, not supported when the whole "
        "interval breaks it, and undecided otherwise.",
        [{**claim, "measured": measured(claim["interval"])} for claim in claims],
        tables,
        pictures_in(folder / "figures", {name: caption for name, (_, _, caption) in FIGURES.items()}),
        facts,
        [command_text(origin) or "norm-study reproduce"],
    )


def _row_facts(configs: list[dict[str, Any]], seeds: list[int]) -> dict[str, str]:
    """What the stored rows say of where and how long they were made."""
    facts = {"seeds": listed(sorted(seeds))}
    for name, title in (("torch", "torch"), ("device", "device"), ("threads", "threads")):
        values = [config[name] for config in configs if name in config]
        facts |= {title: listed(values)} if values else {}
    seconds = sum(config.get("seconds", 0) for config in configs)
    return facts | ({"computed for": f"{seconds / 60:.0f} minutes, one part after another"} if seconds else {})


# planner compare


def _comparison_file(folder: Path) -> Path | None:
    files = [folder / name for name in ("comparison.json", "comparison.json.gz")]
    return next((file for file in files if file.is_file()), None)


def _comparison(folder: Path) -> Section:
    file = _comparison_file(folder)
    assert file is not None
    result = read_stored(file)
    config, seeds = result["config"], sorted({row["run_seed"] for row in result["rows"]})
    measures = table_measures(result["summary"])
    tables = [
        Table("Results", ["norm", "tasks", *measures, "over"], result_rows(result), OVER, grouped=True),
        Table("By family of tasks", ["tasks", "norm", *measures], table_rows(result["families"]), grouped=True),
    ]
    captions = {"bars": "Means of each norm with 95 % intervals. Dotted: the longest step of the data."} | {
        f"plans_{multiple}x": f"Six plans of each norm (rows) for one task of each family (columns) at {multiple}× "
        "the training horizon. Points are planned waypoints."
        for multiple in config["multiples"]
    }
    origin = result.get("provenance", {})
    settings = {name: value for name, value in config["settings"].items() if value not in (None, "")}
    facts = {
        "runs": listed(config["runs"]),
        "training seeds": listed(seeds),
        "episodes": f"{config['settings']['episodes']} per task, {len(result['rows']):,} in all",
        "rollouts": ", ".join(f"{name} {value}" for name, value in settings.items()),
    }
    multiples = ",".join(map(str, config["multiples"]))
    command = (
        f"planner compare {' '.join(config['runs'])} --multiples {multiples} --episodes {settings['episodes']} "
        f"--seed {settings['seed']} --out {folder}"
    )
    return Section(
        "comparison",
        folder,
        f"{counted(len(result['summary']), 'norm')}, {counted(len(seeds), 'training seed')}. {_validity(result)}",
        "A planner that composes seen pieces loses little from demonstrated to held-out tasks. Success can stay high "
        "while plans fall apart, since the controller bridges a hole: look at valid plans and the longest step first.",
        (),
        tables,
        pictures_in(folder, captions),
        facts | origin_facts(origin),
        [command_text(origin) or command],
    )


def _validity(result: dict[str, Any]) -> str:
    """Valid plans on the last column of held-out tasks, norm by norm."""
    columns = [column for column in next(iter(result["summary"].values())) if column.startswith("held out")]
    if not columns:
        return ""
    cells = {label: entries[columns[-1]]["plan_valid"] for label, entries in result["summary"].items()}
    shown = "; ".join(f"{label} {format_cell(cell, 'plan_valid')}" for label, cell in cells.items())
    return f"Valid plans ({columns[-1]}): {shown}."


# norm-study stitch


def _stitching(folder: Path) -> Section:
    text, summary = (folder / "tables.md").read_text(encoding="utf-8"), read_stored(folder / "summary.json")
    configs = [read_stored(path)["config"] for path in sorted((folder / "rows").glob("*.json*"))]
    facts = _row_facts(configs, [config["seed"] for config in configs])
    facts["runs"] = listed([run for config in configs for run in config["runs"]])
    cells = summary["cells"]
    return Section(
        "stitching",
        folder,
        f"{counted(len(cells), 'cell')}. Valid plans on held-out tasks: {_shown(cells)}.",
        read_introduction(text),
        (),
        [without_constants(table, ("padding", "field", "cells", "seeds")) for table in read_tables(text)],
        [picture for picture in pictures_in(folder, _stitching_captions()) if picture.name != "fix"],
        {name.replace("seeds", "rollout seeds"): value for name, value in facts.items()},
        [read_command(text)],
    )


def _shown(cells: dict[str, Any]) -> str:
    """Validity on held-out tasks at the longest horizon, cell by cell as far as one sentence carries."""
    only_norms = len({name.partition("-")[2] for name in cells}) == 1
    shown = []
    for name, splits in list(cells.items())[:LONGEST_SENTENCE]:
        multiple, last = list(splits["by_horizon"].items())[-1]
        norm = name.partition("-")[0] if only_norms else name
        shown.append(f"{norm} {interval_text(last['held_out']['plan_valid'], '.0f', ' %')} at {multiple}×")
    return "; ".join(shown) + ("; …" if len(cells) > LONGEST_SENTENCE else "")


def _stitching_captions() -> dict[str, str]:
    return {draw.__name__: (draw.__doc__ or draw.__name__).strip() for draw in stitch_figures.FIGURES}


def _fix(folder: Path) -> Section:
    text = (folder / "fix.md").read_text(encoding="utf-8")
    caption = "Valid plans against steps of fine-tuning after the norm's exchange."
    pictures = [one for one in pictures_in(folder, {"fix": caption}) if one.name == "fix"]
    tables = [Table("Recovery", table.head, table.rows) for table in read_tables(text)]
    return Section(
        "fix",
        folder,
        "A trained planner's norm exchanged and fine-tuned: valid plans and success against steps spent.",
        str(inline(text.strip().splitlines()[-1])),
        (),
        tables,
        pictures,
        {},
        [read_command(text)],
    )
