import pytest

from planner.comparison.compare import Measured, _interval, _measures
from planner.comparison.report import format_cell, table_measures
from planner.rollout import MEASURES


def seeds(*shares, episodes=10):
    """Episodes of one run per share, of which that share succeeds."""
    return [[{"success": index < share * episodes} for index in range(episodes)] for share in shares]


def test_three_seeds_give_an_interval_over_seeds_within_zero_and_one():
    cell = _interval(seeds(0.9, 1.0, 0.8), "success")
    assert cell["over"] == "seeds"
    assert cell["n"] == 3
    assert cell["mean"] == pytest.approx(0.9)
    assert cell["low"] == pytest.approx(0.9 - 4.3027 * 0.1 / 3**0.5, abs=1e-3)
    assert cell["high"] == 1


def test_fewer_seeds_or_episodes_that_all_agree_give_an_interval_over_episodes():
    assert _interval(seeds(0.5, 0.5), "success")["over"] == "episodes"
    cell = _interval(seeds(0, 0, 0), "success")
    assert cell["over"] == "episodes"
    assert 0.05 < cell["high"] < 0.15


def test_cells_read_as_a_reader_wants_them():
    assert format_cell({"mean": 0.5, "low": 0.25, "high": 0.75}, "success") == "50.0 % [25.0, 75.0]"
    assert format_cell({"mean": 1.234, "low": None, "high": None}, "end_gap") == "1.23 m"
    assert format_cell({"mean": None}, "end_gap") == "–"


def test_scores_are_columns_where_tasks_have_references_and_blank_where_they_have_none():
    scored = [{"score_expert": 90.0}, {"score_expert": 100.0}]
    assert _interval([scored], "score_expert")["mean"] == 95
    assert _interval([[{"score_expert": None}]], "score_expert")["mean"] is None
    assert _measures([Measured("none", 0, 1, [{"score_expert": None}])]) == MEASURES
    assert _measures([Measured("none", 0, 1, scored)]) == (*MEASURES, "score", "score_expert")
    assert table_measures({"none": {"all": {"score_expert": {}}}})[-1] == "score_expert"
