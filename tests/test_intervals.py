import numpy as np
import pytest
from scipy import stats

from groundwork.intervals import difference_over_seeds, interval_over_seeds, mean_interval, paired_difference


def test_students_interval_covers_the_mean_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, size=(2000, 8))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([cell["low"] <= 3.0 <= cell["high"] for cell in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_shares_get_wilsons_interval_even_at_the_edge():
    cell = mean_interval([True] * 50)
    wilson = stats.binomtest(50, 50).proportion_ci(0.95, method="wilson")
    assert (cell["low"], cell["high"]) == pytest.approx((wilson.low, wilson.high))
    assert cell["low"] < 1


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([2.0])["low"] is None
    assert mean_interval([float("nan")]) == {"mean": None, "median": None, "low": None, "high": None, "n": 0}


def test_numbers_that_happen_to_be_0_and_1_are_no_share():
    assert mean_interval([0, 0, 0])["high"] == 0
    assert mean_interval([False, False, False])["high"] > 0.5


def test_seeds_of_equal_means_leave_the_interval_to_the_episodes():
    cell = interval_over_seeds([[True, False], [False, True], [True, False]], share=True)
    assert cell["over"] == "episodes"
    assert cell["low"] < 0.5 < cell["high"]
    assert interval_over_seeds([[True, False], [False, False], [True, True]], share=True)["over"] == "seeds"


def test_shares_get_the_wider_interval_so_that_lucky_agreement_of_seeds_is_no_precision():
    agreeing = [[True] * 9 + [False] * 15, [True] * 8 + [False] * 16, [True] * 8 + [False] * 16]
    cell = interval_over_seeds(agreeing, share=True)
    wilson = stats.binomtest(25, 72).proportion_ci(0.95, method="wilson")
    assert (cell["low"], cell["high"], cell["over"]) == (wilson.low, wilson.high, "episodes")
    apart = [[True] * 24, [True] * 12 + [False] * 12, [False] * 24]
    assert interval_over_seeds(apart, share=True)["over"] == "seeds"
    difference = difference_over_seeds(
        [0.2, 0.21, 0.2], ([True] * 30 + [False] * 42, [True] * 16 + [False] * 56), share=True
    )
    assert difference["over"] == "episodes"
    assert difference["low"] < 0.1


def test_numbers_are_no_episodes_that_succeed_or_fail_and_keep_students_interval():
    assert interval_over_seeds([[0.5, 0.6], [0.5, 0.5], [0.6, 0.6]], share=True)["over"] == "seeds"


def test_the_paired_interval_covers_the_difference_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        outcome = rng.choice(4, size=300, p=(0.85, 0.06, 0.02, 0.07))  # both, only ours, only the reference's, neither
        cell = paired_difference(outcome <= 1, (outcome == 0) | (outcome == 2))
        covered += cell["low"] <= 0.04 <= cell["high"]
    assert 0.93 < covered / 1000 < 0.985


def test_no_episode_that_differs_still_leaves_doubt():
    cell = paired_difference([True] * 50, [True] * 50)
    assert cell["mean"] == 0
    assert cell["low"] < -0.03
    assert paired_difference([True] * 1000, [True] * 1000)["low"] > -0.03


def test_a_difference_of_shares_stays_within_its_bounds_and_needs_seeds_that_vary():
    wide = difference_over_seeds([1.0, 0.2, 1.0], ([1.0], [0.0]), share=True)
    assert (wide["over"], wide["high"]) == ("seeds", 1.0)
    equal = difference_over_seeds([1.0] * 3, ([True] * 30, [False] * 30), share=True)
    assert equal["over"] == "episodes"
    assert 0.7 < equal["low"] < equal["mean"] == 1
