"""Plans composed of chunks: where these lie, what each is told, and that nothing else changes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundwork.errors import UserError
from norm_study.audit.command import planner_inputs
from norm_study.stitching.cause import cause_rows
from norm_study.stitching.intervention import InterventionSettings, intervention_rows
from norm_study.stitching.settings import CauseSettings
from planner.choosing import held_at_end
from planner.composition import Chunks, beside_windows, require_one_piece
from planner.data import load_data
from planner.diffusion import make_schedule
from planner.plan import Planner
from planner.sampling import Sampling
from planner.training.train import train
from planner.training.trainer import Trainer, make_network

COMPOSED = {"model": {"tell_known": True, "overlap": 6}, "diffusion": {"drop_ends": 0.5}}


@st.composite
def any_chunks(draw):
    size = draw(st.integers(2, 40))
    return Chunks(size + draw(st.integers(1, 200)), size, draw(st.integers(1, size // 2)))


@given(any_chunks())
@settings(max_examples=100, deadline=None)
def test_chunks_cover_the_plan_overlap_enough_and_are_as_few_as_can_be(chunks):
    starts = chunks.starts_K
    assert starts[0] == 0
    assert starts[-1] == chunks.points - chunks.size
    assert (starts.diff() <= chunks.size - chunks.overlap).all()
    assert (len(starts) - 1) * (chunks.size - chunks.overlap) + chunks.overlap < chunks.points


@given(any_chunks())
@settings(max_examples=50, deadline=None)
def test_a_plan_that_is_split_and_merged_is_the_plan(chunks):
    plans = torch.rand(3, 2, chunks.points, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(chunks.merged(chunks.split(plans)), plans, atol=1e-6)


@given(any_chunks())
@settings(max_examples=50, deadline=None)
def test_a_plan_goes_over_to_a_chunk_within_its_overlap_and_then_follows_it(chunks):
    starts = [*chunks.starts_K.tolist(), chunks.points]
    numbers = torch.arange(len(starts) - 1.0)[:, None, None].expand(-1, 1, chunks.size)
    plan = chunks.merged(numbers)[0, 0]
    assert (plan.diff() >= -1e-5).all()
    for number, (start, following) in enumerate(itertools.pairwise(starts)):
        alone = plan[start + chunks.overlap if number else 0 : following]
        assert torch.allclose(alone, torch.full_like(alone, number), atol=1e-5)


@given(any_chunks())
@settings(max_examples=50, deadline=None)
def test_a_chunk_is_told_what_its_neighbours_have_at_its_own_points_and_no_end_of_the_plan(chunks):
    generator = torch.Generator().manual_seed(0)
    count, overlap = len(chunks.starts_K), chunks.overlap
    pieces = torch.rand(2 * count, 2, chunks.size, generator=generator)
    values, there = chunks.beside(pieces).reshape(2, count, 4, chunks.size).split(2, dim=2)
    pieces = pieces.reshape(2, count, 2, chunks.size)
    for k, start in enumerate(chunks.starts_K.tolist()):
        expected, marked = torch.zeros(2, 2, chunks.size), torch.zeros(chunks.size)
        for t in range(chunks.size):
            left, right = k > 0 and t < overlap, k < count - 1 and t >= chunks.size - overlap
            if left or right:
                other = k - 1 if left else k + 1
                expected[..., t] = pieces[:, other, :, start + t - int(chunks.starts_K[other])]
                marked[t] = 1
        assert torch.equal(values[:, k], expected)
        assert (there[:, k] == marked).all()


def test_of_equal_chunks_training_and_sampling_tell_the_same_but_for_the_noise():
    schedule, chunks = make_schedule(16, "sample"), Chunks(44, 24, 4)
    whole, zeros, levels = torch.rand(1, 2, 44), torch.zeros(2, 2, 24), torch.full((2,), 7)
    pieces = chunks.split(whole)
    known = torch.zeros(2, 2, 24, dtype=torch.bool)
    known[0, :, 0] = known[1, :, -1] = True
    scale = schedule.alphas_cumprod[7].sqrt()
    told = beside_windows(schedule, pieces, known, levels, zeros, 4)
    told[:, :2] /= scale
    assert torch.allclose(told, chunks.beside(pieces), atol=1e-5)


def test_a_training_shows_a_window_its_unknown_ends_noised_anew_and_nothing_at_the_known(tiny, hash_dataset):
    config = tiny(**COMPOSED, batch_size=256)
    training = Trainer(config, load_data(config.data), torch.device("cpu"))
    seen = {}

    def network(noisy, levels, known, beside):
        seen.update(noisy=noisy, known=known, beside=beside)
        return noisy

    clean, levels, noise, known, other = training.batch()
    training.loss(network, (clean, torch.full_like(levels, 7), noise, known, other))
    values, there = seen["beside"].chunk(2, 1)
    assert torch.equal(there[:, :, :6].bool().all(2), ~known[:, :1, 0].expand(-1, 4))
    assert torch.equal(there[:, :, -6:].bool().all(2), ~known[:, :1, -1].expand(-1, 4))
    assert not there[:, :, 6:-6].any()
    assert not values[there == 0].any()
    kept = training.schedule.alphas_cumprod[7]
    drawn = (values - kept.sqrt() * clean) / (1 - kept).sqrt()
    assert torch.allclose(drawn[there == 1], other[there == 1], atol=1e-4)
    assert (seen["noisy"] != values)[there == 1].float().mean() > 0.99


def test_windows_levels_and_known_ends_are_those_of_a_training_without_neighbours(tiny, hash_dataset):
    whole = tiny(model={"tell_known": True}, diffusion={"drop_ends": 0.5})
    usual, told = (
        Trainer(config, load_data(config.data), torch.device("cpu")).batch() for config in (whole, tiny(**COMPOSED))
    )
    assert [len(usual), len(told)] == [4, 5]
    for one, other in zip(usual, told, strict=False):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def composed(hash_dataset, tmp_path_factory):
    from conftest import TINY

    from planner.config import from_dict, merge

    folder = tmp_path_factory.mktemp("composed") / "run"
    train(from_dict(merge(TINY, COMPOSED)), folder, "cpu", progress=False)
    return folder


START, GOAL = np.float32([-3.5, 2.0, 0, 0]), np.float32([3.5, 2.0])


def test_a_long_plan_is_composed_meets_its_ends_and_a_short_one_is_one_piece(composed):
    planner, seen = Planner.from_run(composed, device="cpu"), []
    network = planner.network

    def watched(sample, level, known, beside=None):
        seen.append((tuple(sample.shape), known, beside))
        return network(sample, level, known, beside)

    planner.network = watched
    plans = planner.plan(START, GOAL, num_plans=2, horizon=76)
    assert plans.shape == (2, 76, 4)
    assert (plans[:, 0] == START).all()
    assert (plans[:, -1, :2] == GOAL).all()
    assert {shape for shape, *_ in seen} == {(2 * 3, 4, 32)}, "three chunks of 32 points, six or more in common"
    for _, known, beside in seen:
        assert known.any(2).any(1).tolist() == [True, False, True] * 2, "the plan's ends are those of its outer chunks"
        assert beside[:, 4:].any(2).any(1).all()
    seen.clear()
    assert planner.plan(START, GOAL, num_plans=2).shape == (2, 32, 4)
    assert {(shape, beside) for shape, _, beside in seen} == {((2, 4, 32), None)}


def test_chunks_hear_each_other_of_their_overlaps_alone(composed):
    planner = Planner.from_run(composed, device="cpu")
    chunks = Chunks(76, 32, 6)
    denoise = chunks.told(planner.network)
    pieces = torch.rand(3, 4, 32, generator=torch.Generator().manual_seed(0))
    moved = pieces.clone()
    moved[2, :, 12:] += 1.0  # beyond what the middle chunk shares with the last
    level = torch.full((3,), 3)
    before, after = denoise(pieces, level), denoise(moved, level)
    assert torch.equal(before[:2], after[:2])
    moved[2, :, :12] += 1.0
    assert not torch.equal(before[1], denoise(moved, level)[1])
    assert torch.equal(before[0], denoise(moved, level)[0])


@pytest.mark.parametrize("choose", ["map", "inner_step", "denoising"])
def test_one_of_several_composed_plans_is_chosen(composed, choose):
    planner = Planner.from_run(composed, device="cpu")
    sampling = Sampling(best_of=3, choose=choose, horizon_shares=(0.4, 1.0))
    drawn = planner.drawn(START, GOAL, horizon=76, sampling=sampling)
    assert [each.shape for each in drawn] == [(1, 2, 32, 4), (1, 1, 76, 4)]
    (plan,) = planner.plan(START, GOAL, horizon=76, sampling=sampling)
    ended = [held_at_end(each, 76)[0] for each in drawn]
    assert any(np.array_equal(plan, one) for one in np.concatenate(ended))


def test_composed_plans_begin_from_the_last_ones(composed):
    planner = Planner.from_run(composed, device="cpu")
    planner.network = lambda sample, level, **told: sample  # keeps what it begins from
    last, fresh = (planner.plan(START, GOAL, horizon=76, seed=seed) for seed in (0, 1))
    warm = Sampling(replan_warm=0.1)
    again = planner.plan(START, GOAL, horizon=76, seed=1, sampling=warm, last_plans=last)
    assert np.abs(again - last).mean() < 0.5 * np.abs(fresh - last).mean()


def test_a_guide_is_given_whole_composed_plans_and_moves_them(composed):
    planner, seen = Planner.from_run(composed, device="cpu"), []

    def height(plans_BTD, noise):
        seen.append(tuple(plans_BTD.shape))
        return 0.1 * plans_BTD[..., 1].square().sum(1)

    own, guided = (planner.plan(START, GOAL, horizon=76, guide=guide)[..., 1] for guide in (None, height))
    assert set(seen) == {(1, 76, 4)}
    assert np.square(guided).sum() < 0.9 * np.square(own).sum()


def test_what_is_about_one_evaluation_of_a_whole_plan_is_refused(composed):
    assert planner_inputs(composed)[1][0][0].shape[-1] == 32
    with pytest.raises(UserError, match="overlap = 6"):
        planner_inputs(composed, length=64)
    with pytest.raises(UserError, match="overlap = 6"):
        intervention_rows(composed, InterventionSettings(), "cpu")
    with pytest.raises(UserError, match="tell_known"):
        cause_rows(composed, composed, CauseSettings())


def test_plans_of_one_window_are_one_piece_and_so_are_all_without_overlap(tiny):
    chunks = tiny(model={"overlap": 6}, diffusion={"drop_ends": 0.5})
    require_one_piece(chunks, 32, "this")
    require_one_piece(tiny(), 64, "this")
    with pytest.raises(UserError, match="this needs an evaluation of a whole plan.*36 were asked for"):
        require_one_piece(chunks, 36, "this")


def test_a_network_of_neighbours_sees_none_unless_it_is_told(tiny):
    network = make_network(tiny(**COMPOSED), 4)
    sample, level = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 3])
    assert torch.equal(network(sample, level), network(sample, level, beside=torch.zeros(2, 8, 32)))
    assert not torch.equal(network(sample, level), network(sample, level, beside=torch.ones(2, 8, 32)))


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"model": {"overlap": 17}, "diffusion": {"drop_ends": 0.5}}, "overlap = 17 must be at most half"),
        ({"model": {"overlap": 6}}, "drop_ends"),
    ],
)
def test_impossible_overlaps_are_refused(tiny, over, words):
    with pytest.raises(UserError, match=words):
        tiny(**over)
