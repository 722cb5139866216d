"""The claims table and one self-contained page out of the study's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from groundwork.files import write_atomically
from groundwork.page import image_uri, render
from groundwork.tables import interval_text, markdown_table
from norm_study.reproduce.claims import decide_all
from norm_study.reproduce.figures import FIGURES as LOCALIZATION_FIGURES
from norm_study.reproduce.figures import draw_figures
from norm_study.reproduce.init_bias_figures import INIT_BIAS_FIGURES
from norm_study.reproduce.init_bias_tables import tables_markdown
from norm_study.reproduce.parts import (
    Budget,
    Collected,
    collect,
    load_parts,
    parts_file,
    run_parts,
)
from planner.training.run import provenance

FIGURES = {**LOCALIZATION_FIGURES, **INIT_BIAS_FIGURES}


def measured(interval: Mapping[str, Any]) -> str:
    """A claim's mean and interval."""
    return interval_text(interval, ".3g")


def claims_markdown(claims: Sequence[Mapping[str, Any]]) -> str:
    """The claims as a Markdown table."""
    lines = []
    for claim in claims:
        verdict = f"**{claim['verdict']}**" + (" (from the full rows)" if claim["from_full_rows"] else "")
        about = [claim["sentence"], claim["source"], claim["number"], claim["rule"]]
        lines.append([*about, measured(claim["interval"]), str(len(claim["seeds"])), verdict])
    titles = ["claim", "source", "number", "rule", "measured, mean [95 % interval]", "seeds", "verdict"]
    return markdown_table(titles, lines) + "\n"


def parts_table(results: Mapping[str, Collected]) -> list[dict[str, Any]]:
    """Sizes and durations of every finished part, for the page and the documentation."""
    table = []
    for name, found in results.items():
        config = vars(found.part.config())
        shown = (
            "norm",
            "length",
            "depth",
            "kernel",
            "width",
            "dim",
            "dim_mults",
            "batch",
            "steps",
            "learning_rate",
            "learning_rates",
            "overlap",
            "coupled",
            "minibatch",
            "place",
            "activation",
            "data",
            "inits",
            "points",
            "networks",
        )
        hidden = {"minibatch"} if config.get("norm") != "batch" else set()
        if "learning_rates" in config:
            hidden.add("learning_rate")
        sizes = ", ".join(f"{key} {config[key]}" for key in shown if key in config and key not in hidden)
        ran = {"seeds": found.seeds, "seconds": found.seconds, "borrowed": found.borrowed}
        table.append({"name": name, "experiment": found.part.experiment, "sizes": sizes, **ran})
    return table


def parts_markdown(results: Mapping[str, Collected]) -> str:
    """Sizes and durations as a Markdown table."""
    lines = ["| part | sizes | seeds | seconds |", "|---|---|---|---|"]
    lines += [
        f"| `{row['name']}` | {row['sizes']} | {_seeds(row)} | {row['seconds']:.0f} |" for row in parts_table(results)
    ]
    minutes = sum(found.seconds for found in results.values()) / 60
    lines += ["", f"Together {minutes:.0f} minutes, one after another."]
    return "\n".join(lines) + "\n"


def page(budget: str, claims: Sequence[Mapping[str, Any]], results: Mapping[str, Collected], folder: Path) -> str:
    """One HTML page with everything inside it, figures as SVG."""
    figures = [
        {"name": name, "caption": FIGURES[name][2], "image": image_uri(path.read_bytes(), "svg")}
        for name in FIGURES
        if (path := folder / "figures" / f"{name}.svg").is_file() and all(p in results for p in FIGURES[name][1])
    ]
    shown = [{**claim, "measured": measured(claim["interval"])} for claim in claims]
    parts = [
        [row["name"] + " (full rows)" * row["borrowed"], row["sizes"], _seeds(row), f"{row['seconds']:.0f}"]
        for row in parts_table(results)
    ]
    return render("norm_study.reproduce", "study.html.j2", budget=budget, claims=shown, figures=figures, parts=parts)


def _seeds(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row["seeds"]))


def reproduce(budget: Budget, out: Path, full_rows: Path, device: torch.device, only: str = "", jobs: int = 1) -> None:
    """Runs the budget's parts, those whose names begin with ``only``, then writes figures, claims and the page.

    Prints one line per claim. Parts that the budget leaves out come from ``full_rows``.
    """
    write_atomically(
        out / "provenance.json", json.dumps({"budget": budget, **provenance(None, device)}, indent=1) + "\n"
    )
    parts = load_parts(parts_file())
    chosen = [part for part in parts if budget in part.budgets and part.name.startswith(only)]
    for _ in run_parts(chosen, out / "rows", device, jobs):
        pass
    write_results(budget, out, collect(parts, out / "rows", full_rows if budget == "quick" else None))


def write_results(budget: Budget, out: Path, results: Mapping[str, Collected]) -> None:
    """Figures, claims (JSON and Markdown), sizes and the page, out of what is finished."""
    claims = decide_all(results)
    draw_figures(FIGURES, results, out / "figures")
    write_atomically(out / "claims.json", json.dumps(claims, allow_nan=False, indent=1) + "\n")
    write_atomically(out / "claims.md", claims_markdown(claims))
    write_atomically(out / "parts.md", parts_markdown(results))
    write_atomically(out / "init_bias.md", tables_markdown(results))
    write_atomically(out / "report.html", page(budget, claims, results, out))
    for claim in claims:
        source = " (full rows)" if claim["from_full_rows"] else ""
        print(f"{claim['verdict']:<13} {measured(claim['interval']):<28} {claim['sentence']}{source}")
    print(f"page: {out / 'report.html'}")
