import json

import numpy as np
import pytest

from envs import references
from envs.maps import get_map
from envs.references import measure_references, reference_returns, score_pairs
from groundwork.errors import UserError
from planner.rollout import RolloutSettings, choose_tasks, rollout, summarize
from planner.scores import D4RL_REFERENCE, drawn, score_tasks, scores

UMAZE = get_map("umaze")


def test_the_protocols_pair_any_start_with_the_goal_of_d4rl_or_with_any_other():
    cells = len(UMAZE.free_cells)
    assert len(score_pairs(UMAZE, "single_task")) == cells - 1
    assert {goal for _, goal in score_pairs(UMAZE, "single_task")} == {(1, 1)}
    assert len(score_pairs(UMAZE, "multi_task")) == cells * (cells - 1)
    with pytest.raises(UserError, match="single_task"):
        score_pairs(get_map("hash"), "single_task")


def test_each_seed_draws_its_own_task_and_named_tasks_stay_as_they_are():
    single, multi = score_tasks(UMAZE)
    tasks = [drawn(UMAZE, multi, seed) for seed in range(40)]
    assert all(task.start != task.goal and task.split == task.name == "multi_task" for task in tasks)
    assert len({(task.start, task.goal) for task in tasks}) > 15
    assert drawn(UMAZE, multi, 3) == tasks[3]
    assert {drawn(UMAZE, single, seed).goal for seed in range(10)} == {(1, 1)}
    assert drawn(UMAZE, UMAZE.tasks[0], 5) == UMAZE.tasks[0]
    assert [task.name for task in score_tasks(get_map("hash"))] == ["multi_task"]


def test_the_expert_scores_far_above_a_random_policy_and_the_same_seed_gives_the_same():
    measured = measure_references(UMAZE, episodes=4, progress=False)
    for protocol in ("single_task", "multi_task"):
        assert measured[protocol]["expert"]["mean"] > 150
        assert measured[protocol]["expert"]["mean"] > 2 * measured[protocol]["random"]["mean"]
    assert measure_references(UMAZE, episodes=4, progress=False) == measured


def test_the_shipped_references_are_of_the_maps_as_they_are():
    shipped = json.loads(references.SHIPPED.read_text())
    assert set(shipped) >= {"umaze", "medium", "large"}
    for name, facts in shipped.items():
        maze = get_map(name)
        assert facts["episode_limit"] == maze.episode_limit
        for protocol in ("single_task", "multi_task"):
            random, expert = reference_returns(maze, protocol)
            assert 0 <= random < expert <= maze.episode_limit
            assert facts[protocol]["expert"]["standard_error"] < 0.03 * expert
    # another expert, map or limit would show
    again = measure_references(UMAZE, episodes=20, progress=False)
    for protocol in ("single_task", "multi_task"):
        stored, fresh = shipped["umaze"][protocol]["expert"], again[protocol]["expert"]
        assert abs(stored["mean"] - fresh["mean"]) < 4 * (stored["standard_error"] + fresh["standard_error"])
    assert reference_returns(UMAZE, "demonstrated") is None
    assert reference_returns(get_map("hash"), "multi_task") is None


def test_both_scales_are_zero_and_hundred_at_their_ends():
    random, expert = reference_returns(UMAZE, "multi_task")
    low, high = D4RL_REFERENCE["umaze"]
    distance = np.full((3, 320), 9.0)
    distance[1, -(20 + 100) :] = 0.4  # 100 steps at the goal, and 20 more that lie behind the episode limit of 300
    distance[2, :] = 0.0
    scored = scores(distance, UMAZE, ["multi_task", "multi_task", "demonstrated"])
    assert scored["score"] == pytest.approx([100 * (steps - low) / (high - low) for steps in (0, 100, 300)])
    expected = [100 * (steps - random) / (expert - random) for steps in (0, 100)]
    assert scored["score_expert"][:2] == pytest.approx(expected)
    assert scored["score_expert"][2] is None


def test_on_a_map_that_d4rl_does_not_know_the_score_is_the_share_of_steps():
    distance = np.where(np.arange(100) < 25, 0.1, 5.0)[None]
    assert scores(distance, get_map("hash"), ["held_out"]) == {"score": [25.0], "score_expert": [None]}


def test_rollouts_draw_the_protocols_tasks_and_score_them(tiny_run):
    from planner.plan import Planner

    planner = Planner.from_run(tiny_run, device="cpu")
    maze = planner.statistics.maze
    rows = rollout(planner, choose_tasks(maze, ["multi_task"]), RolloutSettings(episodes=3)).rows
    assert [row["split"] for row in rows] == ["multi_task"] * 3
    assert rows[0]["score_expert"] is None
    assert summarize(rows)["multi_task"]["score"]["n"] == 3
    assert summarize(rows)["multi_task"]["score_expert"]["mean"] is None
    with pytest.raises(UserError, match=r"single_task.*multi_task"):
        choose_tasks(maze, ["single_task"])


def test_the_command_measures_one_map_and_keeps_the_others(command, tmp_path):
    target = tmp_path / "references.json"
    target.write_text('{"elsewhere": 1}')
    done = command("envs.main", "references", "umaze", "--episodes", 2, "--json", target)
    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_text())
    assert set(result) == {"elsewhere", "umaze"}
    assert result["umaze"]["episodes"] == 2
