import numpy as np

from envs.maps import get_map
from planner.measures import choose_best, path_length_m, plan_measures

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
