"""The paper's figures out of the study's rows, on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from groundwork.files import save_figure
from groundwork.intervals import mean_interval
from groundwork.style import BLUE, GRAY, GREEN, ORANGE, STYLE
from norm_study.localization.groups import best_rates
from norm_study.reproduce.parts import Collected

Results = Mapping[str, Collected]


def _predictions(ax: Any, row: dict[str, Any], color: str, label: str, suffix: str = "") -> None:
    """Single predictions as dots, their mean as a line."""
    mean, samples = np.array(row["mean" + suffix]), np.array(row["samples" + suffix])
    index = np.arange(len(mean))
    for one in samples:
        ax.plot(index, one, ".", color=color, ms=3.5, alpha=0.45, mew=0)
    ax.plot(index, mean, color=color, lw=1.8, label=label)


def _position_axes(ax: Any, length: int, left: int, right: int) -> None:
    """Index against predicted position, with the target and the lines between which no end is seen."""
    ax.plot([0, length - 1], [-1, 1], color="black", lw=0.8, ls=(0, (1, 2)), label="target")
    for x in (left - 0.5, length - right - 0.5):
        ax.axvline(x, color="black", lw=0.8, ls="--")
    ax.set(xlabel="sequence index", ylabel="predicted position", xlim=(0, length - 1), ylim=(-1.5, 1.5))


def _legend_above(ax: Any, columns: int = 3, height: float = 1.04) -> None:
    """Above the axes, where it covers neither curves nor lines."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, height), ncols=columns, borderaxespad=0, columnspacing=1.2)


def figure_1a(results: Results) -> Figure:
    """Predictions without norm in grey, with InstanceNorm in orange."""
    figure = Figure(figsize=(5.2, 3.4))
    ax = figure.subplots()
    config = results["localize-none"].part.config()
    _predictions(ax, results["localize-none"].rows[0], GRAY, "no norm")
    _predictions(ax, results["localize-instance"].rows[0], ORANGE, "InstanceNorm")
    _position_axes(ax, config.length, config.reach, config.reach)
    _legend_above(ax)
    return figure


def figure_1b(results: Results) -> Figure:
    """Which indices the probe on each hidden layer localizes: share of the seeds."""
    figure = Figure(figsize=(7.4, 3.1))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name, title in zip(axes, ("probe-none", "probe-instance"), ("no norm", "InstanceNorm"), strict=True):
        found = results[name]
        config = found.part.config()
        layers = config.depth - 1
        share = np.zeros((layers, config.length))
        for row in found.rows:
            share[row["layer"] - 1, row["localized"]] += 1 / len(found.seeds)
        mesh = ax.imshow(
            share,
            aspect="auto",
            origin="lower",
            cmap="Blues",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(-0.5, config.length - 0.5, 0.5, layers + 0.5),
        )
        depth = np.arange(1, layers + 1)
        reach = depth * (config.kernel - 1) / 2
        for factor, style, label in ((1, "-", "$r_d$"), (3, "--", "$3\\,r_d$")):
            from_left = np.where(factor * reach <= config.length / 2, factor * reach - 0.5, np.nan)
            ax.plot(from_left, depth, color=ORANGE, ls=style, lw=1.6, label=label)
            ax.plot(config.length - 1 - from_left, depth, color=ORANGE, ls=style, lw=1.6)
        ax.set(title=title, xlabel="sequence index", xlim=(-0.5, config.length - 0.5), ylim=(0.5, layers + 0.5))
    axes[0].set_ylabel("hidden layer d")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    figure.colorbar(mesh, ax=axes, label="share of seeds that localize")
    return figure


def figure_3(results: Results) -> Figure:
    """Error against overlap, coupled by PackNorm and not."""
    figure = Figure(figsize=(5.2, 3.2))
    ax = figure.subplots()
    parts = [found for name, found in results.items() if name.startswith("packnorm")]
    for coupled, color, marker, label in (
        (True, ORANGE, "o", "joined by PackNorm"),
        (False, GRAY, "s", "each normalized alone"),
    ):
        chosen = sorted((p for p in parts if p.part.config().coupled == coupled), key=lambda p: p.part.config().overlap)
        overlaps = [p.part.config().overlap for p in chosen]
        ax.plot(
            overlaps,
            [np.mean([row["mse"] for row in p.rows]) for p in chosen],
            color=color,
            lw=1.5,
            marker=marker,
            ms=6,
            label=label,
        )
        for overlap, p in zip(overlaps, chosen, strict=True):
            ax.plot([overlap] * len(p.rows), [row["mse"] for row in p.rows], "_", color="black", ms=8, mew=0.8)
    length = parts[0].part.config().length
    ax.axhline(1, color="black", lw=0.8, ls=(0, (1, 2)))
    ax.set(
        xlabel=f"overlap of the two sequences (length {length})",
        ylabel="mean squared error",
        ylim=(0, 1.1),
        xlim=(-1, length),
    )
    ax.legend(loc="lower left")
    return figure


def figure_4(results: Results) -> Figure:
    """Localization distance and error against the number of groups, best learning rate of each."""
    found = results["groups"]
    config, best = found.part.config(), best_rates(found.rows)
    figure = Figure(figsize=(7.4, 3.0))
    axes = figure.subplots(1, 2)
    names = (("localization_distance", "localization distance (indices)"), ("mse", "mean squared error"))
    for ax, (measure, label) in zip(axes, names, strict=True):
        stats = [mean_interval([r[measure] for r in best if r["groups"] == g]) for g in config.group_counts]
        ax.plot(config.group_counts, [s["mean"] for s in stats], "o-", color=ORANGE, lw=1.5, label="mean")
        for g in config.group_counts:
            own = [row[measure] for row in best if row["groups"] == g]
            ax.plot([g] * len(own), own, "_", color="black", ms=9, mew=0.9, label="seeds" if g == 1 else None)
        ax.set_xscale("log", base=2)
        ax.set_xticks(config.group_counts, [str(g) for g in config.group_counts])
        ax.set(xlabel="number of groups", ylabel=label)
    axes[0].axhline(config.length / 2, color=BLUE, lw=1, ls=":", label="L / 2: all of it")
    axes[0].axhline(config.reach, color=GRAY, lw=1, ls="--", label="receptive field r")
    axes[0].set_ylim(0, config.length / 2 + 6)
    axes[0].legend(loc="lower right", ncols=2, fontsize=8)
    return figure


def _batchnorm(results: Results, kind: str, label: str) -> Figure:
    figure = Figure(figsize=(5.2, 3.4))
    ax = figure.subplots()
    found = results["batchnorm"]
    config, row = found.part.config(), found.rows[0]
    _predictions(ax, row, ORANGE, label, f"_{kind}")
    _position_axes(ax, config.length, config.reach, config.reach)
    marks = [i for i in row[f"localized_{kind}"] if config.reach <= i < config.length - config.reach]
    ax.plot(marks, [-1.4] * len(marks), "|", color=BLUE, ms=7, mew=1.5)
    ax.plot([], [], "|", color=BLUE, ms=7, mew=1.5, label=f"localized, interior ({len(marks)})")
    _legend_above(ax, columns=2)
    return figure


def figure_5(results: Results) -> Figure:
    """BatchNorm with minibatch statistics."""
    return _batchnorm(results, "minibatch", "BatchNorm, minibatch statistics")


def figure_6(results: Results) -> Figure:
    """BatchNorm with running statistics."""
    return _batchnorm(results, "running", "BatchNorm, running statistics")


def figure_multihop(results: Results) -> Figure:
    """Mean predictions where a single hop reaches 3r and the sequence is longer than 6r."""
    figure = Figure(figsize=(5.2, 3.4))
    ax = figure.subplots()
    found = results["multihop"]
    config = found.part.config()
    for which, row in enumerate(found.rows):
        ax.plot(row["mean"], color=ORANGE, lw=1.4, alpha=1 - 0.25 * which, label=f"seed {row['seed']}")
        beyond = [i for i in row["localized"] if 3 * config.reach <= i < config.length - 3 * config.reach]
        ax.plot(beyond, [-1.08 - 0.14 * which] * len(beyond), "|", color=BLUE, ms=5, mew=1.5)
    ax.plot([], [], "|", color=BLUE, ms=6, mew=1.5, label="localized beyond 3r")
    _position_axes(ax, config.length, 3 * config.reach, 3 * config.reach)
    for x in (config.reach - 0.5, config.length - config.reach - 0.5):
        ax.axvline(x, color=GRAY, lw=0.8, ls=":")
    for x, text in ((config.reach, "r"), (3 * config.reach, "3r")):
        ax.annotate(text, (x - 0.5, 1.5), xytext=(0, 3), textcoords="offset points", ha="center")
    _legend_above(ax, height=1.1)
    return figure


def figure_unet(results: Results) -> Figure:
    """The planner's U-Net with three norms: mean predictions, and what is localized."""
    figure = Figure(figsize=(5.8, 3.6))
    ax = figure.subplots()
    kinds = (
        ("group", ORANGE, "GroupNorm"),
        ("none", GRAY, "no norm"),
        ("channel", GREEN, "norm over channels"),
    )
    for which, (kind, color, label) in enumerate(kinds):
        row = results[f"unet-{kind}"].rows[0]
        ax.plot(row["mean"], color=color, lw=1.8, label=label, ls=("-", "-", "--")[which])
        ax.plot(row["localized"], [-1.2 - 0.11 * which] * len(row["localized"]), "|", color=color, ms=6, mew=1.4)
    _position_axes(ax, results["unet-group"].part.config().length, row["left"], row["right"])
    ax.set_ylim(-1.55, 1.6)
    ax.plot([], [], "|", color="black", ms=6, mew=1.4, label="localized index")
    _legend_above(ax)
    return figure


Figures = Mapping[str, tuple[Callable[[Results], Figure], tuple[str, ...], str]]
FIGURES: Figures = {
    "figure1a": (
        figure_1a,
        ("localize-none", "localize-instance"),
        "Predictions of one network each; dots are single inputs, dashed lines bound the indices "
        "whose receptive field touches no end.",
    ),
    "figure1b": (
        figure_1b,
        ("probe-none", "probe-instance"),
        "Indices that a probe on each hidden layer localizes, with r_d and 3 r_d.",
    ),
    "figure3": (
        figure_3,
        ("packnorm-0", "packnorm-8", "packnorm-16", "packnorm-24"),
        "Telling two sequences apart through the norm alone; ticks are seeds.",
    ),
    "figure4": (figure_4, ("groups",), "GroupNorm: distance and error against the number of groups."),
    "figure5": (figure_5, ("batchnorm",), "BatchNorm with the minibatch's statistics."),
    "figure6": (figure_6, ("batchnorm",), "The same network with running statistics."),
    "multihop": (figure_multihop, ("multihop",), "Localization farther than a single hop reaches."),
    "unet": (
        figure_unet,
        ("unet-group", "unet-none", "unet-channel"),
        "The planner's U-Net on the same problem; ticks below the curves mark localized indices.",
    ),
}


def draw_figures(figures: Figures, results: Results, folder: Path) -> list[str]:
    """Writes every figure whose parts are there, as SVG and PNG; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (draw, parts, _) in figures.items():
        if all(part in results for part in parts):
            with mpl.rc_context(STYLE):
                figure = draw(results)
                save_figure(figure, folder / f"{name}.svg", metadata={"Date": None})
                save_figure(figure, folder / f"{name}.png", dpi=160)
            drawn.append(name)
    return drawn
