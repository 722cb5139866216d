import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from groundwork.errors import UserError
from planner.diffusion import level_weights, make_schedule, training_loss
from planner.sampler import Conditions, Resampling, WarmStart, make_scheduler, sample, sampling_levels
from planner.sampling import SAMPLERS, SamplerKind, find_sampler

NOTHING_KNOWN = torch.zeros(1, 4, dtype=torch.bool)
ENOUGH_STEPS = {"ddpm": 200, "ddim": 100, "dpm": 50, "sde": 50}
"""Of each sampler, for a distribution that is right to a few per cent."""


def test_every_sampler_is_tried_here_and_no_other_is_taken():
    assert set(ENOUGH_STEPS) == set(SAMPLERS) == set(get_args(SamplerKind))
    with pytest.raises(UserError, match=f"sampler = euler is not one of {', '.join(SAMPLERS)}"):
        find_sampler("euler")
    glossary = (Path(__file__).resolve().parent.parent / "docs" / "measures.md").read_text()
    assert f"The samplers by name (`planner.sampling.SAMPLERS`): `{', '.join(SAMPLERS)}`" in glossary
    with pytest.raises(UserError, match="sampler = euler"):
        make_scheduler("euler", make_schedule(8, "sample"), [7, 3])


def gaussian_denoiser(schedule, mean, deviation):
    """The exact posterior mean of N(mean, deviation²) data: what a perfect network predicts."""

    def denoise(noisy, levels):
        kept = schedule.alphas_cumprod[levels.long()].view(-1, 1, 1)
        gain = kept.sqrt() * deviation**2 / (kept * deviation**2 + 1 - kept)
        clean = mean + gain * (noisy - kept.sqrt() * mean)
        if schedule.config["prediction_type"] == "sample":
            return clean
        return (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()

    return denoise


@pytest.mark.parametrize("prediction", ["sample", "noise"])
@pytest.mark.parametrize(("kind", "num_steps"), [*ENOUGH_STEPS.items(), ("ddim", 77)])
def test_samples_follow_the_gaussian_whose_answer_is_known(kind, num_steps, prediction):
    schedule = make_schedule(200, prediction)
    conditions = Conditions(NOTHING_KNOWN, torch.zeros(5000, 1, 4))
    plans = sample(
        gaussian_denoiser(schedule, 0.3, 0.15),
        schedule,
        conditions,
        kind=kind,
        num_steps=num_steps,
        generator=torch.Generator().manual_seed(0),
    )
    assert plans.mean().item() == pytest.approx(0.3, abs=0.01)
    # DDPM's fixed_small variance and finitely many steps leave a few per cent
    assert plans.std().item() == pytest.approx(0.15, rel=0.08)


def test_steps_taken_again_leave_the_gaussian_whose_answer_is_known():
    schedule = make_schedule(200, "sample")
    plans = sample(
        gaussian_denoiser(schedule, 0.3, 0.15),
        schedule,
        Conditions(NOTHING_KNOWN, torch.zeros(5000, 1, 4)),
        num_steps=200,
        resampling=Resampling(3, 0.0, 0.6),
        generator=torch.Generator().manual_seed(0),
    )
    assert plans.mean().item() == pytest.approx(0.3, abs=0.01)
    assert plans.std().item() == pytest.approx(
        0.15, rel=0.1
    )  # the variance that DDPM leaves out counts again each time


def bridge(points, step):
    """A random walk between known ends ∓0.3: covariance (T, T) without the ends, deviation of the middle with them."""
    apart = torch.arange(points, dtype=torch.float64)
    covariance = 0.25 * (1 - step**2 / 0.5) ** (apart[:, None] - apart).abs()
    inner, ends, middle = covariance[1:-1, 1:-1], covariance[[0, -1]], points // 2 - 1
    left = inner - ends[:, 1:-1].T @ torch.linalg.solve(ends[:, [0, -1]], ends[:, 1:-1])
    return covariance, left[middle, middle].sqrt().item()


def local_denoiser(schedule, covariance, known, window):
    """The exact posterior mean of each point, given no more than ``window`` points to either side of it."""
    points = len(covariance)

    def denoise(noisy, levels):
        kept = schedule.alphas_cumprod[int(levels[0])].double()
        gains = torch.zeros(points, points, dtype=torch.float64)
        for at in range(points):
            seen = torch.arange(max(0, at - window), min(points, at + window + 1))
            scale = torch.where(known[0, seen], 1.0, kept.sqrt())
            noise = torch.where(known[0, seen], 1e-9, 1 - kept)
            evidence = scale[:, None] * covariance[seen][:, seen] * scale + noise.diag()
            gains[at, seen] = torch.linalg.solve(evidence, covariance[at, seen] * scale)
        return noisy @ gains.T

    return denoise


def test_exact_but_local_denoisers_spread_a_long_bridge_too_wide_and_steps_taken_again_mend_it():
    points, schedule = 48, make_schedule(128, "sample")
    covariance, truth = bridge(points, 0.05)
    known = torch.zeros(1, points, dtype=torch.bool)
    known[0, [0, -1]] = True
    values = torch.zeros(300, 1, points, dtype=torch.float64)
    values[..., 0], values[..., -1] = -0.3, 0.3

    def middle(window, resampling=None):
        plans = sample(
            local_denoiser(schedule, covariance, known, window),
            schedule,
            Conditions(known, values),
            num_steps=128,
            resampling=resampling,
            generator=torch.Generator().manual_seed(0),
        )
        return plans[..., points // 2].std().item()

    assert middle(points) == pytest.approx(truth, rel=0.15)
    alone, again = middle(8), middle(8, Resampling(4, 0.0, 0.5))
    assert alone > 1.6 * truth
    assert again < 1.45 * truth


def test_each_step_between_the_shares_costs_its_evaluations_again_and_the_last_is_not_taken_again():
    schedule, seen = make_schedule(16, "sample"), []

    def denoise(noisy, levels):
        seen.append(int(levels[0]))
        return torch.zeros_like(noisy)

    conditions = Conditions(NOTHING_KNOWN, torch.zeros(1, 1, 4))
    asked = {"num_steps": 8, "generator": torch.Generator().manual_seed(0)}
    steps = []
    sample(
        denoise,
        schedule,
        conditions,
        resampling=Resampling(2, 0.0, 0.25),
        on_step=lambda n, _: steps.append(n),
        **asked,
    )
    assert seen == [15, 13, 11, 9, 7, 5, 3, 3, 3, 1]
    assert steps == list(range(1, 9))
    with pytest.raises(UserError, match="sampler = ddim remembers its last steps"):
        sample(denoise, schedule, conditions, kind="ddim", resampling=Resampling(2, 0.0, 0.25), **asked)
    with pytest.raises(UserError, match=r"resample_levels = 0\.5,0\.25 must be"):
        Resampling(1, 0.5, 0.25)


@pytest.mark.parametrize(
    ("kind", "resampling"), [*((kind, None) for kind in SAMPLERS), ("ddpm", Resampling(2, 0, 0.5))]
)
def test_a_temperature_scales_all_noise_and_nothing_else(kind, resampling):
    """Where the denoiser is linear so is the plan in its noise: of Gaussian data it is mean + temperature · noise."""
    schedule, mean = make_schedule(64, "sample"), 0.1

    def plans(temperature, warm=None):
        return sample(
            gaussian_denoiser(schedule, mean, 0.05),  # far from ±1, where plans are clipped
            schedule,
            Conditions(NOTHING_KNOWN, torch.zeros(16, 1, 4)),
            kind=kind,
            num_steps=16,
            generator=torch.Generator().manual_seed(0),
            resampling=resampling,
            temperature=temperature,
            warm=warm,
        )

    cold = plans(0.0)
    torch.testing.assert_close(cold, cold[:1, :, :1].expand_as(cold), rtol=0, atol=1e-6)  # no noise is left
    torch.testing.assert_close(plans(0.5) - cold, 0.5 * (plans(1.0) - cold), rtol=0, atol=1e-5)
    warm = WarmStart(torch.full((16, 1, 4), mean), 0.5)
    torch.testing.assert_close(plans(0.0, warm), torch.full((16, 1, 4), mean), rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampling_that_begins_leaves_one_that_is_under_way_alone(kind):
    schedule = make_schedule(64, "sample")
    under_way = make_scheduler(kind, schedule, [63, 31, 0])
    make_scheduler(kind, schedule, [40])
    assert under_way.timesteps.tolist() == [63, 31, 0]


@pytest.mark.parametrize("num_steps", [1, 2, 7, 64])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_ends_with_the_clean_plans_of_its_last_evaluation(kind, num_steps):
    """Which is why sampling asks no scheduler for its last step."""
    schedule, generator = make_schedule(64, "sample"), torch.Generator().manual_seed(0)
    levels = sampling_levels(64, num_steps)
    scheduler, plans = make_scheduler(kind, schedule, levels), torch.randn(5, 2, 8, generator=generator)
    for level in levels:
        clean = torch.rand(plans.shape, generator=generator) * 2 - 1
        plans = scheduler.step(clean, level, plans, generator=generator).prev_sample
    torch.testing.assert_close(plans, clean, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "order"), [(kind, one.order) for kind, one in SAMPLERS.items() if one.order])
def test_the_error_of_deterministic_steps_falls_with_the_order_that_they_claim(kind, order):
    """For Gaussian data the flow takes standard normal z to mean + deviation · z (Song et al. 2021)."""
    schedule, mean, deviation = make_schedule(1600, "sample"), 0.1, 0.2
    steps = (10, 20, 40, 80)
    errors = []
    for num_steps in steps:
        conditions = Conditions(NOTHING_KNOWN, torch.zeros(16, 1, 4))
        noise = torch.randn(16, 1, 4, generator=torch.Generator().manual_seed(0))
        denoise = gaussian_denoiser(schedule, mean, deviation)
        generator = torch.Generator().manual_seed(0)
        plans = sample(denoise, schedule, conditions, kind=kind, num_steps=num_steps, generator=generator)
        errors.append((plans - (mean + deviation * noise)).square().mean().sqrt().item())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.3)
    assert errors[-1] < 0.01 < errors[0]


@pytest.mark.parametrize("num_steps", [4, 16])
@pytest.mark.parametrize("prediction", ["sample", "noise"])
def test_ddim_is_that_of_diffusers_where_the_steps_divide_the_levels(num_steps, prediction):
    schedule = make_schedule(64, prediction)
    conditions = Conditions(NOTHING_KNOWN, torch.zeros(8, 1, 4))
    denoise = gaussian_denoiser(schedule, 0.1, 0.2)
    ours = sample(
        denoise, schedule, conditions, kind="ddim", num_steps=num_steps, generator=torch.Generator().manual_seed(3)
    )
    theirs = DDIMScheduler.from_config(schedule.config)
    theirs.set_timesteps(num_steps)
    plans = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(3))
    for level in theirs.timesteps:
        plans = theirs.step(denoise(plans, level.expand(8)), level, plans).prev_sample
    torch.testing.assert_close(ours, plans, rtol=0, atol=2e-4)


@given(st.integers(1, 300), st.data())
def test_any_number_of_steps_visits_as_many_levels_from_the_noisiest_down(levels, data):
    steps = data.draw(st.integers(1, levels))
    visited = sampling_levels(levels, steps)
    assert len(visited) == steps
    assert visited[0] == levels - 1
    assert visited[-1] >= 0
    assert all(noisier > cleaner for noisier, cleaner in zip(visited, visited[1:], strict=False))


def test_few_ddim_steps_still_start_at_pure_noise():
    schedule = make_schedule(64, "sample")
    seen = []

    def denoise(noisy, levels):
        seen.append(int(levels[0]))
        return noisy

    sample(
        denoise,
        schedule,
        Conditions(NOTHING_KNOWN, torch.zeros(1, 1, 4)),
        kind="ddim",
        num_steps=4,
        generator=torch.Generator().manual_seed(0),
    )
    assert seen == [63, 47, 31, 15]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_conditions_hold_exactly_after_every_step(kind):
    schedule = make_schedule(16, "sample")
    known = torch.zeros(3, 8, dtype=torch.bool)
    known[:, 0] = known[:2, -1] = True
    values = torch.rand(5, 3, 8) * 2 - 1
    checked = []

    def inspect(done, plans):
        checked.append(done)
        assert torch.equal(plans[:, known], values[:, known])

    def denoise(noisy, levels):
        assert torch.equal(noisy[:, known], values[:, known])
        return torch.tanh(noisy)

    sample(
        denoise,
        schedule,
        Conditions(known, values),
        kind=kind,
        num_steps=16,
        generator=torch.Generator().manual_seed(0),
        on_step=inspect,
    )
    assert checked == list(range(1, 17))


def test_same_generator_seed_same_plans_and_another_seed_others():
    schedule = make_schedule(8, "sample")

    def plans(seed):
        return sample(
            lambda noisy, levels: noisy * 0.5,
            schedule,
            Conditions(NOTHING_KNOWN, torch.zeros(2, 1, 4)),
            num_steps=8,
            generator=torch.Generator().manual_seed(seed),
        )

    assert torch.equal(plans(1), plans(1))
    assert not torch.equal(plans(1), plans(2))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_warm_start_keeps_the_distribution_and_stays_the_nearer_the_lower_its_level(kind):
    schedule = make_schedule(200, "sample")
    last = 0.3 + 0.15 * torch.randn(4000, 1, 4, generator=torch.Generator().manual_seed(1))
    distances, evaluations = [], []
    for level in (0.1, 0.3, 1.0):
        seen = []
        denoise = gaussian_denoiser(schedule, 0.3, 0.15)
        plans = sample(
            lambda noisy, levels, denoise=denoise, seen=seen: seen.append(int(levels[0])) or denoise(noisy, levels),
            schedule,
            Conditions(NOTHING_KNOWN, torch.zeros(4000, 1, 4)),
            kind=kind,
            num_steps=200,
            generator=torch.Generator().manual_seed(0),
            warm=WarmStart(last, level),
        )
        assert plans.mean().item() == pytest.approx(0.3, abs=0.01)
        assert plans.std().item() == pytest.approx(0.15, rel=0.08)
        distances.append((plans - last).abs().mean().item())
        evaluations.append((seen[0], len(seen)))
    assert distances[0] < 0.8 * distances[1] < 0.8 * distances[2]
    assert evaluations == [(19, 20), (59, 60), (199, 200)]


def test_conditions_hold_in_a_warm_start_too():
    schedule, known = make_schedule(16, "sample"), torch.ones(1, 4, dtype=torch.bool)
    values = torch.rand(3, 1, 4)
    plans = sample(
        lambda noisy, levels: noisy,
        schedule,
        Conditions(known, values),
        num_steps=16,
        generator=torch.Generator().manual_seed(0),
        warm=WarmStart(torch.zeros(3, 1, 4), 0.5),
    )
    assert torch.equal(plans, values)


@pytest.mark.parametrize("level", [0.0, -0.5, 1.5])
def test_a_warm_level_out_of_range_is_refused(level):
    with pytest.raises(UserError, match=str(level)):
        WarmStart(torch.zeros(1, 1, 4), level)


def test_too_many_sampling_steps_are_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"9 .* 8"):
        sample(
            lambda noisy, levels: noisy,
            make_schedule(8, "sample"),
            Conditions(NOTHING_KNOWN, torch.zeros(1, 1, 4)),
            num_steps=9,
            generator=torch.Generator(),
        )


@pytest.mark.parametrize("prediction", ["sample", "noise"])
def test_the_loss_of_a_perfect_network_is_zero_and_known_entries_cost_nothing(prediction):
    schedule = make_schedule(8, prediction)
    clean, noise = torch.randn(4, 2, 6), torch.randn(4, 2, 6)
    levels = torch.tensor([0, 3, 5, 7])
    known = torch.zeros(2, 6, dtype=torch.bool)
    known[:, 0] = True
    target = clean if prediction == "sample" else noise
    inputs = []

    def perfect_but_wrong_at_known(noisy, levels):
        inputs.append(noisy)
        return torch.where(known, 1e6, target)

    loss = training_loss(perfect_but_wrong_at_known, schedule, clean, known, levels, noise)
    assert loss.item() == 0
    assert torch.equal(inputs[0][:, known], clean[:, known])
    off = training_loss(lambda noisy, levels: target + 1, schedule, clean, known, levels, noise)
    assert off.item() == pytest.approx(10 / 12)


@pytest.mark.parametrize("prediction", ["sample", "noise"])
def test_capped_errors_count_by_their_levels_signal_to_noise_ratio(prediction):
    schedule = make_schedule(64, prediction)
    levels = torch.tensor([0, 10, 40, 63])
    kept = schedule.alphas_cumprod[levels].double()
    ratio = kept / (1 - kept)
    weights = level_weights(schedule, levels, 5.0).double()
    expected = ratio.clamp(0.05, 5) if prediction == "sample" else ratio.clamp(max=5) / ratio
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=0)
    assert weights[0] < ratio[0], "the cap is reached"
    clean, noise, known = torch.randn(4, 2, 6), torch.randn(4, 2, 6), torch.zeros(2, 6, dtype=torch.bool)
    target = clean if prediction == "sample" else noise

    def wrong_by_one(noisy, levels):
        return target + 1

    weighted = training_loss(wrong_by_one, schedule, clean, known, levels, noise, 5.0)
    torch.testing.assert_close(weighted.double(), expected.mean(), rtol=1e-4, atol=0)
    assert training_loss(wrong_by_one, schedule, clean, known, levels, noise).item() == pytest.approx(1)


def test_the_schedule_is_the_cosine_of_nichol_and_dhariwal():
    schedule = make_schedule(64, "sample")
    cosine = [math.cos((t / 64 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 20, 21)]
    expected = torch.tensor([cosine[1] / cosine[0], cosine[2] / cosine[0]])
    torch.testing.assert_close(schedule.alphas_cumprod[19:21], expected, rtol=1e-4, atol=1e-6)
