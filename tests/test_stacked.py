"""Trainings of equal shape as one computation: each ends as it would have alone."""

from pathlib import Path

import pytest
import torch
from test_distributed import TOLERANCE, apart, losses

from groundwork.errors import UserError
from planner.data import load_data
from planner.norms import NORM_KINDS, packs_of
from planner.training.run import RunFolder
from planner.training.stacked import Stack, stacks
from planner.training.train import NotFiniteError, train, train_together
from planner.training.trainer import Trainer


@pytest.fixture
def three(tiny, hash_dataset):
    """Settings that may be trained as one."""
    return lambda **over: [
        tiny(seed=seed, learning_rate=rate, **over) for seed, rate in ((0, 1e-3), (1, 1e-3), (1, 3e-3))
    ]


def together(configs, folder):
    return train_together({folder / str(n): config for n, config in enumerate(configs)}, "cpu", progress=False, log=())


@pytest.mark.parametrize(
    "model",
    [
        *({"norm": norm, "num_packs": packs_of(norm)} for norm in NORM_KINDS),
        {"norm": "none", "weights": "standardized"},
        {"norm": "none", "weights": "magnitude_preserving"},
        {"norm": "dyt", "norm_conditioned": True},
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)
def test_losses_and_gradients_are_those_of_each_network_alone(three, model):
    configs = three(model=model)
    data = load_data(configs[0].data)
    stacked, alone = ([Trainer(config, data, torch.device("cpu")) for config in configs] for _ in range(2))
    for trainer in (*stacked, *alone):
        trainer.network.train()
    together_S = Stack([trainer.network for trainer in stacked]).backward(
        stacked[0].loss, [trainer.batch() for trainer in stacked]
    )
    for loss, trainer, single in zip(together_S, stacked, alone, strict=True):
        own = single.loss(single.network, single.batch())
        own.backward()
        assert loss.item() == pytest.approx(own.item(), rel=1e-5)
        for parameter, other in zip(trainer.network.parameters(), single.network.parameters(), strict=True):
            assert torch.allclose(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)
        for buffer, other in zip(trainer.network.buffers(), single.network.buffers(), strict=True):
            assert torch.allclose(buffer, other, rtol=1e-5)


@pytest.mark.parametrize("weights", ["plain", pytest.param("magnitude_preserving", marks=pytest.mark.slow)])
def test_runs_of_a_stack_have_the_rows_and_weights_of_single_runs(three, tmp_path, weights):
    configs = three(model={"weights": weights})
    runs = together(configs, tmp_path / "stack")
    for number, (run, config) in enumerate(zip(runs, configs, strict=True)):
        single = train(config, tmp_path / "single" / str(number), "cpu", progress=False, log=())
        assert run.done
        assert losses(run.path) == [[step, pytest.approx(loss, rel=1e-4)] for step, loss in losses(single.path)]
        assert apart(run.path, single.path) < TOLERANCE


def test_a_stack_that_was_interrupted_goes_on_with_the_same_bits_whatever_each_had_reached(
    three, tmp_path, monkeypatch
):
    configs, apply = three(), Trainer.apply_gradients

    def interrupted(self):
        if (self.step, self.config.seed) == (9, 1):
            raise KeyboardInterrupt
        return apply(self)

    train(configs[0], tmp_path / "runs" / "0", "cpu", progress=False, log=())
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "apply_gradients", interrupted)
        with pytest.raises(KeyboardInterrupt):
            together(configs, tmp_path / "runs")
    runs = together(configs, tmp_path / "runs")
    whole = together(configs[1:], tmp_path / "whole")
    assert all(run.done for run in runs)
    assert [losses(run.path) for run in runs[1:]] == [losses(run.path) for run in whole]
    assert [apart(run.path, other.path) for run, other in zip(runs[1:], whole, strict=True)] == [0, 0]


def test_a_loss_that_is_not_finite_ends_one_of_a_stack_and_is_told_after_the_others(tiny, hash_dataset, tmp_path):
    configs = [tiny(), tiny(seed=1, learning_rate=1e30), tiny(seed=2)]
    with pytest.raises(NotFiniteError, match="is not finite"):
        together(configs, tmp_path)
    assert [RunFolder(tmp_path / str(n)).done for n in range(3)] == [True, False, True]


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"compile": True}])
def test_what_cannot_be_one_training_is_refused(tiny, hash_dataset, tmp_path, change):
    first = tiny(compile=change.get("compile", False))
    with pytest.raises(UserError, match="stack = 2: trainings as one"):
        together([first, tiny(seed=1, **change)], tmp_path)
    assert not RunFolder(tmp_path / "0").checkpoints()


def test_runs_are_shared_out_to_stacks_of_equal_shape(tiny):
    norms = {norm: {"model": {"norm": norm}} for norm in ("group", "none")}
    runs = {Path(f"{norm}{seed}"): tiny(seed=seed, **norms[norm]) for seed in range(3) for norm in norms}
    found = [[str(path) for path in stack] for stack in stacks(runs, 2)]
    assert found == [["group0", "group1"], ["group2"], ["none0", "none1"], ["none2"]]
