"""What the rows of each localization experiment amount to, with intervals over seeds."""

from __future__ import annotations

from typing import Any

from groundwork.intervals import mean_interval, mean_intervals
from norm_study.localization.groups import best_rates, rank_correlations
from norm_study.localization.localize import norm_free_floor
from norm_study.localization.settings import (
    BatchNormConfig,
    GroupsConfig,
    LocalizationConfig,
    MultihopConfig,
    PackNormConfig,
    ProbeConfig,
    UNetConfig,
)

Rows = list[dict[str, Any]]


def localization(config: LocalizationConfig, rows: Rows) -> dict[str, Any]:
    """Error, localization and floor of one norm."""
    names = ("mse", "localization_distance", "localized_share", "unbroken_distance", "interior_localized")
    return {
        **mean_intervals(rows, names),
        "floor": norm_free_floor(config.length, config.reach),
        "length": config.length,
        "receptive_field": config.reach,
    }


def multihop(config: MultihopConfig, rows: Rows) -> dict[str, Any]:
    """The same, and how far a single hop reaches."""
    return {**localization(config, rows), "single_hop_reach": 3 * config.reach}


def probes(config: ProbeConfig, rows: Rows) -> dict[str, Any]:
    """What each hidden layer knows, layer by layer."""
    layers = [
        {
            "layer": layer,
            "reach": layer * (config.kernel - 1) // 2,
            **mean_intervals([row for row in rows if row["layer"] == layer], ("mse", "distance", "localized_share")),
        }
        for layer in range(1, config.depth)
    ]
    return {"layers": layers, "length": config.length, "receptive_field": config.reach}


def packnorm(config: PackNormConfig, rows: Rows) -> dict[str, Any]:
    """The error at an overlap."""
    sizes = {"overlap": config.overlap, "length": config.length, "coupled": config.coupled}
    return {**mean_intervals(rows, ("mse",)), **sizes}


def groups(config: GroupsConfig, rows: Rows) -> dict[str, Any]:
    """The best learning rate of each number of groups, and whether more groups localize farther."""
    best = best_rates(rows)
    return {
        "best": [
            {
                "groups": count,
                **mean_intervals([row for row in best if row["groups"] == count], ("mse", "localization_distance")),
            }
            for count in config.group_counts
        ],
        "mse_rank_correlation": mean_interval(rank_correlations(rows, "mse")),
        "distance_rank_correlation": mean_interval(rank_correlations(rows, "localization_distance")),
        "length": config.length,
        "receptive_field": config.reach,
    }


def batchnorm(config: BatchNormConfig, rows: Rows) -> dict[str, Any]:
    """Error and localization under either statistics."""
    names = ("mse", "distance", "interior_localized")
    return {
        **mean_intervals(rows, [f"{name}_{kind}" for name in names for kind in ("minibatch", "running")]),
        "floor": norm_free_floor(config.length, config.reach),
        "length": config.length,
        "receptive_field": config.reach,
    }


def unet(config: UNetConfig, rows: Rows) -> dict[str, Any]:
    """Error, localization and floor of the U-Net."""
    names = ("mse", "localization_distance", "localized_share", "interior_localized", "interior_share", "shift_error")
    return {
        **mean_intervals(rows, names),
        "floor": rows[0]["floor"],
        "length": config.length,
        "receptive_field": [rows[0]["left"], rows[0]["right"]],
        "total_stride": config.total_stride,
    }
