"""Figures of the initial prejudice: its distribution, its growth with depth, and how it is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from groundwork.intervals import student_half
from groundwork.style import BLUE, GRAY, ORANGE
from norm_study.init_bias.guesses import arrays_at
from norm_study.init_bias.theory import NEUTRAL_BELOW, SMALLEST_GAMMA, gamma_of, theory_median
from norm_study.reproduce.figures import Figures, Results

COLORS = {"none": GRAY, "batch": ORANGE, "layer": BLUE}
VARIANTS = ("none", "batch-pre", "batch-post", "layer-pre", "layer-post")
PLACES = {"": "", "pre": "before", "post": "after"}
NAMES = {"none": "no norm", "batch": "BatchNorm", "layer": "LayerNorm"}
BINS = 25


def _norm_and_place(variant: str) -> tuple[str, str]:
    norm, _, place = variant.partition("-")
    return norm, place


def _label(variant: str) -> str:
    norm, place = _norm_and_place(variant)
    return f"{NAMES[norm]} {PLACES[place]}".strip()


def _line(variant: str) -> dict[str, Any]:
    """Colour says which norm, line and marker say which place."""
    norm, place = _norm_and_place(variant)
    shape = {"": ("-", "D"), "pre": ("-", "o"), "post": ("--", "s")}[place]
    wide = {"lw": 4} if norm == "none" else {}  # it runs under the one of LayerNorm before
    return {"color": COLORS[norm], "ls": shape[0], "marker": shape[1], "label": _label(variant), **wide}


def theory_density(f0: np.ndarray, gamma: float) -> np.ndarray:
    """The density of Phi(sqrt(gamma) delta)."""
    z, root = stats.norm.ppf(f0), np.sqrt(gamma)
    return stats.norm.pdf(z / root) / (root * stats.norm.pdf(z))


def figure_shares(results: Results) -> Figure:
    """Histograms of f0 at the smallest and the largest depth with the theory's density."""
    figure = Figure(figsize=(9.6, 4.0))
    axes = figure.subplots(2, len(VARIANTS), sharex=True)
    grid = np.linspace(0.002, 0.998, 500)
    for column, variant in enumerate(VARIANTS):
        found = results[f"init-{variant}"]
        config = found.part.config()
        for ax, depth in zip(axes[:, column], (config.depths[0], config.depth), strict=True):
            measured = arrays_at(config, found.rows, depth)
            f0, gamma = measured["f0"], float(gamma_of(measured["mean"], measured["deviation"]))
            scaled = float(gamma_of(measured["scaled_mean"], measured["scaled_deviation"]))
            counts, _, _ = ax.hist(
                f0, bins=BINS, range=(0, 1), density=True, color=COLORS[_norm_and_place(variant)[0]], alpha=0.45, lw=0
            )
            if gamma > NEUTRAL_BELOW / 1000:
                ax.plot(grid, theory_density(grid, gamma), color="black", lw=1.2, label="theory")
            else:
                ax.axvline(0.5, color="black", lw=1.2)
            ax.plot(grid, theory_density(grid, scaled), color="black", lw=1.2, ls=":", label="theory, scaled")
            ax.set(xlim=(0, 1), ylim=(0, 1.15 * counts.max()), yticks=[])
            name = _label(variant) + "\n" if depth == config.depths[0] else ""
            ax.set_title(
                f"{name}$\\gamma$ = {gamma:.2g}" if gamma > SMALLEST_GAMMA else f"{name}$\\gamma$ = 0", fontsize=9
            )
            if column == 0:
                ax.set_ylabel(f"depth {depth}")
        axes[1, column].set(xlabel="$f_0$", xticks=(0, 0.5, 1))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


def figure_depth(results: Results) -> Figure:
    """The median of the largest share against depth: measured (markers) and by theory (crosses)."""
    figure = Figure(figsize=(5.4, 3.6))
    ax = figure.subplots()
    for variant in VARIANTS:
        found = results[f"init-{variant}"]
        config = found.part.config()
        arrays = [arrays_at(config, found.rows, depth) for depth in config.depths]
        style = _line(variant)
        ax.plot(config.depths, [np.median(a["max_fraction"]) for a in arrays], ms=5, **{"lw": 1.4, **style})
        theory = [theory_median(float(gamma_of(a["mean"], a["deviation"]))) for a in arrays]
        ax.plot(
            config.depths,
            theory,
            "x",
            color="black",
            ms=6,
            mew=1,
            zorder=3,
            label="theory" if variant == VARIANTS[-1] else None,
        )
    ax.set_xscale("log")
    ax.set_xticks(config.depths, [str(depth) for depth in config.depths], minor=False)
    ax.minorticks_off()
    ax.set(xlabel="hidden layers", ylabel="median of max($f_0$, 1 − $f_0$)", ylim=(0.48, 1.02))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _band(ax: Any, steps: np.ndarray, curves_SE: np.ndarray, variant: str) -> None:
    """The mean over seeds and its 95 % interval."""
    mean = curves_SE.mean(0)
    half = student_half(curves_SE)
    style = {**_line(variant), "marker": ""}
    ax.fill_between(steps, mean - half, mean + half, color=style["color"], alpha=0.15, lw=0)
    ax.plot(steps, mean, **{"lw": 1.5, **style})


def figure_training(results: Results) -> Figure:
    """Bias and accuracy against the step, deep and shallow networks."""
    figure = Figure(figsize=(7.6, 5.0))
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, depth in enumerate((5, 20)):
        for variant in VARIANTS:
            found = results[f"init-training-{variant}-{depth}"]
            steps = np.array(found.rows[0]["steps"])
            for ax, name in zip(axes[:, column], ("bias", "accuracy"), strict=True):
                _band(ax, steps, np.array([row["curves"][name] for row in found.rows]), variant)
        within = found.part.config().even_within
        axes[0, column].axhline(within, color="black", lw=0.8, ls=":")
        axes[0, column].set(title=f"depth {depth}", ylim=(0, 1))
        axes[1, column].set(xlabel="step", ylim=(0, 1), xlim=(0, steps[-1]))
    axes[0, 0].set_ylabel("bias: predicted from\ntrue class shares")
    axes[1, 0].set_ylabel("accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


INIT_BIAS_FIGURES: Figures = {
    "init-shares": (
        figure_shares,
        tuple(f"init-{v}" for v in VARIANTS),
        "What untrained networks guess: the share of the data in class 0, over initialisations; "
        "lines are the theory with gamma from moments, not fitted.",
    ),
    "init-depth": (
        figure_depth,
        tuple(f"init-{v}" for v in VARIANTS),
        "The prejudice against depth; crosses are the theory's medians.",
    ),
    "init-training": (
        figure_training,
        tuple(f"init-training-{v}-{d}" for d in (20, 5) for v in VARIANTS),
        "How the initial bias is lost, and what is learned meanwhile; bands are 95 % intervals "
        "over seeds, the dotted line is where a bias counts as gone.",
    ),
}
