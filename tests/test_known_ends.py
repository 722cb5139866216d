import numpy as np
import pytest
import torch

from groundwork.errors import UserError
from norm_study.audit.command import planner_inputs
from norm_study.audit.leakage import audit
from planner.data import load_data
from planner.diffusion import training_loss
from planner.plan import Planner
from planner.training.stacked import Stack
from planner.training.train import train
from planner.training.trainer import Trainer, make_network

TOLD = {"model": {"tell_known": True}, "diffusion": {"drop_ends": 0.5}}


@pytest.fixture(scope="module")
def data(hash_dataset):
    from conftest import TINY

    from planner.config import from_dict

    return load_data(from_dict(TINY).data)


def trainer(config, data):
    return Trainer(config, data, torch.device("cpu"))


def test_each_end_is_unknown_with_its_probability_by_itself_and_nothing_else_is_known(tiny, data):
    drawn = trainer(tiny(**TOLD, batch_size=4000), data).batch()
    known = drawn[3]
    everything = data.statistics.layout.known(32)
    assert not (known & ~everything).any()
    start, goal = known[:, :, 0], known[:, :, -1]
    assert (start.all(1) | ~start.any(1)).all(), "an end is known whole or not at all"
    both = (start.any(1) & goal.any(1)).float().mean()
    assert start.any(1).float().mean() == pytest.approx(0.5, abs=0.03)
    assert goal.any(1).float().mean() == pytest.approx(0.5, abs=0.03)
    assert both == pytest.approx(0.25, abs=0.03)


def test_dropping_ends_leaves_windows_levels_and_noise_as_they_were(tiny, data):
    usual, dropped = trainer(tiny(), data).batch(), trainer(tiny(**TOLD), data).batch()
    assert len(usual) == 3
    for one, other in zip(usual, dropped, strict=False):
        assert torch.equal(one, other)


def test_an_unknown_end_is_noised_and_costs_and_a_known_one_does_neither(tiny, data):
    training = trainer(tiny(**TOLD), data)
    seen = []

    def network(noisy, levels, known):
        seen.append((noisy, known))
        return torch.full_like(noisy, 7.0)

    clean, levels, noise, known = training.batch()
    levels = torch.full_like(levels, 7)
    loss = training.loss(network, (clean, levels, noise, known))
    noisy, told = seen[0]
    assert torch.equal(told, known)
    assert torch.equal(noisy[known], clean[known])
    assert (noisy[~known] != clean[~known]).float().mean() > 0.99
    assert loss == pytest.approx((~known * (7.0 - clean)).square().mean().item(), rel=1e-5)


def test_a_network_that_is_told_tells_known_from_unknown_and_another_does_not(tiny):
    sample, level = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 3])
    ends = torch.zeros(4, 32, dtype=torch.bool)
    ends[:, 0] = True
    told, untold = make_network(tiny(**TOLD), 4), make_network(tiny(), 4)
    assert not torch.allclose(told(sample, level, ends), told(sample, level))
    assert torch.equal(told(sample, level, torch.zeros_like(ends)), told(sample, level))
    assert torch.equal(untold(sample, level, ends), untold(sample, level))
    each = ends.repeat(2, 1, 1)
    each[1] = False
    mixed = told(sample, level, each)
    assert torch.allclose(mixed[0], told(sample, level, ends)[0], atol=1e-6)
    assert torch.allclose(mixed[1], told(sample, level)[1], atol=1e-6)


def test_networks_trained_as_one_are_told_each_of_its_own_and_weigh_their_own_levels(tiny, data):
    more = {"fourier_features": 2, "overlap": 6}
    settings = {"model": TOLD["model"] | more, "diffusion": TOLD["diffusion"] | {"snr_cap": 5.0}}
    configs = [tiny(**settings, seed=seed) for seed in (0, 1)]
    together, alone = ([trainer(config, data) for config in configs] for _ in range(2))
    stack = Stack([one.network for one in together])
    losses = stack.backward(together[0].loss, [one.batch() for one in together])
    for loss, own in zip(losses, alone, strict=True):
        assert loss.item() == pytest.approx(own.loss(own.network, own.batch()).item(), rel=1e-4)


def test_such_a_planner_trains_and_plans_between_its_ends(tiny, hash_dataset, tmp_path):
    config = tiny(**TOLD)
    train(config, tmp_path / "run", "cpu", progress=False)
    planner = Planner.from_run(tmp_path / "run", device="cpu")
    assert planner.network.config.tell_known
    start, goal = np.float32([-3.5, 2.0, 0, 0]), np.float32([3.5, 2.0])
    plans = planner.plan(start, goal, num_plans=2)
    assert (plans[:, 0] == start).all()
    assert (plans[:, -1, :2] == goal).all()
    network, seen = planner.network, []
    planner.network = lambda sample, level, known: seen.append(known) or network(sample, level, known)
    assert np.array_equal(planner.plan(start, goal, num_plans=2), plans)
    assert torch.equal(seen[0], planner.statistics.layout.known(32))


def test_an_audit_tells_it_of_both_ends(tiny, hash_dataset, tmp_path):
    train(tiny(**TOLD), tmp_path / "run", "cpu", progress=False)
    network, inputs = planner_inputs(tmp_path / "run", length=96)
    expected = torch.zeros(4, 96, dtype=torch.bool)
    expected[:, 0] = expected[:2, -1] = True
    for noisy, level in inputs:
        assert (network(noisy, level) == network.network(noisy, level, expected)).all()
        assert (network(noisy, level) != network.network(noisy, level)).any()
    report = audit(network, inputs, dtype=torch.float64, attribution=False)
    assert report.receptive_field == network.network.receptive_field()
    assert report.leakage.value > 0  # the norm is GroupNorm
    assert report.notes == []
    with pytest.raises(UserError, match="UNet1DModel cannot express"):
        network.to_diffusers()


def test_diffusers_network_cannot_be_told(tiny):
    with pytest.raises(UserError, match="tell_known"):
        make_network(tiny(model={"kernel_size": 5, "dim": 8, "norm_groups": 8, "tell_known": True}), 4).to_diffusers()


def test_a_training_weighs_its_levels_as_its_setting_says(tiny, data):
    weighted, plain = trainer(tiny(diffusion={"snr_cap": 5.0}), data), trainer(tiny(), data)
    batch = plain.batch()
    clean, levels, noise = batch
    expected = training_loss(plain.network, plain.schedule, clean, plain.known_DT, levels, noise, 5.0)
    assert weighted.loss(plain.network, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain.loss(plain.network, batch).item() != pytest.approx(expected.item(), rel=1e-2)
