"""Definition 2.3 against scipy, by hand, and where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from groundwork.errors import UserError
from norm_study.localization.welch import Localization, edge_distance, localize, pairwise_p_values


def test_all_pairs_equal_scipys_test_one_by_one():
    rng = np.random.default_rng(0)
    predictions = rng.normal(rng.normal(size=7) * 0.2, rng.uniform(0.1, 3, size=7), size=(40, 7))
    expected = [
        [stats.ttest_ind(predictions[:, i], predictions[:, j], equal_var=False).pvalue for j in range(7)]
        for i in range(7)
    ]
    np.testing.assert_allclose(pairwise_p_values(predictions), expected, rtol=1e-9)


def test_one_constant_column_is_tested_against_the_other_columns_variance():
    predictions = np.random.default_rng(1).normal(size=(30, 2))
    predictions[:, 0] = 0.7
    expected = stats.ttest_ind(predictions[:, 0], predictions[:, 1], equal_var=False).pvalue
    assert pairwise_p_values(predictions)[0, 1] == pytest.approx(expected, rel=1e-9)


def test_constants_differ_only_if_they_are_different_numbers():
    predictions = np.tile([0.1, 0.1 + 1e-9, 0.3], (50, 1))
    p_values = pairwise_p_values(predictions)
    assert p_values[0, 1] == 1
    assert p_values[0, 2] == p_values[2, 1] == 0
    assert localize(predictions).indices() == [2]


def test_equal_distributions_are_not_localized_and_distant_ones_all_are():
    noise = np.random.default_rng(2).normal(size=(2000, 20))
    assert localize(noise).indices() == []
    assert localize(noise + np.arange(20)).share == 1


def test_one_twin_is_enough_to_lose_an_index():
    predictions = np.random.default_rng(3).normal(size=(500, 6)) * 0.01 + np.array([0, 1, 2, 2, 3, 4])
    assert localize(predictions).indices() == [0, 1, 4, 5]


def test_level_decides():
    predictions = np.random.default_rng(4).normal(size=(200, 2)) + np.array([0, 0.3])
    p = pairwise_p_values(predictions)[0, 1]
    assert localize(predictions, alpha=min(0.4, 1.5 * p)).share == 1
    assert localize(predictions, alpha=0.5 * p).share == 0


@pytest.mark.parametrize(
    ("localized", "distance", "unbroken"),
    [
        ([1, 1, 1, 1, 1], 3, 3),
        ([1, 0, 1, 1, 1], 3, 1),
        ([0, 0, 0, 0, 0], 0, 0),
        ([1, 1, 0, 1, 1], 2, 2),
        ([1, 1, 1, 1], 2, 2),
        ([0, 1, 1, 0], 2, 0),
    ],
)
def test_distances_by_hand(localized, distance, unbroken):
    found = Localization(np.array(localized, dtype=bool))
    assert (found.distance, found.unbroken_distance) == (distance, unbroken)


def test_edge_distance_counts_the_end_as_one():
    assert edge_distance(5).tolist() == [1, 2, 3, 2, 1]


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_an_impossible_level_is_refused(alpha):
    with pytest.raises(UserError, match="alpha"):
        localize(np.zeros((5, 3)), alpha)


def test_diverged_predictions_are_refused():
    with pytest.raises(UserError, match="finite"):
        localize(np.full((5, 3), np.nan))
