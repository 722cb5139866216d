import numpy as np
import pytest
import torch

from envs.maps import get_map
from groundwork.errors import UserError
from planner.choosing import choose_best
from planner.diffusion import make_schedule
from planner.guidance import MARGIN_M, REACH_M, AvoidRegion, descend
from planner.plan import Planner
from planner.rollout import RolloutSettings, rollout
from planner.sampler import Conditions, sample
from planner.sampling import Sampling

REGION = AvoidRegion(0.5, -1.0, 0.6)


def test_the_cost_is_zero_outside_the_margin_and_grows_towards_the_centre():
    offsets = torch.tensor([0.0, 0.3, 0.6, 0.6 + MARGIN_M, 3.0])
    plans = torch.tensor([0.5, -1.0]).repeat(5, 2, 1)
    plans[:, :, 0] += offsets[:, None]
    costs = REGION(plans, 0.0)
    assert (costs[:-2] > costs[1:-1]).all()
    assert costs[-2:].abs().max() < 1e-9
    assert (REGION(plans[1:4], 1.0) > costs[1:4]).all()
    assert costs[1].item() == pytest.approx(0.5 * (0.3 + MARGIN_M) ** 2, rel=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    plans = torch.tensor([[[0.1, -1.2, 9.0], [0.4, -0.9, 9.0], [1.4, -0.2, 9.0]]], dtype=torch.double)
    assert torch.autograd.gradcheck(lambda given: REGION(given, 0.3), plans.requires_grad_())


def test_a_plan_that_would_jump_across_the_region_pays_too():
    plans = torch.tensor([[[-0.5, -1.0], [1.5, -1.0]]])
    assert REGION(plans, 0.0).item() > 0
    assert REGION.entered(plans.numpy()).all()


def test_repeated_steps_push_a_plan_out_of_the_region_and_leave_the_rest_alone():
    plan = torch.stack([torch.linspace(-2, 3, 41), torch.full((41,), -0.9), torch.full((41,), 7.0)], dim=1)[None]
    moved = plan
    noise = 0.1
    for _ in range(100):
        moved = descend(REGION, moved, noise, 1.0)
    assert REGION.entered(plan[..., :2].numpy()).all()
    outside = (plan[0, :, :2] - torch.tensor([0.5, -1.0])).norm(dim=-1) > 0.6 + MARGIN_M + REACH_M * noise + 0.125
    assert torch.equal(moved[0, outside], plan[0, outside])
    assert torch.equal(moved[..., 2], plan[..., 2])
    assert ((moved[0, :, :2] - torch.tensor([0.5, -1.0])).norm(dim=-1) > 0.6).all()


def test_a_path_enters_where_a_segment_does_though_no_point_does():
    paths = np.array([[[-1.0, -1.5], [2.0, -1.5]], [[-1.0, -1.7], [2.0, -1.7]]])
    assert REGION.entered(paths).tolist() == [True, False]


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (0.0, float("nan"), 1.0)])
def test_a_region_without_extent_is_refused(values):
    with pytest.raises(UserError, match="radius"):
        AvoidRegion(*values)


def test_costs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="3 plans"):
        descend(lambda plans, noise: plans.sum(), torch.zeros(3, 4, 2), 0.5, 1.0)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpm"])
def test_guidance_sees_plans_that_meet_their_conditions_and_cannot_move_them(kind):
    known = torch.zeros(2, 8, dtype=torch.bool)
    known[:, 0] = True
    values = torch.rand(5, 2, 8) * 2 - 1

    seen = []

    def guide(clean, noise):
        seen.append(noise)
        assert torch.equal(clean[:, known], values[:, known])
        return clean + 1.5

    plans = sample(
        lambda noisy, levels: torch.zeros_like(noisy),
        make_schedule(8, "sample"),
        Conditions(known, values),
        kind=kind,
        num_steps=4,
        generator=torch.Generator().manual_seed(0),
        guide=guide,
    )
    assert torch.equal(plans[:, known], values[:, known])
    assert torch.allclose(plans[:, ~known], torch.tensor(1.0), atol=1e-5)
    assert 1 > seen[0] > 0.99
    assert seen == sorted(seen, reverse=True)


def test_guided_plans_cost_less_and_keep_start_and_goal(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    region = AvoidRegion(0.0, 2.0, 1.0)
    problem = {"start": [-4.0, 2.0], "goal": [4.0, 2.0], "num_plans": 16, "seed": 3}
    free, guided = planner.plan(**problem), planner.plan(**problem, guide=region)
    assert region(torch.from_numpy(free), 0.0).mean() > 1.15 * region(torch.from_numpy(guided), 0.0).mean()
    assert (guided[:, 0] == np.float32([-4, 2, 0, 0])).all()
    assert (guided[:, -1, :2] == np.float32([4, 2])).all()
    assert planner.plan(**problem, guide=region, sampling=Sampling(avoid_scale=0.0)) == pytest.approx(free, abs=1e-4)


def test_any_differentiable_cost_guides(tiny_run):
    """What value guidance needs: here the 'value' of a plan is how far left it lies."""
    planner = Planner.from_run(tiny_run, device="cpu")
    problem = {"start": [-4.0, 2.0], "goal": [4.0, 2.0], "num_plans": 8, "seed": 3}
    guided = planner.plan(
        **problem, guide=lambda plans, noise: plans[..., 0].sum(-1), sampling=Sampling(avoid_scale=5.0)
    )
    assert guided[:, 1:-1, 0].mean() < planner.plan(**problem)[:, 1:-1, 0].mean() - 1


def test_among_valid_plans_the_cheaper_is_chosen_before_the_shorter():
    maze = get_map("hash")
    y = maze.cell_to_xy(np.array([3, 1]))[1]
    straight = np.stack([np.linspace(-4, 4, 41), np.full(41, y)], axis=1)
    detour = straight + np.array([0, 0.1]) * np.sin(np.linspace(0, np.pi, 41))[:, None]
    plans = np.stack([straight, detour])[None]
    assert choose_best(plans, maze, 0.2)[0] == [0]
    assert choose_best(plans, maze, 0.2, costs_BN=np.array([[1.0, 0.5]]))[0] == [1]


def test_a_rollout_says_whether_plan_and_path_stayed_out(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    tasks = get_map("hash").tasks[:1]
    start = get_map("hash").cell_to_xy(tasks[0].start)
    inside = rollout(planner, tasks, RolloutSettings(episodes=1, avoid=(*start.tolist(), 0.8))).rows[0]
    outside = rollout(planner, tasks, RolloutSettings(episodes=1, avoid=(50.0, 0.0, 1.0))).rows[0]
    assert (inside["plan_avoids"], inside["path_avoids"]) == (False, False)
    assert (outside["plan_avoids"], outside["path_avoids"]) == (True, True)
    assert "plan_avoids" not in rollout(planner, tasks, RolloutSettings(episodes=1)).rows[0]
