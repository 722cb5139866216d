"""Planners of one noise level, and plans of a teacher in place of demonstrations."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from groundwork.errors import UserError
from planner.config import TAUGHT_WINDOWS
from planner.data import load_data
from planner.diffusion import make_schedule, training_loss
from planner.plan import Planner
from planner.sampling import Sampling
from planner.training.distributed import ALONE
from planner.training.run import RunFolder
from planner.training.stacked import check_stack
from planner.training.teacher import taught, teacher_checksum
from planner.training.train import train

START, GOAL = [-4.0, 2.0], [2.0, 4.0]
ONCE = {"train_steps": 1, "sampling_steps": 1, "temperature": 0.0}


@pytest.fixture(scope="module")
def once(hash_dataset, tiny_run, tmp_path_factory):
    """A finished run of one noise level with the tiny run as its teacher."""
    from conftest import TINY

    from planner.config import from_dict, merge

    config = from_dict(merge(TINY, {"diffusion": ONCE | {"teacher": str(tiny_run)}}))
    return train(config, tmp_path_factory.mktemp("runs") / "once", "cpu", progress=False).path


@pytest.mark.parametrize(
    "over",
    [{"temperature": 1.0}, {"resample": 2}, {"prediction": "noise"}, {"snr_cap": 5.0}, {"drop_ends": 0.5}],
)
def test_one_noise_level_goes_with_neither_noise_nor_steps_again_nor_unknown_ends(tiny, over):
    [(name, value)] = over.items()
    with pytest.raises(UserError, match=f"{name} = {value} must be .* with diffusion.train_steps = 1"):
        tiny(diffusion=ONCE | over)


def test_all_that_one_noise_level_needs_is_said_at_once(tiny):
    with pytest.raises(UserError, match="sampling_steps = 8, temperature = 1.0 must be 1, 0.0 with"):
        tiny(diffusion={"train_steps": 1})


def test_on_one_noise_level_the_input_is_what_is_known_and_zeros():
    clean, seen = torch.rand(2, 3, 8), []
    known = torch.zeros(3, 8, dtype=torch.bool)
    known[:, 0] = True

    def network(noisy, levels):
        seen.append(noisy)
        return torch.zeros_like(noisy)

    losses = [
        training_loss(network, make_schedule(1, "sample"), clean, known, torch.zeros(2, dtype=torch.long), noise)
        for noise in (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    ]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], torch.where(known, clean, 0.0))
    assert losses[0] == losses[1] == pytest.approx(float(clean[..., 1:].square().sum() / clean.numel()))


def test_a_plan_of_one_noise_level_is_one_evaluation_and_a_function_of_its_ends(once):
    planner, calls = Planner.from_run(once, device="cpu"), []
    network = planner.network
    planner.network = lambda sample, level: calls.append(level.tolist()) or network(sample, level)
    plans = planner.plan(START, GOAL, num_plans=2, seed=3)
    assert calls == [[0, 0]]
    np.testing.assert_allclose(plans[0], planner.plan(START, GOAL, seed=4)[0], atol=1e-5)
    np.testing.assert_array_equal(plans[0, 0], [*START, 0.0, 0.0])
    np.testing.assert_array_equal(plans[0, -1, :2], GOAL)
    for sampler in ("ddim", "dpm", "sde"):
        np.testing.assert_allclose(
            planner.plan(START, GOAL, sampling=Sampling(sampler=sampler))[0], plans[0], atol=1e-5
        )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"temperature": 0.5}, "temperature = 0.5 must be 0"),
        ({"resample": 2}, "resample = 2 must be 0"),
        ({"sampling_steps": 2}, "sampling_steps = 2 must be 1 with diffusion.train_steps = 1"),
        ({"replan_warm": 0.5}, "replan_warm = 0.5 must be 0"),
        ({"best_of": 2, "choose": "denoising"}, "choose = denoising needs a run of several noise levels"),
    ],
)
def test_what_one_noise_level_cannot_do_is_refused(once, asked, words):
    planner = Planner.from_run(once, device="cpu")
    last = planner.plan(START, GOAL)
    with pytest.raises(UserError, match=words):
        planner.plan(START, GOAL, sampling=Sampling(**asked), last_plans=last)


def test_a_guide_pushes_plans_of_one_evaluation_too(once):
    planner = Planner.from_run(once, device="cpu")
    free = planner.plan(START, GOAL)[0]
    x, y = free[16, :2].tolist()
    avoiding = planner.plan(START, GOAL, sampling=Sampling(avoid=(x, y, 0.5)))[0]
    distances = [np.linalg.norm(plan[:, :2] - [x, y], axis=1).min() for plan in (free, avoiding)]
    assert distances[0] < 1e-6 < distances[1]


def test_taught_windows_are_the_teachers_plans_between_the_windows_ends(tiny, tiny_run, hash_dataset):
    config = tiny(diffusion={"teacher": str(tiny_run)})
    data = load_data(config.data)
    plans = taught(data, config)
    count = min(TAUGHT_WINDOWS, len(data.training))
    assert (len(plans.training), len(plans.validation)) == (count, min(512, len(data.validation)))
    # the ends are those of windows, the inside is what the teacher plans for them
    learned = plans.training.gather(torch.arange(5))
    ends = torch.cat([learned[..., 0], learned[:, :2, -1]], 1)
    windows = data.training.gather(torch.arange(len(data.training)))
    theirs = torch.cat([windows[..., 0], windows[:, :2, -1]], 1)
    assert (ends[:, None] - theirs).abs().amax(2).amin(1).max() < 1e-5
    teacher = Planner.from_run(tiny_run, device="cpu")
    values = data.statistics.normalizer.denormalize(learned.transpose(1, 2)).numpy()
    sampling = Sampling(sampler="dpm", sampling_steps=8, temperature=0.0)
    again = teacher.plan(values[:, 0], values[:, -1, :2], sampling=sampling)[:, 0]
    np.testing.assert_allclose(values[:, 1:-1], again[:, 1:-1], atol=1e-3)
    # equal for every seed, and nothing without a teacher
    other = taught(data, replace(config, seed=7))
    assert torch.equal(other.training.series_ND, plans.training.series_ND)
    assert taught(data, tiny()) is data
    check_stack([config, replace(config, seed=7)], ALONE)


def test_a_teacher_of_another_world_is_refused(tiny, tiny_run, hash_dataset):
    data = load_data(tiny().data)
    elsewhere = replace(data, statistics=replace(data.statistics, environment="Elsewhere-v0"))
    own = tiny(diffusion={"teacher": str(tiny_run)})
    with pytest.raises(UserError, match=r"diffusion.teacher = .*: it plans 4 values of .*; the data have 4 of Else"):
        taught(elsewhere, own)
    with pytest.raises(UserError, match=r"diffusion.teacher = .*: its points are 4 steps apart.*stride = 2 would"):
        taught(data, replace(own, data=replace(own.data, stride=2)))
    with pytest.raises(UserError, match=r"diffusion.teacher = .*: horizon = 33 cannot be halved"):
        taught(load_data(replace(own.data, horizon=33)), own)
    with pytest.raises(UserError, match="diffusion.teacher = nowhere: "):
        taught(data, tiny(diffusion={"teacher": "nowhere"}))


def test_a_run_knows_its_teachers_weights_and_goes_on_with_no_others(tiny, tiny_run, tmp_path):
    teacher = RunFolder(shutil.copytree(tiny_run, tmp_path / "teacher"))
    config = tiny(diffusion=ONCE | {"teacher": str(teacher.path)}, steps=5)
    run = train(config, tmp_path / "run", "cpu", progress=False)
    assert run.provenance()["teacher"] == teacher_checksum(config)
    (run.path / "DONE").unlink()
    weights = teacher.checkpoint() / "ema" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes((teacher.checkpoint() / "model" / weights.name).read_bytes())
    with pytest.raises(UserError, match="began with other weights of diffusion.teacher"):
        train(config, run.path, "cpu", progress=False)
    (teacher.path / "DONE").unlink()
    with pytest.raises(UserError, match="its training is not finished"):
        train(config, tmp_path / "other", "cpu", progress=False)
    run.mark_done()
    shutil.rmtree(teacher.path)
    assert train(config, run.path, "cpu", progress=False).done  # what is finished needs no teacher


def test_a_run_with_a_teacher_goes_on_with_the_same_bits(tiny, once, tmp_path, monkeypatch):
    from planner.training import train as training

    config, save = RunFolder(once).config(), training._Training.keep

    def stopped(self, *given):
        save(self, *given)
        if self.trainer.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Training, "keep", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "again", "cpu", progress=False)
    monkeypatch.undo()
    again = train(config, tmp_path / "again", "cpu", progress=False)
    for name, value in RunFolder(once).load_network("model").state_dict().items():
        assert torch.equal(value, again.load_network("model").state_dict()[name]), name
