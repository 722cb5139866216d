"""An audit as files: influence maps, leakage against distance, the table of modules, and a section and its page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from groundwork.files import save_figure, write_atomically
from groundwork.page import page
from groundwork.section import Picture, Section
from groundwork.style import BLUE, GRAY, ORANGE, STYLE
from groundwork.tables import Table, number
from norm_study.audit.findings import AuditReport
from norm_study.audit.influence import Estimate
from norm_study.audit.subject import aligned

MAPS = {
    "full": ("as the network is", "The network as it is: every pixel outside the lines is leakage."),
    "frozen": ("mixing modules made local", "With every mixing module made local: what the convolutions pass."),
    "difference": ("difference", "The difference of the two Jacobians: what the mixing modules bear, inside and out."),
}
DECADES = 8


def influence(report: AuditReport, name: str) -> np.ndarray:
    """(N, S) J(t, s) of the sampled output times in order; several inputs at one time are averaged as energies."""
    energies = getattr(report.maps, name).mean(1)
    return np.sqrt([energies[report.maps.times == time].mean(0) for time in np.unique(report.maps.times)])


def figure_map(report: AuditReport, name: str) -> Figure:
    """One influence map, with the receptive field's bounds drawn in."""
    figure = Figure(figsize=(6.2, 4.4))
    ax = figure.subplots()
    shown, times = influence(report, name), np.unique(report.maps.times)
    top = influence(report, "full").max() or 1.0
    edges = _edges(times, report.maps.length)
    # clipped at the lowest color, so that rounding does not look like influence
    mesh = ax.pcolormesh(
        np.arange(shown.shape[1] + 1) - 0.5,
        edges,
        np.maximum(shown, top * 10.0**-DECADES),
        cmap="viridis",
        norm=LogNorm(top * 10.0**-DECADES, top),
        rasterized=True,
    )
    left, right = report.receptive_field
    every = np.arange(report.maps.length)
    positions = np.array([aligned(int(time), report.maps.length, shown.shape[1]) for time in every])
    for bound in (positions - left - 0.5, positions + right + 0.5):
        ax.plot(bound, every, color="white", lw=1, ls="--")
    ax.set(
        xlabel="input time s",
        ylabel="output time t",
        title=MAPS[name][0],
        xlim=(-0.5, shown.shape[1] - 0.5),
        ylim=(report.maps.length - 0.5, -0.5),
    )
    figure.colorbar(mesh, ax=ax, label="influence J(t, s)")
    return figure


def _edges(times: np.ndarray, length: int) -> np.ndarray:
    """Each sampled time fills the rows up to halfway to its neighbours."""
    return np.concatenate([[-0.5], (times[1:] + times[:-1]) / 2, [length - 0.5]])


def figure_distance(report: AuditReport) -> Figure:
    """Share of the energy that comes from farther than each distance."""
    figure = Figure(figsize=(6.2, 3.4))
    ax = figure.subplots()
    rows = report.by_distance()
    distance = [row["distance"] for row in rows]
    for name, color, label in (("full", ORANGE, "as it is"), ("frozen", GRAY, "mixing modules made local")):
        shares = np.array([row[name] for row in rows])
        ax.plot(distance, np.where(shares > 0, shares, np.nan), color=color, lw=1.8, label=label)
    left, right = report.receptive_field
    for side, style, label in ((left, "--", f"left {left}"), (right, ":", f"right {right}")):
        ax.axvline(side, color=BLUE, lw=1, ls=style, label=f"receptive field, {label}")
    ax.set(xlabel="distance in input steps", ylabel="share of energy from farther", yscale="log", ylim=(1e-12, 2))
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def figure_modules(report: AuditReport) -> Figure:
    """Leakage of every module that mixes time: alone, and what remains without it."""
    modules = report.leaking_modules
    figure = Figure(figsize=(7.4, 1.2 + 0.24 * len(modules)))
    ax = figure.subplots()
    height = np.arange(len(modules))
    for name, color, marker, label in (
        ("leakage_alone", ORANGE, "o", "it alone active"),
        ("leakage_without", GRAY, "s", "it alone made local"),
    ):
        values = [getattr(module, name) for module in modules]
        ax.plot([np.nan if v is None else v for v in values], height, marker, color=color, ms=5, label=label)
    if report.leakage is not None:
        ax.axvline(report.leakage.value, color="black", lw=0.8, ls="--", label="whole network")
    ax.set_yticks(height, [module.name or "the network itself" for module in modules], fontsize=7)
    ax.set(xlabel="leakage", ylim=(len(modules) - 0.5, -0.5))
    ax.set_xlim(left=0)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def draw(report: AuditReport) -> dict[str, tuple[Figure, str]]:
    """All figures with their captions."""
    figures = {f"map_{name}": (figure_map(report, name), caption) for name, (_, caption) in MAPS.items()}
    figures["distance"] = (figure_distance(report), "What comes from farther than the receptive field is leakage.")
    if report.leaking_modules and report.leakage is not None:
        caption = "A module far to the right alone, or far to the left without it, is where to begin."
        figures["modules"] = (figure_modules(report), caption)
    return figures


def write_audit(report: AuditReport, folder: Path) -> None:
    """Writes figures (PNG), ``modules.csv``, ``audit.json``, the section and the self-contained ``audit.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    with mpl.rc_context(STYLE):
        for name, (figure, caption) in draw(report).items():
            save_figure(figure, folder / f"{name}.png", dpi=160, metadata={"Software": None})
            pictures.append(Picture(f"{name}.png", caption))
    write_atomically(folder / "modules.csv", modules_csv(report))
    write_atomically(folder / "audit.json", json.dumps(report.to_dict(), allow_nan=False) + "\n")
    section = replace(audit_section(report), pictures=pictures).write(folder)
    write_atomically(folder / "audit.html", page([section]))


def audit_section(report: AuditReport) -> Section:
    """What an audit found."""
    if report.leakage is None:
        summary = "No leakage is given."
    else:
        summary = f"**{share_text(report.leakage)}** of what the output hears comes from beyond the receptive field."
    left, right = report.receptive_field
    cost, levels = report.cost, report.settings.get("levels")
    facts = {
        "receptive field": f"{left} steps to the left, {right} to the right",
        "change of the Jacobian when mixing modules are made local": number(report.jacobian_change.value),
    }
    for moved in report.finite:
        at = f" (level {levels[moved.input]})" if levels else ""
        facts[f"output movement, input {moved.input}{at}"] = (
            f"{number(moved.value)} standard deviations when everything beyond the receptive field is redrawn"
        )
    facts["rows of the full Jacobian"] = f"{100 * cost['share_of_jacobian_rows']:.2g} % computed"
    if "peak_memory_mb" in cost:
        facts["peak memory of the process"] = f"{cost['peak_memory_mb']:.0f} MB"
    parts = {name.removeprefix("seconds_"): one for name, one in cost.items() if name.startswith("seconds_")}
    facts["seconds"] = ", ".join(f"{name.replace('_', ' ')} {one:.1f}" for name, one in parts.items())
    facts["settings"] = "; ".join(f"{name} {value}" for name, value in report.settings.items())
    return Section(
        f"Leak audit of {report.settings['network']}",
        f"**{report.verdict}**: {report.reason}. {summary} "
        f"{len(report.leaking_modules)} of {len(report.modules)} modules mix time by themselves.",
        tables=_modules_tables(report),
        notes=[f"Note: {note}." for note in report.notes],
        facts=facts,
        data=["audit.json"],
    )


def share_text(found: Estimate) -> str:
    """A share with its standard error, in per cent."""
    error = "" if found.standard_error is None else f" ± {100 * found.standard_error:.2g}"
    return f"{100 * found.value:.3g} %{error}"


def _modules_tables(report: AuditReport) -> list[Table]:
    """The modules that mix with what each leaks, and all of them."""
    whole = [[module.name or "the network itself", module.type, module.verdict] for module in report.modules]
    mixing = []
    for module in report.modules:
        if module.verdict != "local":
            also = " and the batch" if module.mixes_batch and module.verdict == "mixes time" else ""
            design = ", by design" if module.by_design else ""
            about = [module.name or "the network itself", module.type, module.verdict + also + design]
            mixing.append([*about, number(module.leakage_alone), number(module.leakage_without)])
    columns = ["module", "class", "verdict"]
    leakage = ["leakage, it alone active", "leakage without it"]
    return [
        Table([*columns, *leakage], mixing, "Modules that mix", "" if mixing else "None."),
        Table(columns, whole, "All modules", folded=True),
    ]


def modules_csv(report: AuditReport) -> str:
    """The table of modules."""
    text = io.StringIO()
    rows: list[dict[str, Any]] = report.to_dict()["rows"]
    names = ["name", "type", "verdict", "by_design", "mixes_batch", "leakage_alone", "leakage_without"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
