import subprocess
import sys
from pathlib import Path

import numpy as np

from envs.maps import get_map
from planner.choosing import choose_best
from planner.measures import MEASURES, held, path_length_m, plan_measures

HASH = get_map("hash")
CORRIDOR_Y = HASH.cell_to_xy(np.array([3, 1]))[1]


def straight(count, start=-4.0, end=4.0):
    return np.stack([np.linspace(start, end, count), np.full(count, CORRIDOR_Y)], axis=1)


def test_a_straight_walk_in_a_corridor_is_valid():
    measures = plan_measures(straight(41)[None], HASH, data_longest_step_m=0.2)
    assert measures["plan_valid"].all()
    assert np.allclose(measures["longest_step"], 1.0)
    assert np.allclose(measures["end_gap"], 0.2)
    assert measures["free_share"][0] == 1


def test_a_jump_at_the_end_shows_in_gap_and_longest_step_and_voids_the_plan():
    plan = straight(41, end=2.0)
    plan[-1, 0] = 4.0
    measures = plan_measures(plan[None], HASH, data_longest_step_m=0.2)
    assert measures["end_gap"][0] > 2
    assert measures["longest_step"][0] > 10
    assert measures["free_share"][0] == 1
    assert not measures["plan_valid"][0]


def test_a_segment_through_a_wall_voids_a_plan_whose_points_are_all_free():
    start, end = HASH.cell_to_xy(np.array([[3, 2], [2, 3]]))
    plan = np.stack([start, end])
    measures = plan_measures(plan[None], HASH, data_longest_step_m=2.0)
    assert measures["free_share"][0] == 1
    assert measures["longest_step"][0] < 2
    assert not measures["plan_valid"][0]


def test_the_share_of_free_segments_tells_how_much_of_a_plan_a_wall_spoils():
    plan = straight(41)
    plan[20] += [0, 0.6]  # one point in the wall spoils the two segments that meet there
    measures = plan_measures(np.stack([straight(41), plan]), HASH, data_longest_step_m=0.2)
    assert measures["free_segments"].tolist() == [1, 38 / 40]
    assert measures["free_share"].tolist() == [1, 40 / 41]


def test_points_pressed_into_a_wall_by_the_contact_count_as_free_and_deeper_ones_not():
    plan = straight(41)
    assert plan_measures((plan + [0, 0.4])[None], HASH, 0.2)["free_share"][0] == 1
    assert plan_measures((plan + [0, 0.45])[None], HASH, 0.2)["free_share"][0] < 1


def test_the_best_of_several_plans_is_valid_then_short():
    long_way = straight(41)
    long_way[1::2, 1] += 0.05
    through_wall = straight(41) + [0, 0.6]
    jump = straight(41, end=2.0)
    jump[-1, 0] = 4.0
    problems = np.stack([[through_wall, long_way, straight(41), jump], [through_wall, jump, jump, through_wall]])
    chosen, valid_share = choose_best(problems, HASH, data_longest_step_m=0.2)
    assert chosen.tolist() == [2, 1]
    assert valid_share.tolist() == [0.5, 0.0]


def test_the_length_of_a_path_is_the_sum_of_its_steps():
    assert path_length_m(np.array([[[0.0, 0], [3, 4], [3, 5]]])).tolist() == [6.0]


def test_every_measure_of_a_row_is_in_the_table_and_in_the_glossary(tiny_run):
    from planner.plan import Planner
    from planner.rollout import RolloutSettings, rollout

    planner = Planner.from_run(tiny_run, device="cpu")
    (row,) = rollout(planner, HASH.tasks[:1], RolloutSettings(episodes=1, avoid=(50.0, 0.0, 1.0), replan_every=20)).rows
    assert set(row) - {"task", "family", "split", "seed", "horizon", "planning_ms"} == set(MEASURES)
    glossary = (Path(__file__).resolve().parent.parent / "docs" / "measures.md").read_text()
    lines = [line.split(" | ")[:2] for line in glossary.splitlines() if line.startswith("| ")][1:]
    pairs = [pair for names, of in lines for pair in zip(names.strip("| ").split(", "), of.split(", "), strict=True)]
    assert dict(pairs) == {name.replace("_", " "): measure.of for name, measure in MEASURES.items()}


def test_a_cell_reads_as_a_reader_wants_it():
    assert MEASURES["success"].text({"mean": 0.5, "low": 0.25, "high": 0.75}) == "50.0 % [25.0, 75.0]"
    assert MEASURES["end_gap"].text({"mean": 1.234, "low": None, "high": None}) == "1.23 m"
    assert MEASURES["end_gap"].text({"mean": None}) == MEASURES["end_gap"].text(None) == "–"
    assert MEASURES["longest_step"].axis == "longest step\n(× the data's longest)"
    assert (MEASURES["end_gap"].axis, MEASURES["success"].axis) == ("end gap (m)", "success")


def test_a_score_is_held_where_some_task_has_references():
    assert held([{"success": True, "score": 1.0, "score_expert": None}]) == ["success"]
    assert held([{"score": 1.0, "score_expert": None}, {"score": 2.0, "score_expert": 5.0}]) == [
        "score",
        "score_expert",
    ]


def test_the_tables_of_measures_and_samplers_are_read_without_torch():
    code = "import sys, planner.measures, planner.sampling; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
