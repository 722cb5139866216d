"""The tables of the initial prejudice, out of the study's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundwork.intervals import mean_intervals
from groundwork.tables import Cell, Table, measured
from norm_study.init_bias.guesses import at_depth
from norm_study.reproduce.parts import Collected

# Another implementation's medians of max(f0, 1 - f0) at depths 1 and 20, to three digits. Its number of networks
# is taken as that of a check that came with them.
REPLICA: dict[tuple[str, str], tuple[float, float]] = {
    ("none", "pre"): (0.678, 1.000),
    ("batch", "pre"): (0.675, 0.672),
    ("batch", "post"): (0.508, 0.518),
    ("layer", "pre"): (0.682, 0.998),
    ("layer", "post"): (0.513, 0.543),
}
REPLICA_DEPTHS = (1, 20)
REPLICA_NETWORKS = 400
REPLICA_ROUNDING = 0.0005


def allowed_difference(summary: Mapping[str, Any], points: int) -> float:
    """How far two medians may lie apart: both 95 % Monte Carlo errors, the replica's rounding, our resolution."""
    half = max(summary["median_max_fraction_high"] - summary["median_max_fraction_low"], 1 / points) / 2
    return half * math.sqrt(1 + summary["inits"] / REPLICA_NETWORKS) + REPLICA_ROUNDING + 0.5 / points


def _spread(summary: Mapping[str, Any], name: str, form: str = ".3f") -> Cell:
    return measured({"mean": summary[name], "low": summary[name + "_low"], "high": summary[name + "_high"]}, form)


def _label(config: Any) -> str:
    return config.norm if config.norm == "none" else f"{config.norm} {config.place}"


def shares_table(results: Mapping[str, Collected]) -> Table:
    """Measured shares beside the replica's, and beside the theory; one line per norm, place and depth."""
    titles = [
        "norm",
        "depth",
        "median of max(f0, 1−f0)",
        "replica",
        "allowed",
        "P(max > .95)",
        "γ",
        "verdict",
        "theory's median",
        "KS",
        "scaled γ",
        "scaled median",
        "scaled KS",
    ]
    lines: list[list[Cell]] = []
    for found in (one for one in results.values() if one.part.experiment == "init-bias"):
        config = found.part.config()
        replica = dict(zip(REPLICA_DEPTHS, REPLICA.get((config.norm, config.place), ()), strict=False))
        for depth in config.depths:
            s = at_depth(config, found.rows, depth)
            beside = ["", ""]
            if depth in replica:
                beside = [f"{replica[depth]:.3f}", f"± {allowed_difference(s, config.points):.3f}"]
            lines.append(
                [
                    _label(config),
                    str(depth),
                    _spread(s, "median_max_fraction"),
                    *beside,
                    _spread(s, "p_over_95"),
                    _spread(s, "gamma", ".3g"),
                    s["verdict"],
                    f"{s['theory_median']:.3f}",
                    _spread(s, "ks"),
                    f"{s['scaled_gamma']:.3g}",
                    f"{s['scaled_theory_median']:.3f}",
                    _spread(s, "scaled_ks"),
                ]
            )
    return Table(titles, lines, "What untrained networks guess")


def training_table(results: Mapping[str, Collected]) -> Table:
    """Steps until the bias is gone and until the task is learned; means and 95 % intervals over seeds."""
    columns = {
        "initial_bias": "initial bias",
        "initial_loss_spread": "spread of class losses at the start",
        "gone_step": "steps until the bias is gone",
        "gone_share": "share that loses it",
        "learned_step": "steps until learned",
        "learned_share": "share that learns",
        "accuracy": "accuracy at the end",
        "worst_class_accuracy": "of the worst class",
    }
    lines: list[list[Cell]] = []
    for found in (one for one in results.values() if one.part.experiment == "init-bias-training"):
        config = found.part.config()
        means = mean_intervals(found.rows, columns)
        cells = [measured(mean, ".0f" if name.endswith("_step") else ".2f") for name, mean in means.items()]
        lines.append([_label(config), str(config.depth), *cells])
    return Table(["norm", "depth", *columns.values()], lines, "Training")
