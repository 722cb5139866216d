"""The tables of the initial prejudice out of the study's rows, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from norm_study.init_bias import at_depth
from norm_study.reproduce import Collected
from planner.intervals import mean_interval

# Another implementation's medians of max(f0, 1 - f0) at depths 1 and 20, to three digits. Its number of networks
# is taken as that of a check that came with them.
REPLICA: dict[tuple[str, str], tuple[float, float]] = {
    ("none", "before"): (0.678, 1.000), ("batch", "before"): (0.675, 0.672), ("batch", "after"): (0.508, 0.518),
    ("layer", "before"): (0.682, 0.998), ("layer", "after"): (0.513, 0.543),
}  # fmt: skip
REPLICA_DEPTHS = (1, 20)
REPLICA_NETWORKS = 400
REPLICA_ROUNDING = 0.0005


def allowed_difference(summary: Mapping[str, Any], points: int) -> float:
    """How far two medians may lie apart: both 95 % Monte Carlo errors, the replica's rounding, our resolution."""
    half = max(summary["median_max_fraction_high"] - summary["median_max_fraction_low"], 1 / points) / 2
    return half * math.sqrt(1 + summary["inits"] / REPLICA_NETWORKS) + REPLICA_ROUNDING + 0.5 / points


def _spread(summary: Mapping[str, Any], name: str, digits: str = ".3f") -> str:
    return f"{summary[name]:{digits}} [{summary[name + '_low']:{digits}}, {summary[name + '_high']:{digits}}]"


def shares_markdown(results: Mapping[str, Collected]) -> str:
    """Measured shares beside the replica's, and beside the theory; one line per norm, place and depth."""
    lines = [
        "| norm | depth | median of max(f0, 1−f0) | replica | allowed | P(max > .95) | γ | verdict | theory's median "
        "| KS | scaled γ | scaled median | scaled KS |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in (one for one in results.values() if one.part.experiment == "init-bias"):
        config = found.part.config()
        replica = dict(zip(REPLICA_DEPTHS, REPLICA.get((config.norm, config.place), ()), strict=False))
        for depth in config.depths:
            s = at_depth(config, found.rows, depth)
            beside = ("", "")
            if depth in replica:
                beside = (f"{replica[depth]:.3f}", f"± {allowed_difference(s, config.points):.3f}")
            cells = (
                config.norm if config.norm == "none" else f"{config.norm} {config.place}", str(depth),
                _spread(s, "median_max_fraction"), *beside,
                _spread(s, "p_over_95"), _spread(s, "gamma", ".3g"), s["verdict"], f"{s['theory_median']:.3f}",
                _spread(s, "ks"), f"{s['scaled_gamma']:.3g}", f"{s['scaled_theory_median']:.3f}",
                _spread(s, "scaled_ks"),
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def training_markdown(results: Mapping[str, Collected]) -> str:
    """Steps until the bias is gone and until the task is learned; means and 95 % intervals over seeds."""
    names = ("initial_bias", "initial_loss_spread", "gone_step", "gone_share", "learned_step", "learned_share",
             "accuracy", "worst_class_accuracy")  # fmt: skip
    lines = [
        "| norm | depth | initial bias | spread of class losses at the start | steps until the bias is gone "
        "| share that loses it | steps until learned | share that learns | accuracy at the end | of the worst class |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in (one for one in results.values() if one.part.experiment == "init-bias-training"):
        config = found.part.config()
        cells = [config.norm if config.norm == "none" else f"{config.norm} {config.place}", str(config.depth)]
        for name in names:
            value = mean_interval([row[name] for row in found.rows])
            digits = ".0f" if name.endswith("_step") else ".2f"
            bounds = "" if value["low"] is None else f" [{value['low']:{digits}}, {value['high']:{digits}}]"
            cells.append(f"{value['mean']:{digits}}{bounds}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables_markdown(results: Mapping[str, Collected]) -> str:
    """Both tables."""
    return (
        f"## What untrained networks guess\n\n{shares_markdown(results)}\n## Training\n\n{training_markdown(results)}"
    )
