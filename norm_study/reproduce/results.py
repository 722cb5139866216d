"""The reproduction's results out of its rows: claims with verdicts, figures, tables, one section and its page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.jobs import Executor
from groundwork.page import page
from groundwork.section import (
    Picture,
    Section,
    claims_tables,
    command_text,
    counted,
    origin_facts,
    read_stored,
    row_facts,
)
from groundwork.tables import Table, interval_text
from norm_study.reproduce.claims import decide_all
from norm_study.reproduce.figures import FIGURES as LOCALIZATION_FIGURES
from norm_study.reproduce.figures import draw_figures
from norm_study.reproduce.init_bias_figures import INIT_BIAS_FIGURES
from norm_study.reproduce.init_bias_tables import shares_table, training_table
from norm_study.reproduce.parts import Budget, Collected, collect, load_parts, parts_file, run_parts
from planner.norms import norm_facts
from planner.training.provenance import provenance

FIGURES = {**LOCALIZATION_FIGURES, **INIT_BIAS_FIGURES}
SIZES = (
    *("norm", "length", "depth", "kernel", "width", "dim", "dim_mults", "batch", "steps", "learning_rate"),
    *("learning_rates", "overlap", "coupled", "minibatch", "place", "activation", "data", "inits", "points"),
    "networks",
)


def parts_table(results: Mapping[str, Collected]) -> Table:
    """Sizes and durations of every finished part."""
    rows = []
    for name, found in results.items():
        config = vars(found.part.config())
        hidden = set() if "batch" in norm_facts(config.get("norm", "none")).over else {"minibatch"}
        hidden |= {"learning_rate"} if "learning_rates" in config else set()
        sizes = ", ".join(f"{key} {config[key]}" for key in SIZES if key in config and key not in hidden)
        rows.append(
            [
                f"`{name}`" + " (full rows)" * found.borrowed,
                sizes,
                ", ".join(map(str, found.seeds)),
                f"{found.seconds:.0f}",
            ]
        )
    minutes = sum(found.seconds for found in results.values()) / 60
    note = f"Together {minutes:.0f} minutes, one after another."
    return Table(["part", "sizes", "seeds", "seconds"], rows, "Sizes and durations", note)


def reproduction_section(folder: Path, results: Mapping[str, Collected]) -> Section:
    """What a reproduction found, out of the parts that are finished.

    Args:
        folder: where its rows, figures and provenance lie.
        results: by name, as :func:`norm_study.reproduce.parts.collect` reads them.
    """
    claims = decide_all(results)
    said = ", ".join(f"{count} {verdict}" for verdict, count in Counter(c["verdict"] for c in claims).most_common())
    configs = [read_stored(path)["config"] for path in sorted((folder / "rows").glob("*.json"))]
    origin = read_stored(file) if (file := folder / "provenance.json").is_file() else {}
    seeds = [seed for config in configs for seed in config["seeds"]]
    return Section(
        "Reproduction",
        f"{counted(len(claims), 'claim')} of the papers: {said}.",
        [
            "Each claim of *Spooky Action at a Distance* and of *Where You Place the Norm Matters* with the number "
            "that decides it. A claim is supported when the whole 95 % interval over seeds keeps its rule, not "
            "supported when the whole interval breaks it, and undecided otherwise."
        ],
        claims,
        [
            Picture(f"figures/{name}.svg", caption)
            for name, (_, parts, caption) in FIGURES.items()
            if all(part in results for part in parts) and (folder / "figures" / f"{name}.svg").is_file()
        ],
        [shares_table(results), training_table(results), parts_table(results)],
        facts=row_facts(configs, seeds) | origin_facts(origin),
        commands=[command_text(origin) or "norm-study reproduce"],
        data=["claims.json"],
        folder=folder,
    )


def reproduce(budget: Budget, out: Path, full_rows: Path, device: torch.device, only: str, executor: Executor) -> None:
    """Runs the budget's parts, those whose names begin with ``only``, then writes figures, claims and the page.

    Prints one line per claim. Parts that the budget leaves out come from ``full_rows``.

    Raises:
        UserError: no part begins so.
    """
    parts = load_parts(parts_file())
    chosen = [part for part in parts if budget in part.budgets and part.name.startswith(only)]
    if not chosen:
        names = ", ".join(part.name for part in parts if budget in part.budgets)
        raise UserError(f"only = {only} begins no part of budget {budget}; its parts are {names}")
    write_atomically(
        out / "provenance.json", json.dumps({"budget": budget, **provenance(None, device)}, indent=1) + "\n"
    )
    run_parts(chosen, out / "rows", device, executor)
    write_results(out, collect(parts, out / "rows", full_rows if budget == "quick" else None))


def write_results(out: Path, results: Mapping[str, Collected]) -> None:
    """Figures, claims (JSON and Markdown), tables, the section and its page, out of what is finished."""
    draw_figures(FIGURES, results, out / "figures")
    section = reproduction_section(out, results)
    section.write(out)
    write_atomically(out / "claims.json", json.dumps(section.claims, allow_nan=False, indent=1) + "\n")
    write_atomically(out / "claims.md", claims_tables(section.claims)[0].markdown() + "\n")
    *init_bias, parts = section.tables
    write_atomically(out / "init_bias.md", Section("Initial bias", tables=init_bias).markdown())
    write_atomically(out / "parts.md", f"{parts.markdown()}\n\n{parts.note}\n")
    write_atomically(out / "report.html", page([section], "Normalization as a side channel through time"))
    for claim in section.claims:
        source = " (full rows)" if claim["from_full_rows"] else ""
        measured = interval_text(claim["interval"], ".3g")
        print(f"{claim['verdict']:<13} {measured:<28} {claim['sentence']}{source}")
    print(f"page: {out / 'report.html'}")
