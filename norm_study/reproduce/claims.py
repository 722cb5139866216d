"""Each claim of the papers as data; :mod:`groundwork.verdicts` decides them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from groundwork.verdicts import Claim, Measure, Number, Rule, judge
from norm_study.init_bias.guesses import arrays_at
from norm_study.init_bias.theory import DEEP_FROM, NEUTRAL_BELOW, PILED_UP, gamma_of, theory_median
from norm_study.localization.groups import rank_correlations
from norm_study.localization.localize import norm_free_floor
from norm_study.reproduce.parts import Collected


def decide_all(results: Mapping[str, Collected]) -> list[dict[str, Any]]:
    """One entry per claim, in the order of :data:`CLAIMS`."""
    table = []
    for claim in CLAIMS:
        found = results.get(claim.rule.part)
        table.append(judge(claim, found, found.seeds if found else [], borrowed=bool(found and found.borrowed)))
    return table


def _each(name: str) -> Measure:
    return lambda found: [float(row[name]) for row in found.rows]


def _over_floor(found: Collected) -> list[float]:
    config = found.part.config()
    floor = norm_free_floor(config.length, config.reach)
    return [row["mse"] / floor for row in found.rows]


def _beyond_single_hop(found: Collected) -> list[float]:
    return [row["localization_distance"] - 3 * found.part.config().reach for row in found.rows]


def _beyond_reach_of_layer(found: Collected) -> list[float]:
    """Per seed the farthest that any layer's probe localizes beyond r_d; negative when it stays inside."""
    return [max(row["distance"] - row["reach"] for row in found.rows if row["seed"] == seed) for seed in found.seeds]


def _localized_percent(found: Collected) -> list[float]:
    return [100 * row["localized_share"] for row in found.rows]


def _percent_in_last_layer(found: Collected) -> list[float]:
    last = found.part.config().depth - 1
    return [100 * row["localized_share"] for row in found.rows if row["layer"] == last]


def _trend(name: str) -> Measure:
    return lambda found: rank_correlations(found.rows, name)


def _over_own_floor(name: str) -> Measure:
    return lambda found: [row[name] / row["floor"] for row in found.rows]


def _shares(found: Collected, depth: int) -> Iterator[dict[str, np.ndarray]]:
    """Per seed the measures of the untrained networks of a depth."""
    for seed in found.seeds:
        yield arrays_at(found.part.config(), [row for row in found.rows if row["seed"] == seed], depth)


def _gamma(depth: int) -> Measure:
    return lambda found: [float(gamma_of(one["mean"], one["deviation"])) for one in _shares(found, depth)]


def _piled_up_percent(depth: int) -> Measure:
    return lambda found: [100 * float((one["max_fraction"] > PILED_UP).mean()) for one in _shares(found, depth)]


def _theory_gap(depth: int, prefix: str = "") -> Measure:
    """How far the theory's median of the largest share lies from the measured one."""
    return lambda found: [
        abs(
            float(np.median(one["max_fraction"]))
            - theory_median(float(gamma_of(one[f"{prefix}mean"], one[f"{prefix}deviation"])))
        )
        for one in _shares(found, depth)
    ]


NONE_OF_ALL = 0.5
INTERIOR = "localized indices that see neither end"
PLACEMENT = "Where You Place the Norm Matters"
GAP = "theory's median of the largest share minus the measured one, absolute"
OVER_FLOOR = Number("error over the norm-free floor", _over_floor)
INTERIOR_LOCALIZED = Number(INTERIOR, _each("interior_localized"))
BEYOND_REACH = Number("largest probe distance minus r_d over layers", _beyond_reach_of_layer)
ERROR = Number("error", _each("mse"))
DEEP_GAMMA = Number("gamma at depth 20", _gamma(20))
GONE_STEP = Number("steps until the bias is gone", _each("gone_step"))
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Without norm the error stays at what a receptive field allows.",
        "section 3.1",
        Rule(OVER_FLOOR, "localize-none", "at most", 1.08),
    ),
    Claim(
        "A norm-free network localizes no interior index.",
        "proposition C.1",
        Rule(INTERIOR_LOCALIZED, "localize-none", "at most", NONE_OF_ALL),
    ),
    Claim(
        "With InstanceNorm the network learns the whole position.",
        "section 3.1, figure 1a",
        Rule(OVER_FLOOR, "localize-instance", "at most", 0.25),
    ),
    Claim(
        "With InstanceNorm the whole sequence is localized.",
        "section 3.1, figure 1a",
        Rule(Number("localized indices, %", _localized_percent), "localize-instance", "at least", 95),
    ),
    Claim(
        "Without norm position spreads linearly: no layer knows it beyond its receptive field.",
        "section 3.1, figure 1b",
        Rule(BEYOND_REACH, "probe-none", "at most", NONE_OF_ALL),
    ),
    Claim(
        "With InstanceNorm the last layers know every position.",
        "section 3.1, figure 1b",
        Rule(
            Number("localized indices of the last hidden layer's probe, %", _percent_in_last_layer),
            "probe-instance",
            "at least",
            95,
        ),
    ),
    Claim(
        "Some layer knows positions beyond its receptive field.",
        "section 3.1, figure 1b",
        Rule(BEYOND_REACH, "probe-instance", "at least", 1),
    ),
    Claim(
        "Information takes several hops: localization beyond 3r.",
        "section 3.2",
        Rule(Number("localization distance minus 3r", _beyond_single_hop), "multihop", "at least", 1),
    ),
    Claim(
        "Two sequences without overlap cannot be told apart.",
        "section 3.2, figure 3",
        Rule(ERROR, "packnorm-0", "at least", 0.97),
    ),
    Claim(
        "An overlap of a quarter is too little.", "section 3.2, figure 3", Rule(ERROR, "packnorm-8", "at least", 0.9)
    ),
    Claim(
        "At half the length the sequences are told apart.",
        "section 3.2, figure 3",
        Rule(ERROR, "packnorm-16", "at most", 0.3),
    ),
    Claim(
        "At three quarters the error is near zero.", "section 3.2, figure 3", Rule(ERROR, "packnorm-24", "at most", 0.1)
    ),
    Claim(
        "Without the coupling overlap is of no use.",
        "section 3.2 (control)",
        Rule(ERROR, "packnorm-24-uncoupled", "at least", 0.97),
    ),
    Claim(
        "Constant inputs carry no message: interior predictions are the same number.",
        "remark 2.2",
        Rule(
            Number("largest difference within the interior", _each("constant_input_spread")),
            "localize-instance",
            "at most",
            0.0001,
        ),
    ),
    Claim(
        "Trained on constant inputs, InstanceNorm does not beat the norm-free floor.",
        "remark 2.2",
        Rule(OVER_FLOOR, "localize-constant", "at least", 0.99),
    ),
    Claim(
        "The error falls with the number of groups.",
        "section 3.3, figure 4",
        Rule(Number("rank correlation of error and groups", _trend("mse"), (-1.0, 1.0)), "groups", "at most", -0.5),
    ),
    Claim(
        "The localization distance does not fall with the number of groups.",
        "section 3.3, figure 4",
        Rule(
            Number("rank correlation of distance and groups", _trend("localization_distance"), (-1.0, 1.0)),
            "groups",
            "at least",
            0,
        ),
    ),
    Claim(
        "BatchNorm with minibatch statistics localizes what no norm-free network can.",
        "section 3.3, figure 5",
        Rule(Number(INTERIOR, _each("interior_localized_minibatch")), "batchnorm", "at least", 1),
    ),
    Claim(
        "BatchNorm with minibatch statistics beats the norm-free floor.",
        "section 3.3, figure 5",
        Rule(Number("error over the norm-free floor", _over_own_floor("mse_minibatch")), "batchnorm", "at most", 0.95),
    ),
    Claim(
        "Running statistics lose the ability.",
        "section 3.3, figure 6",
        Rule(Number(INTERIOR, _each("interior_localized_running")), "batchnorm", "at most", NONE_OF_ALL),
    ),
    Claim(
        "With running statistics the error is back above the floor.",
        "section 3.3, figure 6",
        Rule(Number("error over the norm-free floor", _over_own_floor("mse_running")), "batchnorm", "at least", 1),
    ),
    Claim(
        "GroupNorm carries position beyond the planner U-Net's receptive field.",
        "section 1, case study",
        Rule(INTERIOR_LOCALIZED, "unet-group", "at least", 1),
    ),
    Claim(
        "The U-Net without norm does not.",
        "proposition C.1 (control)",
        Rule(INTERIOR_LOCALIZED, "unet-none", "at most", NONE_OF_ALL),
    ),
    Claim(
        "The U-Net with a norm over channels does not.",
        "control, not in the paper",
        Rule(INTERIOR_LOCALIZED, "unet-channel", "at most", NONE_OF_ALL),
    ),
    Claim(
        "The U-Net without norm is equivariant to shifts by its total stride.",
        "proposition C.1",
        Rule(Number("largest difference, in standard deviations", _each("shift_error")), "unet-none", "at most", 0.001),
    ),
    Claim(
        "A norm over channels localizes no interior index.",
        "control, not in the paper",
        Rule(INTERIOR_LOCALIZED, "localize-channel", "at most", NONE_OF_ALL),
    ),
    Claim(
        "A root mean square over channels localizes no interior index.",
        "control, not in the paper",
        Rule(INTERIOR_LOCALIZED, "localize-rms", "at most", NONE_OF_ALL),
    ),
    Claim(
        "Without norm a deep untrained network is deeply prejudiced.",
        PLACEMENT,
        Rule(DEEP_GAMMA, "init-none", "at least", DEEP_FROM),
    ),
    Claim(
        "Most such networks put nearly all data into one class.",
        PLACEMENT,
        Rule(
            Number("networks of depth 20 with more than 95 % in one class, %", _piled_up_percent(20)),
            "init-none",
            "at least",
            50,
        ),
    ),
    Claim(
        "BatchNorm before the activation leaves the prejudice of one layer.",
        PLACEMENT,
        Rule(Number("gamma at depth 1", _gamma(1)), "init-batch-pre", "at least", NEUTRAL_BELOW),
    ),
    Claim(
        "BatchNorm before the activation keeps it from growing deep.",
        PLACEMENT,
        Rule(DEEP_GAMMA, "init-batch-pre", "at most", DEEP_FROM),
    ),
    Claim(
        "BatchNorm after the activation makes the start neutral.",
        PLACEMENT,
        Rule(DEEP_GAMMA, "init-batch-post", "at most", NEUTRAL_BELOW),
    ),
    Claim(
        "LayerNorm before the activation leaves it deeply prejudiced.",
        PLACEMENT,
        Rule(DEEP_GAMMA, "init-layer-pre", "at least", DEEP_FROM),
    ),
    Claim(
        "LayerNorm after the activation makes the start neutral.",
        PLACEMENT,
        Rule(DEEP_GAMMA, "init-layer-post", "at most", NEUTRAL_BELOW),
    ),
    Claim(
        "The theory meets the median of one layer without norm.",
        PLACEMENT,
        Rule(Number(GAP, _theory_gap(1)), "init-none", "at most", 0.02),
    ),
    Claim(
        "The theory meets the median of twenty layers without norm.",
        PLACEMENT,
        Rule(Number(GAP, _theory_gap(20)), "init-none", "at most", 0.01),
    ),
    Claim(
        "It does once the scale of each point, which changes no guess, is divided out.",
        "ours",
        Rule(Number(GAP, _theory_gap(20, "scaled_")), "init-none", "at most", 0.01),
    ),
    Claim(
        "A prejudiced start keeps its bias for a while.",
        PLACEMENT,
        Rule(GONE_STEP, "init-training-none-20", "at least", 10),
    ),
    Claim(
        "Batch-normed after the activation, a start has no bias to lose.",
        PLACEMENT,
        Rule(GONE_STEP, "init-training-batch-post-20", "at most", 10),
    ),
    Claim(
        "A neutral start stays neutral: LayerNorm after the activation.",
        "ours",
        Rule(GONE_STEP, "init-training-layer-post-20", "at most", 10),
    ),
)
