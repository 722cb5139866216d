"""Figure 4: how far a GroupNorm network localizes, against its number of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import stats

from norm_study.localization.localize import chunks, predict_as_trained, prediction_row, train_networks
from norm_study.localization.probes import probe_predictions
from norm_study.localization.settings import GroupsConfig
from norm_study.localization.welch import localize


def run_groups(config: GroupsConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains every (groups, learning rate, seed), the seeds side by side.

    Returns:
        One row each; ``localization_distance`` is that of a probe on the final hidden layer, as in the paper,
        ``output_distance`` that of the network's own predictions.
    """
    rows: list[dict[str, Any]] = []
    for count, rate in product(config.group_counts, config.learning_rates):
        sizes = replace(config, groups=count, learning_rate=rate)
        for chunk in chunks(seeds, config.batch * config.width * config.length, device):
            networks = train_networks(sizes, chunk, device)
            probed = probe_predictions(networks, chunk, sizes, sizes, [config.depth - 1])[0]
            for seed, network, probe in zip(chunk, networks, probed, strict=True):
                own = predict_as_trained(network, seed, sizes)
                row = prediction_row(own, config.alpha, config.reach)
                found = localize(probe, config.alpha)
                rows.append(
                    {
                        "groups": count,
                        "learning_rate": rate,
                        "seed": seed,
                        "mse": row["mse"],
                        "localization_distance": found.distance,
                        "localized_share": found.share,
                        "unbroken_distance": found.unbroken_distance,
                        "output_distance": row["localization_distance"],
                        "output_share": row["localized_share"],
                    }
                )
    return rows


def best_rates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per (groups, seed) the row of the learning rate that reached the smallest error."""
    best: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        key = (row["groups"], row["seed"])
        if key not in best or row["mse"] < best[key]["mse"]:
            best[key] = row
    return [best[key] for key in sorted(best)]


def rank_correlations(rows: Sequence[dict[str, Any]], measure: str) -> list[float]:
    """Per seed Spearman's correlation of ``measure`` with the number of groups, best learning rates.

    A measure that is the same for all group counts has no order; it counts as 0.
    """
    best, found = best_rates(rows), []
    for seed in sorted({row["seed"] for row in best}):
        own = [row for row in best if row["seed"] == seed]
        values = [row[measure] for row in own]
        constant = len(set(values)) < 2
        rho = 0.0 if constant else stats.spearmanr([row["groups"] for row in own], values).statistic
        found.append(float(np.asarray(rho)))
    return found
