import json
from typing import get_args

import pytest
import torch

from planner.bench.baseline import PlainLoop
from planner.bench.limits import ByteCounter, step_bytes
from planner.bench.planning import REFERENCE_MODEL
from planner.bench.rates import MEANINGS, bench, bench_table
from planner.config import to_yaml
from planner.data import load_data
from planner.diffusion import make_schedule
from planner.sampler import Conditions, sample
from planner.settings import Part
from planner.training.run import RunFolder
from planner.training.trainer import Trainer, make_network


@pytest.fixture(scope="module")
def tiny_bench(hash_dataset):
    from conftest import TINY

    from planner.config import from_dict

    return bench(
        from_dict(TINY | {"diffusion": {"train_steps": 8, "sampling_steps": 2}}),
        "cpu",
        parts=get_args(Part),
        repeats=2,
        steps=2,
        episodes=2,
        norms=("group", "packnorm_isolated"),
    )


def test_every_figure_has_a_meaning_and_is_positive(tiny_bench):
    summary = tiny_bench["summary"]
    assert {name.partition(":")[0] for name in summary} == set(MEANINGS)
    for name, value in summary.items():
        if name not in ("outside_share", "device"):
            assert value > 0, name
    table = bench_table(summary)
    assert all(f"| {name} |" in table for name in summary)


def test_ratios_are_those_of_the_seconds_beside_them(tiny_bench):
    rows, summary = tiny_bench["rows"], tiny_bench["summary"]
    speedups = [row["plan_baseline_s"] / row["plan_same_net_s"] for row in rows]
    assert summary["speedup_same_net"] == pytest.approx(sum(speedups) / 2)
    assert summary["speedup_same_net_over_fewer_steps"] == pytest.approx(summary["speedup_same_net"] / 4)
    steps = [row["step_baseline_s"] / row["step_same_net_s"] for row in rows]
    assert summary["step_ratio"] == pytest.approx(sum(steps) / 2)
    stacked = [row["step_stacked_s"] / 8 / row["step_s"] for row in rows]
    assert summary["stacked_ratio"] == pytest.approx(sum(stacked) / 2)
    shares = [summary["step_gflop"] * 1e9 / row["step_s"] / row["matmul_per_second"] for row in rows]
    assert summary["matmul_share"] == pytest.approx(sum(shares) / 2)
    shares = [summary["step_gbyte"] * 1e9 / row["step_s"] / row["copied_per_second"] for row in rows]
    assert summary["copy_share"] == pytest.approx(sum(shares) / 2)
    ratios = [row["norm_step_s:packnorm_isolated"] / row["norm_step_s:group"] for row in rows]
    assert summary["norm_step_ratio:packnorm_isolated"] == pytest.approx(sum(ratios) / 2)
    assert summary["norm_step_ratio:group"] == 1
    assert "| a training step with packnorm_isolated over one with the first of the norms |" in bench_table(summary)
    episodes = summary["rollout_one_by_one_s"] / summary["rollout_side_by_side_s"]
    assert summary["rollout_side_by_side_ratio"] == pytest.approx(episodes)


def test_planners_of_one_noise_level_are_timed_without_the_warm_start_that_they_do_not_have(tiny, hash_dataset):
    once = tiny(diffusion={"train_steps": 1, "sampling_steps": 1, "temperature": 0.0})
    summary = bench(once, "cpu", parts=("planning",), repeats=1)["summary"]
    assert summary["plans_per_second_batch_1"] > 0
    assert "replans_per_second_warm" not in summary


def test_the_flop_of_a_step_are_those_of_a_hand_count(tiny, hash_dataset):
    """A step of one convolution: forward 2·B·T·k·C_in·C_out, and the same for the gradient of its weights."""
    from planner.bench.limits import step_flop

    config = tiny(model={"dim": 8, "dim_mults": [1]})
    trainer = Trainer(config, load_data(config.data, "cpu"), torch.device("cpu"))
    batch, points = config.batch_size, config.data.horizon
    whole = step_flop(trainer)
    first = next(layer for layer in trainer.network.modules() if isinstance(layer, torch.nn.Conv1d))
    products = 2 * batch * points * first.weight.numel()
    assert 2 * products < whole
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    # each weight of a convolution is used at every point: once forward and twice backward
    assert whole < 3 * 2 * batch * points * parameters


def test_the_plain_loop_is_the_same_algorithm(tiny, hash_dataset):
    """Same weights and noise: its plans are ours with full DDPM; and its training lowers the loss."""
    config = tiny(model={"kernel_size": 5, "norm_groups": 8})
    network = make_network(config, 4).eval()
    plain = PlainLoop(network.to_diffusers().eval(), 8, "sample", learning_rate=3e-3)
    known = torch.zeros(4, 32, dtype=torch.bool)
    known[:, 0] = True
    values = torch.rand(3, 4, 32) * 2 - 1
    torch.manual_seed(0)
    theirs = plain.plan(known, values)
    generator = torch.Generator().manual_seed(0)
    ours = sample(
        network, make_schedule(8, "sample"), Conditions(known, values), num_steps=8, generator=generator
    ).detach()
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    windows = load_data(config.data).training
    probe = windows.gather(torch.arange(64))
    before, after = [], []
    for losses in (before, after):
        with torch.no_grad():
            torch.manual_seed(1)
            levels = torch.full((64,), 4)
            noisy = plain.schedule.add_noise(probe, torch.randn_like(probe), levels)
            losses.append((plain.network(noisy, levels).sample - probe).square().mean().item())
        for _ in range(40 if losses is before else 0):
            plain.train_step(windows, 16, known)
    assert after[0] < 0.7 * before[0]


def test_the_reference_network_has_the_size_of_the_reference(tiny):
    import dataclasses

    network = make_network(dataclasses.replace(tiny(), model=REFERENCE_MODEL), 6)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(3.68e6, rel=0.02)


def test_the_command_prints_a_table_and_refuses_unknown_parts(command, refused, tiny, hash_dataset, tmp_path):
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny()))
    small = ["--parts", "planning", "--repeats", 1, "--json", tmp_path / "bench.json"]
    done = command("planner.main", "bench", tmp_path / "tiny.yaml", *small)
    assert done.returncode == 0, done.stderr
    assert "| plans_per_second_batch_64 |" in done.stdout
    result = json.loads((tmp_path / "bench.json").read_text())
    assert "steps_per_second" not in result["summary"]
    assert len(result["rows"]) == 1
    assert "not one of training" in refused("planner.main", "bench", tmp_path / "tiny.yaml", "--parts", "planing")


def test_bytes_are_those_that_operations_read_and_write():
    one, other = torch.ones(10, 100), torch.ones(10, 100)

    def moved(work):
        with ByteCounter() as counter:
            work()
        return counter.count

    assert moved(lambda: one + other) == 3 * 4000
    assert moved(lambda: one.add_(other)) == 3 * 4000
    assert moved(lambda: one.T[:, :5].view(100, 5)) == 0
    assert moved(lambda: torch.cat([one, other])) == 4 * 4000
    assert moved(lambda: one @ other.T) == 2 * 4000 + 400


def test_the_optimizer_counts_among_the_bytes_of_a_step(tiny_run):
    folder = RunFolder(tiny_run)
    trainer = Trainer(folder.config(), load_data(folder.config().data), torch.device("cpu"))
    parameters = 4 * sum(each.numel() for each in trainer.network.parameters())
    # At the least each parameter, its gradient, both moments and the average are read, and four of them written.
    assert step_bytes(trainer) > 9 * parameters
    assert trainer.step == 1
