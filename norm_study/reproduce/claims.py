"""Each claim of the papers as data: its sentence, where it stands, the number that decides it, the rule.

A claim is *supported* when the whole 95 % interval over seeds keeps the rule, *not supported* when the whole
interval breaks it, and *undecided* otherwise, also when fewer than two seeds are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundwork.intervals import mean_interval
from norm_study.init_bias.guesses import arrays_at
from norm_study.init_bias.theory import DEEP_FROM, NEUTRAL_BELOW, PILED_UP, gamma_of, theory_median
from norm_study.localization.groups import rank_correlations
from norm_study.localization.localize import norm_free_floor
from norm_study.reproduce.parts import Collected

Verdict = Literal["supported", "not supported", "undecided", "not run"]
Measure = Callable[[Collected], list[float]]


@dataclass(frozen=True)
class Claim:
    """One claim and how it is decided.

    Attributes:
        sentence: what is claimed.
        source: section of the paper, or what kind of control it is.
        number: what is measured, per seed.
        part: the part of the study that it is measured on.
        measure: from that part's rows to one value per seed.
        sense: on which side of ``threshold`` the interval has to lie.
        threshold: the rule's number; the interval may touch it.
    """

    sentence: str
    source: str
    number: str
    part: str
    measure: Measure
    sense: Literal["at most", "at least"]
    threshold: float

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"{self.sense} {self.threshold:g}"


def decide(claim: Claim, values: list[float]) -> tuple[Verdict, dict[str, Any]]:
    """The verdict on one claim, and the interval that gave it."""
    interval = mean_interval(values)
    low, high = interval["low"], interval["high"]
    if low is None:
        return ("undecided" if values else "not run"), interval
    if claim.sense == "at least":
        low, high = -high, -low
    threshold = claim.threshold if claim.sense == "at most" else -claim.threshold
    return ("supported" if high <= threshold else "not supported" if low > threshold else "undecided"), interval


def decide_all(results: Mapping[str, Collected]) -> list[dict[str, Any]]:
    """One entry per claim, in the order of :data:`CLAIMS`."""
    table = []
    for claim in CLAIMS:
        collected = results.get(claim.part)
        values = claim.measure(collected) if collected else []
        verdict, interval = decide(claim, values)
        table.append(
            {
                "sentence": claim.sentence,
                "source": claim.source,
                "number": claim.number,
                "rule": claim.rule,
                "part": claim.part,
                "verdict": verdict,
                "interval": interval,
                "values": values,
                "seeds": collected.seeds if collected else [],
                "from_full_rows": bool(collected and collected.borrowed),
            }
        )
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
GONE = "steps until the bias is gone"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Without norm the error stays at what a receptive field allows.",
        "section 3.1",
        "error over the norm-free floor",
        "localize-none",
        _over_floor,
        "at most",
        1.08,
    ),
    Claim(
        "A norm-free network localizes no interior index.",
        "proposition C.1",
        INTERIOR,
        "localize-none",
        _each("interior_localized"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "With InstanceNorm the network learns the whole position.",
        "section 3.1, figure 1a",
        "error over the norm-free floor",
        "localize-instance",
        _over_floor,
        "at most",
        0.25,
    ),
    Claim(
        "With InstanceNorm the whole sequence is localized.",
        "section 3.1, figure 1a",
        "localized indices, %",
        "localize-instance",
        _localized_percent,
        "at least",
        95,
    ),
    Claim(
        "Without norm position spreads linearly: no layer knows it beyond its receptive field.",
        "section 3.1, figure 1b",
        "largest probe distance minus r_d over layers",
        "probe-none",
        _beyond_reach_of_layer,
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "With InstanceNorm the last layers know every position.",
        "section 3.1, figure 1b",
        "localized indices of the last hidden layer's probe, %",
        "probe-instance",
        _percent_in_last_layer,
        "at least",
        95,
    ),
    Claim(
        "Some layer knows positions beyond its receptive field.",
        "section 3.1, figure 1b",
        "largest probe distance minus r_d over layers",
        "probe-instance",
        _beyond_reach_of_layer,
        "at least",
        1,
    ),
    Claim(
        "Information takes several hops: localization beyond 3r.",
        "section 3.2",
        "localization distance minus 3r",
        "multihop",
        _beyond_single_hop,
        "at least",
        1,
    ),
    Claim(
        "Two sequences without overlap cannot be told apart.",
        "section 3.2, figure 3",
        "error",
        "packnorm-0",
        _each("mse"),
        "at least",
        0.97,
    ),
    Claim(
        "An overlap of a quarter is too little.",
        "section 3.2, figure 3",
        "error",
        "packnorm-8",
        _each("mse"),
        "at least",
        0.9,
    ),
    Claim(
        "At half the length the sequences are told apart.",
        "section 3.2, figure 3",
        "error",
        "packnorm-16",
        _each("mse"),
        "at most",
        0.3,
    ),
    Claim(
        "At three quarters the error is near zero.",
        "section 3.2, figure 3",
        "error",
        "packnorm-24",
        _each("mse"),
        "at most",
        0.1,
    ),
    Claim(
        "Without the coupling overlap is of no use.",
        "section 3.2 (control)",
        "error",
        "packnorm-24-uncoupled",
        _each("mse"),
        "at least",
        0.97,
    ),
    Claim(
        "Constant inputs carry no message: interior predictions are the same number.",
        "remark 2.2",
        "largest difference within the interior",
        "localize-instance",
        _each("constant_input_spread"),
        "at most",
        1e-4,
    ),
    Claim(
        "Trained on constant inputs, InstanceNorm does not beat the norm-free floor.",
        "remark 2.2",
        "error over the norm-free floor",
        "localize-constant",
        _over_floor,
        "at least",
        0.99,
    ),
    Claim(
        "The error falls with the number of groups.",
        "section 3.3, figure 4",
        "rank correlation of error and groups",
        "groups",
        _trend("mse"),
        "at most",
        -0.5,
    ),
    Claim(
        "The localization distance does not fall with the number of groups.",
        "section 3.3, figure 4",
        "rank correlation of distance and groups",
        "groups",
        _trend("localization_distance"),
        "at least",
        0,
    ),
    Claim(
        "BatchNorm with minibatch statistics localizes what no norm-free network can.",
        "section 3.3, figure 5",
        INTERIOR,
        "batchnorm",
        _each("interior_localized_minibatch"),
        "at least",
        1,
    ),
    Claim(
        "BatchNorm with minibatch statistics beats the norm-free floor.",
        "section 3.3, figure 5",
        "error over the norm-free floor",
        "batchnorm",
        _over_own_floor("mse_minibatch"),
        "at most",
        0.95,
    ),
    Claim(
        "Running statistics lose the ability.",
        "section 3.3, figure 6",
        INTERIOR,
        "batchnorm",
        _each("interior_localized_running"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "With running statistics the error is back above the floor.",
        "section 3.3, figure 6",
        "error over the norm-free floor",
        "batchnorm",
        _over_own_floor("mse_running"),
        "at least",
        1,
    ),
    Claim(
        "GroupNorm carries position beyond the planner U-Net's receptive field.",
        "section 1, case study",
        INTERIOR,
        "unet-group",
        _each("interior_localized"),
        "at least",
        1,
    ),
    Claim(
        "The U-Net without norm does not.",
        "proposition C.1 (control)",
        INTERIOR,
        "unet-none",
        _each("interior_localized"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "The U-Net with a norm over channels does not.",
        "control, not in the paper",
        INTERIOR,
        "unet-channel",
        _each("interior_localized"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "The U-Net without norm is equivariant to shifts by its total stride.",
        "proposition C.1",
        "largest difference, in standard deviations",
        "unet-none",
        _each("shift_error"),
        "at most",
        1e-3,
    ),
    Claim(
        "A norm over channels localizes no interior index.",
        "control, not in the paper",
        INTERIOR,
        "localize-channel",
        _each("interior_localized"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "A root mean square over channels localizes no interior index.",
        "control, not in the paper",
        INTERIOR,
        "localize-rms",
        _each("interior_localized"),
        "at most",
        NONE_OF_ALL,
    ),
    Claim(
        "Without norm a deep untrained network is deeply prejudiced.",
        PLACEMENT,
        "gamma at depth 20",
        "init-none",
        _gamma(20),
        "at least",
        DEEP_FROM,
    ),
    Claim(
        "Most such networks put nearly all data into one class.",
        PLACEMENT,
        "networks of depth 20 with more than 95 % in one class, %",
        "init-none",
        _piled_up_percent(20),
        "at least",
        50,
    ),
    Claim(
        "BatchNorm before the activation leaves the prejudice of one layer.",
        PLACEMENT,
        "gamma at depth 1",
        "init-batch-before",
        _gamma(1),
        "at least",
        NEUTRAL_BELOW,
    ),
    Claim(
        "BatchNorm before the activation keeps it from growing deep.",
        PLACEMENT,
        "gamma at depth 20",
        "init-batch-before",
        _gamma(20),
        "at most",
        DEEP_FROM,
    ),
    Claim(
        "BatchNorm after the activation makes the start neutral.",
        PLACEMENT,
        "gamma at depth 20",
        "init-batch-after",
        _gamma(20),
        "at most",
        NEUTRAL_BELOW,
    ),
    Claim(
        "LayerNorm before the activation leaves it deeply prejudiced.",
        PLACEMENT,
        "gamma at depth 20",
        "init-layer-before",
        _gamma(20),
        "at least",
        DEEP_FROM,
    ),
    Claim(
        "LayerNorm after the activation makes the start neutral.",
        PLACEMENT,
        "gamma at depth 20",
        "init-layer-after",
        _gamma(20),
        "at most",
        NEUTRAL_BELOW,
    ),
    Claim(
        "The theory meets the median of one layer without norm.",
        PLACEMENT,
        GAP,
        "init-none",
        _theory_gap(1),
        "at most",
        0.02,
    ),
    Claim(
        "The theory meets the median of twenty layers without norm.",
        PLACEMENT,
        GAP,
        "init-none",
        _theory_gap(20),
        "at most",
        0.01,
    ),
    Claim(
        "It does once the scale of each point, which changes no guess, is divided out.",
        "ours",
        GAP,
        "init-none",
        _theory_gap(20, "scaled_"),
        "at most",
        0.01,
    ),
    Claim(
        "A prejudiced start keeps its bias for a while.",
        PLACEMENT,
        GONE,
        "init-training-none-20",
        _each("gone_step"),
        "at least",
        10,
    ),
    Claim(
        "Batch-normed after the activation, a start has no bias to lose.",
        PLACEMENT,
        GONE,
        "init-training-batch-after-20",
        _each("gone_step"),
        "at most",
        10,
    ),
    Claim(
        "A neutral start stays neutral: LayerNorm after the activation.",
        "ours",
        GONE,
        "init-training-layer-after-20",
        _each("gone_step"),
        "at most",
        10,
    ),
)
