"""Which of several plans is followed, by the map or without it, and at several horizons."""

import shutil
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from envs.maps import get_map
from groundwork.errors import UserError
from planner.choosing import JUDGED_POINTS, denoising_error, held_at_end, longest_steps_m
from planner.comparison.kept import run_rollout
from planner.diffusion import make_schedule
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout
from planner.sampling import Choice, Sampling
from planner.training.run import RunFolder

START, GOAL = [-4.0, 2.0], [2.0, 4.0]


@pytest.mark.parametrize(
    ("best_of", "shares", "expected"),
    [
        (1, (1.0,), {64: 1}),
        (7, (0.5, 0.75, 1.0), {32: 3, 48: 2, 64: 2}),
        (4, (0.01, 0.02, 1.0), {8: 3, 64: 1}),  # no plan is shorter than two units
        (2, (0.51, 1.0), {36: 1, 64: 1}),  # rounded up to whole units
    ],
)
def test_plans_are_shared_out_among_horizons(best_of, shares, expected):
    assert Sampling(best_of=best_of, horizon_shares=shares).drawn_at(64, unit=4) == expected


def test_more_horizons_than_plans_are_refused():
    with pytest.raises(UserError, match="3 of them need best_of"):
        Sampling(best_of=2, horizon_shares=(0.5, 0.75, 1.0)).drawn_at(64, unit=4)


@pytest.mark.parametrize(("shares", "words"), [((0.5,), "must hold 1"), ((0.5, 1.0), "2 of them need best_of")])
def test_horizons_that_one_plan_cannot_have_are_refused(tiny_run, shares, words):
    planner, sampling = Planner.from_run(tiny_run, device="cpu"), Sampling(horizon_shares=shares)
    for draw in (planner.drawn, planner.plan):
        with pytest.raises(UserError, match=words):
            draw(START, GOAL, sampling=sampling)


def test_a_short_plan_waits_at_rest_where_it_ends():
    plans = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    held = held_at_end(plans, 8)
    assert held.shape == (2, 3, 8, 4)
    assert (held[:, :, :5] == plans).all()
    assert (held[:, :, 5:, :2] == plans[:, :, 4:, :2]).all()
    assert (held[:, :, 5:, 2:] == 0).all()


def test_steps_to_what_is_given_do_not_count_where_others_remain():
    way = np.array([0.0, 9.0, 10.0, 12.0, 13.0, 20.0])
    plans = np.stack([way, way[::-1] / 2], axis=0)[None, :, :, None] * [1.0, 0.0]
    assert longest_steps_m(plans, inner=True).tolist() == [[2.0, 1.0]]
    assert longest_steps_m(plans, inner=False).tolist() == [[9.0, 4.5]]
    assert longest_steps_m(plans[:, :, :2], inner=True).tolist() == [[9.0, 3.5]]


def test_the_worst_stretch_of_a_plan_counts():
    """A network that makes zero of everything moves a plan by its own values."""
    schedule, known = make_schedule(50, "sample"), torch.zeros(2, 32, dtype=torch.bool)
    known[:, [0, -1]] = True
    plans = torch.zeros(3, 2, 32)
    plans[1, 0, 10:14] = 0.8  # four points of a stretch of eight, in one of two dimensions
    plans[2, :, 0] = plans[2, :, -1] = 1.0  # what is known is not judged
    found = denoising_error(lambda noisy, at: torch.zeros_like(noisy), schedule, known, plans)
    assert found.tolist() == pytest.approx([0, 0.64 / 2 * 4 / JUDGED_POINTS, 0], abs=1e-6)


def test_a_network_of_noise_is_judged_by_the_plan_it_means():
    schedule, known = make_schedule(50, "noise"), torch.zeros(2, 16, dtype=torch.bool)
    plans = torch.full((1, 2, 16), 0.5)

    def denoise(noisy, at):  # the noise that leaves zero
        return noisy / (1 - schedule.alphas_cumprod[at[0]]) ** 0.5

    assert denoising_error(denoise, schedule, known, plans).item() == pytest.approx(0.25, rel=1e-4)


def test_plans_of_several_horizons_compete_and_the_choice_is_the_one_asked_for(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    starts, goals = np.array([START, [2.0, 4.0]], np.float32), np.array([GOAL, [-2.0, -4.0]], np.float32)
    inside = {"longest_step": slice(None), "inner_step": slice(1, -1)}
    for choose in get_args(Choice):
        sampling = Sampling(best_of=6, horizon_shares=(0.5, 1.0), choose=choose)
        drawn = planner.drawn(starts, goals, 2, seed=3, sampling=sampling)
        assert [plans.shape for plans in drawn] == [(4, 3, 16, 4), (4, 3, 32, 4)]
        assert (drawn[1].reshape(2, 6, 32, 4) == planner.plan(starts, goals, 6, seed=4)).all()  # noise of their own
        best = planner.plan(starts, goals, 2, seed=3, sampling=sampling)
        assert best.shape == (2, 2, 32, 4)
        assert (best[:, :, 0, :2] == starts[:, None]).all()
        assert (best[:, :, -1, :2] == goals[:, None]).all()
        plans = np.concatenate([held_at_end(each, 32) for each in drawn], axis=1)
        if choose in inside:
            steps_m = [np.linalg.norm(np.diff(each[..., :2], axis=2), axis=-1)[..., inside[choose]] for each in drawn]
            expected = np.concatenate([each.max(2) for each in steps_m], axis=1).argmin(1)
        elif choose == "denoising":
            expected = np.concatenate([planner.denoising_error(each) for each in drawn], axis=1).argmin(1)
        else:
            continue
        assert (best.reshape(4, 32, 4) == plans[np.arange(4), expected]).all()


def test_a_rollout_chooses_without_the_map(tiny_run):
    planner, tasks = Planner.from_run(tiny_run, device="cpu"), choose_tasks(get_map("hash"), ["straight"])[:2]
    asked = RolloutSettings(episodes=1, best_of=4, horizon_shares=(0.5, 1.0), choose="inner_step", replan_every=20)
    done = rollout(planner, tasks, asked)
    assert done.plans.shape[:2] == (2, 32)
    by_map = rollout(planner, tasks, RolloutSettings(episodes=1, best_of=4, horizon_shares=(0.5, 1.0)))
    # The same plans were drawn; the walls count for the share of valid ones alone.
    assert [row["valid_among_n"] for row in done.rows] == [row["valid_among_n"] for row in by_map.rows]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"choose": "denoising", "avoid": (0.0, 0.0, 0.5)}, "takes no region to avoid"),
        ({"horizon_shares": (0.5, 1.0), "replan_warm": 0.5}, "horizon_shares must be 1"),
        ({"choose": "luck"}, "choose = luck"),
        ({"horizon_shares": (0.5, 1.5)}, "horizon_shares = "),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_run, settings, words):
    with pytest.raises(UserError, match=words):
        Planner.from_run(tiny_run, device="cpu").plan(START, GOAL, sampling=Sampling(best_of=2, **settings))


def test_a_planner_takes_its_steps_again_when_asked(tiny_run):
    planner, levels = Planner.from_run(tiny_run, device="cpu"), []
    network = planner.network
    planner.network = lambda sample, level: levels.append(int(level[0])) or network(sample, level)
    steps = planner.config.diffusion.train_steps
    asked = Sampling(sampler="ddpm", sampling_steps=steps, resample=2, resample_levels=(0.5, 1.0))
    planner.plan([-4.0, 2.0], [2.0, 4.0], sampling=asked)
    assert levels == [level for level in reversed(range(steps)) for _ in range(3 if (level + 1) / steps >= 0.5 else 1)]
    with pytest.raises(UserError, match="resample needs ddpm"):
        planner.plan([-4.0, 2.0], [2.0, 4.0], sampling=Sampling(sampler="dpm", resample=2))


def test_a_run_that_takes_its_steps_again_does_so_unless_a_command_says_otherwise_or_its_sampler_cannot(tiny_run):
    planner, evaluations = Planner.from_run(tiny_run, device="cpu"), []
    network = planner.network
    planner.network = lambda sample, level: evaluations.append(1) or network(sample, level)
    steps = planner.config.diffusion.train_steps
    own = replace(planner.config.diffusion, sampler="ddpm", sampling_steps=steps, resample=2, resample_levels=(0, 1))
    planner.config = replace(planner.config, diffusion=own)

    def drawn_with(**asked):
        evaluations.clear()
        planner.plan(START, GOAL, sampling=Sampling(**asked))
        return len(evaluations)

    assert drawn_with() == 3 * (steps - 1) + 1  # the last step is taken once
    assert drawn_with(resample=0) == drawn_with(sampler="ddim") == steps
    assert drawn_with(resample=1) == 2 * (steps - 1) + 1
    assert drawn_with(resample_levels=(0.5, 1.0)) == steps + 2 * sum(
        (level + 1) / steps >= 0.5 for level in range(steps)
    )


def test_a_run_has_a_temperature_unless_a_command_says_otherwise(tiny_run):
    planner = Planner.from_run(tiny_run, device="cpu")
    own = planner.config
    alike = replace(own, diffusion=replace(own.diffusion, temperature=0.0))

    def spread(config, **asked):
        planner.config = config
        return planner.plan(START, GOAL, num_plans=4, sampling=Sampling(**asked)).std(axis=0).max()

    assert spread(alike) < 1e-6 < 1e-3 < spread(own)
    assert spread(own, temperature=0.0) < 1e-6 < 1e-3 < spread(own, temperature=0.5)
    assert spread(alike, temperature=0.5) == spread(replace(alike, diffusion=replace(alike.diffusion, temperature=0.5)))
    with pytest.raises(UserError, match="temperature = 1.5"):
        Sampling(temperature=1.5)


def test_a_rollout_is_kept_once_whoever_says_that_steps_are_taken_again(tiny_run, tmp_path, monkeypatch):
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run.path / "rollouts", ignore_errors=True)
    config, asked = run.config(), RolloutSettings(episodes=1, sampler="ddpm", sampling_steps=2)
    for times, same in ((0, [asked, replace(asked, resample=0)]), (1, [asked, replace(asked, resample=1)])):
        own = replace(config, diffusion=replace(config.diffusion, resample=times))
        monkeypatch.setattr(RunFolder, "config", lambda _, own=own: own)
        for settings in same:
            run_rollout(run.path, settings, ("straight",), "cpu")
        assert len(list((run.path / "rollouts").glob("*.json"))) == times + 1
    run_rollout(run.path, replace(asked, resample=0), ("straight",), "cpu")  # as the first one was
    assert len(list((run.path / "rollouts").glob("*.json"))) == 2
