import numpy as np
import pytest
import torch

from envs.maps import get_map
from groundwork.errors import UserError
from planner.execution import execute_one
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout, summarize
from planner.sampling import SAMPLERS, Sampling
from planner.training.run import RunFolder
from planner.training.trainer import make_network


class Oracle(Planner):
    """Plans that walk the shortest path at constant speed: what a perfect planner would draw."""

    def plan(self, start, goal, num_plans=1, seed=0, *, horizon=None, **_):
        maze, horizon = self.statistics.maze, horizon or self.config.data.horizon
        plans = np.zeros((len(start), 1, horizon, maze.world.state_dim), np.float32)
        for index, (state, target) in enumerate(zip(start, goal, strict=True)):
            ends = [tuple(cell) for cell in maze.xy_to_cell(np.stack([state[:2], target]))]
            cells = maze.cell_to_xy(np.array(maze.shortest_path(*ends)))
            points = np.concatenate([state[None, :2], cells[1:-1], target[None]])
            lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
            where = np.linspace(0, lengths[-1], horizon)
            path = np.stack([np.interp(where, lengths, points[:, k]) for k in range(2)], axis=1)
            plans[index, 0, :, :2] = path
            velocities = np.gradient(path, maze.world.dt_s * self.config.data.stride, axis=0)
            plans[index, 0] = np.concatenate([path, velocities], axis=1)[:, : maze.world.state_dim]
        return plans


@pytest.fixture(scope="module")
def oracle(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    return Oracle(planner.network, planner.config, planner.statistics)


def test_perfect_plans_reach_every_goal_without_touching_a_wall(oracle):
    tasks = choose_tasks(get_map("hash"), ["straight", "turn"])
    rows = rollout(oracle, tasks, RolloutSettings(episodes=2, horizon=96)).rows
    assert {row["family"] for row in rows} == {"straight", "turn"}
    assert all(row["success"] and row["plan_valid"] for row in rows)
    assert np.mean([row["wall_contact"] for row in rows]) < 0.02
    assert np.mean([row["tracking_error"] for row in rows]) < 0.15
    assert all(row["steps_to_goal"] < 96 * 4 + 20 for row in rows)


def test_a_plan_that_begins_in_motion_is_executed_from_that_motion(oracle):
    maze, seconds = get_map("hash"), 0.01 * oracle.config.data.stride
    path = np.linspace(maze.cell_to_xy((3, 1)), maze.cell_to_xy((3, 9)), 64)
    velocity = np.broadcast_to((path[1] - path[0]) / seconds, path.shape)
    walked = execute_one(oracle, np.concatenate([path, velocity], axis=1))
    assert np.linalg.norm(walked[1] - walked[0]) > 0.9 * 0.01 * np.linalg.norm(velocity[0])
    assert np.linalg.norm(walked[-1] - path[-1]) < 0.1


def test_staying_is_no_success_where_the_way_leads_there_and_back(oracle):
    rows = rollout(oracle, choose_tasks(get_map("hash"), ["return"]), RolloutSettings(episodes=1)).rows
    assert rows
    assert not any(row["success"] for row in rows)
    assert all(row["steps_to_goal"] == 400 for row in rows)


def test_rows_are_a_function_of_the_seed_and_do_not_depend_on_their_neighbours(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    tasks = get_map("hash").tasks[:3]
    first, again, other = (rollout(planner, tasks, RolloutSettings(episodes=2, seed=seed)).rows for seed in (0, 0, 1))

    def numbers(rows):
        return [[value for name, value in row.items() if name != "planning_ms"] for row in rows]

    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)


def test_the_episode_limit_grows_with_the_plan(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    result = rollout(planner, get_map("hash").tasks[:1], RolloutSettings(episodes=1, horizon=128))
    assert result.positions.shape == (1, 127 * 4 + 50 + 1, 2)
    assert result.plans.shape == (1, 128, 4)


def test_replanning_runs_and_starts_where_the_ball_is(oracle):
    rows = rollout(
        oracle,
        choose_tasks(get_map("hash"), ["turn"]),
        RolloutSettings(episodes=1, horizon=64, replan_every=60),
    ).rows
    assert all(row["success"] for row in rows)


@pytest.mark.parametrize("late", [False, True], ids=["the first plan leaps", "the last plan leaps"])
def test_a_row_tells_the_first_and_the_last_plan_apart(oracle, monkeypatch, late):
    plan, drawn = oracle.plan, []

    def leaping(*given, **told):
        plans = plan(*given, **told)
        if bool(drawn) == late:  # through the outer wall and back
            plans[:, 0, plans.shape[2] // 2, :2] += 20.0
        drawn.append(plans)
        return plans

    monkeypatch.setattr(oracle, "plan", leaping)
    tasks, settings = choose_tasks(get_map("hash"), ["turn"]), RolloutSettings(episodes=1, horizon=96, replan_every=150)
    rows = rollout(oracle, tasks, settings).rows
    assert len(drawn) > 1
    assert [(row["plan_valid"], row["last_plan_valid"]) for row in rows] == [(late, not late)] * len(rows)


def test_replanning_ends_where_the_levels_leave_no_plan(tiny, tiny_run):
    deep = tiny(model={"dim_mults": [1, 1, 1, 1, 1], "norm": "none"}, data={"horizon": 64})
    statistics = RunFolder(tiny_run).statistics()
    planner = Planner(make_network(deep, statistics.layout.transition_dim), deep, statistics)
    settings = RolloutSettings(episodes=1, replan_every=30, sampler="ddim", sampling_steps=1)
    assert len(rollout(planner, get_map("hash").tasks[:1], settings).rows) == 1


def test_a_warm_replan_begins_from_what_is_left_of_the_last_plan(tiny_run, monkeypatch):
    planner = Planner.from_run(tiny_run, device="cpu")
    plan, begun_from = planner.plan, []

    def spy(start, goal, **settings):
        plans = plan(start, goal, **settings)
        begun_from.append((settings["last_plans"], settings["sampling"].replan_warm, plans[:, 0]))
        return plans

    monkeypatch.setattr(planner, "plan", spy)
    settings = RolloutSettings(episodes=1, replan_every=40, replan_warm=0.25)
    rollout(planner, get_map("hash").tasks[:2], settings)
    assert [level for _, level, _ in begun_from] == [0.0, 0.25]
    (_, _, first), (last, _, again) = begun_from
    assert np.allclose(last[:, :22], first[:, 10:])
    assert again.shape == last.shape
    problem = {"start": again[:, 0], "goal": again[:, -1, :2], "seed": 5, "horizon": again.shape[1]}
    warm, elsewhere = (plan(**problem, last_plans=plans, sampling=settings) for plans in (last, last + 0.1))
    assert (warm != elsewhere).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replan_warm": 1.5}, "replan_warm = 1.5"),
        ({"replan_warm": 0.5}, "needs replan_every"),
        ({"seed": -1}, "seed = -1"),
        ({"best_of": 0}, "best_of = 0"),
        ({"sampling_steps": 0}, "sampling_steps = 0"),
        ({"sampler": "euler"}, f"sampler = euler is not one of {', '.join(SAMPLERS)}"),
        ({"episodes": 0}, "episodes = 0"),
    ],
)
def test_settings_out_of_range_are_refused(tiny_run, settings, words):
    with pytest.raises(UserError, match=words):
        rollout(Planner.from_run(tiny_run, device="cpu"), get_map("hash").tasks[:1], RolloutSettings(**settings))


def test_a_warm_start_without_fitting_plans_is_refused(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    for last in (None, np.zeros((1, 16, 4))):
        with pytest.raises(UserError, match=r"\(1, 32, 4\)"):
            planner.plan([-4.0, 2.0], [2.0, 4.0], last_plans=last, sampling=Sampling(replan_warm=0.5))


def test_the_best_of_several_is_executed_and_the_valid_share_told(oracle, monkeypatch):
    """Three candidates: one jumps to the goal, one is the walk itself, one walks a little longer."""
    walk = oracle.plan

    def candidates(start, goal, num_plans=1, **settings):
        good = walk(start, goal, **settings)
        jump, longer = good.copy(), good.copy()
        jump[:, :, 1:] = jump[:, :, -1:]
        longer[:, :, 5:-5:2, 0] += 0.02
        assert num_plans == 3
        return np.concatenate([jump, longer, good], axis=1)

    monkeypatch.setattr(oracle, "plan", candidates)
    tasks = choose_tasks(get_map("hash"), ["straight"])[:2]
    result = rollout(oracle, tasks, RolloutSettings(episodes=1, horizon=96, best_of=3))
    assert all(row["plan_valid"] and row["success"] for row in result.rows)
    assert [row["valid_among_n"] for row in result.rows] == [pytest.approx(2 / 3)] * 2
    starts = np.concatenate([result.positions[:, 0], np.zeros((2, 2))], axis=1)
    expected = walk(starts, result.plans[:, -1, :2], horizon=96)[:, 0]
    assert np.allclose(result.plans[..., :2], expected[..., :2], atol=1e-6)


def test_summary_counts_failures_as_the_limit_and_splits_apart(oracle):
    rows = [
        {"split": split, "success": good, "plan_valid": good, "longest_step": 1.0, "end_gap": 0.1}
        | {"steps_to_goal": 100 if good else 400, "tracking_error": 0.1, "wall_contact": 0.0}
        for split in ("demonstrated", "held_out")
        for good in (True, split == "demonstrated")
    ]
    summary = summarize(rows)
    assert summary["demonstrated"]["success"]["mean"] == 1
    assert summary["held_out"]["success"]["mean"] == 0.5
    assert summary["held_out"]["steps_to_goal"]["mean"] == 250
    assert summary["held_out"]["success"]["n"] == 2


def test_an_interval_ends_where_its_measure_does():
    rows = [
        {"split": "held_out", "free_share": share, "steps_to_goal": steps, "score": score}
        for share, steps, score in ((0.4, 5, -5.0), (1.0, 300, 40.0))
    ]
    found = summarize(rows)["held_out"]
    assert (found["free_share"]["low"], found["free_share"]["high"]) == (0, 1)
    assert found["steps_to_goal"]["low"] == 0 < found["steps_to_goal"]["high"]
    assert found["score"]["low"] < -5


def test_a_map_that_holds_nothing_out_gives_its_demonstrated_tasks():
    umaze = get_map("umaze")
    assert choose_tasks(umaze, ["demonstrated", "held_out"]) == list(umaze.tasks)


def test_unknown_tasks_are_refused_with_those_known():
    with pytest.raises(UserError, match=r"'trun'.*held_out.*straight"):
        choose_tasks(get_map("hash"), ["trun"])


# plans


def test_plans_start_and_end_exactly_where_told(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    starts = np.array([[-4.0, 2.0, 0.5, -0.25], [-3.9, 1.9, 0.0, 0.0]], np.float32)
    plans = planner.plan(starts, [2.0, 4.0], num_plans=3)
    assert plans.shape == (2, 3, 32, 4)
    assert (plans[:, :, 0] == starts[:, None]).all()
    assert (plans[:, :, -1, :2] == np.float32([2.0, 4.0])).all()
    at_rest = planner.plan([-4.0, 2.0], [2.0, 4.0])
    assert at_rest.shape == (1, 32, 4)
    assert (at_rest[0, 0] == np.float32([-4, 2, 0, 0])).all()


def test_plans_are_a_function_of_the_seed(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    one, same, other = (planner.plan([-4.0, 2.0], [2.0, 4.0], seed=seed) for seed in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_one_of_several_plans_is_that_which_choosing_among_them_gives(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    starts, goals = [[-4.0, 2.0], [2.0, 4.0]], [[4.0, 2.0], [-2.0, -4.0]]
    best = planner.plan(starts, goals, sampling=Sampling(best_of=4), seed=1)
    assert best.shape == (2, 1, 32, 4)
    candidates = planner.plan(starts, goals, num_plans=4, seed=1)
    assert (best[:, 0] == planner.chosen([candidates])[0]).all()
    with pytest.raises(UserError, match="num_plans = 0 must be at least 1"):
        planner.plan(starts, goals, num_plans=0)


def test_raw_and_averaged_weights_and_any_kept_checkpoint_can_be_chosen(tiny_run):
    plans = [
        Planner.from_run(tiny_run, weights=weights, step=step, device="cpu").plan([-4.0, 2.0], [2.0, 4.0])
        for weights, step in (("ema", None), ("model", None), ("ema", 5))
    ]
    assert (plans[0] != plans[1]).any()
    assert (plans[0] != plans[2]).any()
    with pytest.raises(UserError, match="step 7; kept are 5, 10, 12"):
        Planner.from_run(tiny_run, step=7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0], [1.0, 2.0]), "start has 1 values"),
        (([1.0, 2.0], [1.0, np.nan]), "not finite"),
        (([[1.0, 2.0]] * 2, [[1.0, 2.0]] * 3), "2 starts do not fit 3 goals"),
        ((np.zeros((0, 2)), np.zeros((0, 2))), "0 starts do not fit 0 goals"),
        (([100.0, 100.0], [2.0, 4.0]), r"start: \(100, 100\) is in no free cell"),
        (([[-4.0, 2.0], [0.0, 0.0]], [2.0, 4.0]), r"start: \(0, 0\) is in no free cell"),
        (([-4.0, 2.0], [[2.0, 4.0], [2.0, -40.0]]), r"goal: \(2, -40\) is in no free cell"),
        (([-4.0, 2.0, 0.0, 900.0], [2.0, 4.0]), "start: its number 4, 900, is far"),
    ],
)
def test_problems_that_do_not_fit_are_refused(tiny_run, arguments, words):
    with pytest.raises(UserError, match=words):
        Planner.from_run(tiny_run, device="cpu").plan(*arguments)


def test_a_horizon_that_the_levels_cannot_halve_is_refused(tiny_run):
    with pytest.raises(UserError, match="33"):
        Planner.from_run(tiny_run, device="cpu").plan([0.0, 2.0], [2.0, 2.0], horizon=33)


def test_planning_leaves_the_global_generator_alone(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    planner.plan([-4.0, 2.0], [2.0, 4.0])
    assert torch.rand(1) == expected
