import pytest

from planner.comparison.compare import Measured, _group, _interval
from planner.comparison.report import comparison_table, table_measures


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


def episode(**over):
    return {"split": "demonstrated", "success": True, "score": 3.0, "score_expert": None} | over


def test_scores_are_columns_where_tasks_have_references_and_blank_where_they_have_none():
    scored = [episode(score_expert=90.0), episode(score_expert=100.0)]
    assert _interval([scored], "score_expert")["mean"] == 95
    assert _interval([[episode()]], "score_expert")["mean"] is None
    assert table_measures(_group([Measured("none", 0, 1, [episode()])])) == ["success"]
    assert table_measures(_group([Measured("none", 0, 1, scored)])) == ["success", "score", "score_expert"]


def test_a_measure_that_kept_rows_do_not_hold_is_shown_as_not_measured():
    kept, anew = Measured("old", 0, 1, [episode()]), Measured("new", 0, 1, [episode(end_gap=0.5)])
    table = comparison_table({"summary": _group([kept, anew]), "reference": {}}).markdown()
    assert "| old | demonstrated, 1× horizon | 100.0 % | – |" in table
    assert "| new | demonstrated, 1× horizon | 100.0 % | 0.50 m |" in table
