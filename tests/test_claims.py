"""Claims: verdicts follow from the interval alone, and every claim can be measured and can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from groundwork.section import claims_tables
from groundwork.verdicts import Number, Rule, decide
from norm_study.reproduce.claims import CLAIMS, decide_all
from norm_study.reproduce.parts import Collected, collect, load_parts, parts_file

PARTS = {part.name: part for part in load_parts(parts_file())}


def _rule(sense, threshold):
    return Rule(Number("n", lambda found: []), "localize-none", sense, threshold)


@pytest.mark.parametrize(
    ("sense", "threshold", "values", "verdict"),
    [
        ("at most", 1.0, [0.5, 0.51, 0.52], "supported"),
        ("at most", 1.0, [1.5, 1.51, 1.52], "not supported"),
        ("at most", 1.0, [0.5, 1.5, 0.9], "undecided"),
        ("at least", 1.0, [1.5, 1.51, 1.52], "supported"),
        ("at least", 1.0, [0.5, 0.51, 0.52], "not supported"),
        ("at least", 0.5, [0.5, 0.5, 0.5], "supported"),
        ("at most", 1.0, [0.5], "undecided"),
        ("at most", 1.0, [], "not run"),
    ],
)
def test_verdict_is_where_the_interval_lies(sense, threshold, values, verdict):
    assert decide(_rule(sense, threshold), values)[0] == verdict


def test_zero_of_three_networks_counts_as_none_and_one_of_three_does_not():
    rule = next(claim.rule for claim in CLAIMS if claim.rule.part == "localize-rms")
    assert decide(rule, [0, 0, 0])[0] == "supported"
    assert decide(rule, [1, 0, 0])[0] == "undecided"
    assert decide(rule, [4, 5, 6])[0] == "not supported"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.sentence)
def test_every_claim_rests_on_a_part_with_three_seeds_that_the_full_budget_runs(claim):
    part = PARTS[claim.rule.part]
    assert len(part.seeds) >= 3
    assert "full" in part.budgets


def _rows(part, good):
    """Rows as the experiment makes them, in favour of the claims or against them."""
    config = part.config()
    if part.experiment == "packnorm":
        small = part.name in ("packnorm-16", "packnorm-24")
        return [{"seed": s, "mse": 0.05 if small == good else 1.001} for s in part.seeds]
    if part.experiment == "groups":
        sign = 1 if good else -1
        return [
            {"groups": g, "seed": s, "learning_rate": 1e-3, "mse": sign / g, "localization_distance": sign * g}
            for g in config.group_counts
            for s in part.seeds
        ]
    if part.experiment == "probe":
        ahead = 10 if ("instance" in part.name) == good else 0
        return [
            {
                "seed": s,
                "layer": layer,
                "reach": 2 * layer,
                "distance": 2 * layer + ahead,
                "localized_share": 1.0 if good else 0.5,
            }
            for s in part.seeds
            for layer in range(1, config.depth)
        ]
    if part.experiment == "batchnorm":
        return [
            {
                "seed": s,
                "floor": 1.0,
                "interior_localized_minibatch": 9 if good else 0,
                "mse_minibatch": 0.1 if good else 2,
                "interior_localized_running": 0 if good else 9,
                "mse_running": 2 if good else 0.1,
            }
            for s in part.seeds
        ]
    if part.experiment == "init-bias":
        return _untrained_rows(part, good)
    if part.experiment == "init-bias-training":
        slow = (part.name == "init-training-none-20") == good
        return [{"seed": s, "gone_step": 30.0 + s if slow else 2.0 + s} for s in part.seeds]
    leaks = config.norm in ("instance", "group")
    floor = 0.0429579 if part.experiment == "localize" else 1
    low_error = part.name == "localize-instance" or part.name == "localize-none"
    ratio = {True: {"localize-instance": 0.1}.get(part.name, 1.01), False: 3.0 if low_error else 0.1}[good]
    return [
        {
            "seed": s,
            "mse": floor * ratio,
            "localized_share": 1.0 if good else 0.5,
            "interior_localized": 20 if leaks == good else 0,
            "localization_distance": 28 if good else 24,
            "constant_input_spread": 0.0 if good else 1.0,
            "shift_error": 1e-7 if good else 1.0,
        }
        for s in part.seeds
    ]


def _untrained_rows(part, good):
    """Shares as the theory has them at a gamma in favour of the claims, or others against them."""
    config, rows, depths = part.config(), [], len(part.config().depths)
    gamma = {"init-none": 100.0, "init-layer-pre": 9.0, "init-batch-pre": 0.5}.get(part.name, 1e-4)
    if not good:
        gamma = {"init-none": 0.1, "init-batch-pre": 9.0}.get(part.name, 0.5)
    first_layer = 0.01 if part.name == "init-batch-pre" and not good else 1.0
    for seed in part.seeds:
        mean = np.sqrt(gamma) * np.random.default_rng(seed).normal(size=400)
        shares = stats.norm.cdf(mean)
        largest = np.maximum(shares, 1 - shares) if good else np.where(np.arange(400) < 20 + seed, 0.99, 0.51)
        for share, top, m in zip(shares, largest, mean, strict=True):
            by_depth = {"f0": [share] * depths, "max_fraction": [top] * depths, "deviation": [1.0] * depths}
            by_depth |= {"mean": [first_layer * m] + [m] * (depths - 1), "scaled_mean": [m] * depths}
            rows.append({"seed": seed, "by_depth": {**by_depth, "scaled_deviation": [1.0] * depths}})
    assert config.depth == 20
    return rows


@pytest.mark.parametrize("good", [True, False])
def test_every_claim_is_supported_by_rows_in_its_favour_and_fails_on_rows_against_it(good):
    results = {name: Collected(part, _rows(part, good), 1.0, False) for name, part in PARTS.items()}
    verdicts = {claim["sentence"]: claim["verdict"] for claim in decide_all(results)}
    wrong = {k: v for k, v in verdicts.items() if v != ("supported" if good else "not supported")}
    assert not wrong


def test_missing_parts_are_said_to_be_missing():
    assert {claim["verdict"] for claim in decide_all({})} == {"not run"}


def test_documented_verdicts_follow_from_the_committed_rows():
    docs = Path(__file__).resolve().parent.parent / "docs" / "localization"
    (table,) = claims_tables(decide_all(collect(list(PARTS.values()), docs / "rows", None)))
    assert table.markdown() + "\n" == (docs / "claims.md").read_text()
