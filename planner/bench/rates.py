"""How long training, planning and rolling out take, as ratios within one run (machines are noisy).

The baseline is a plain loop of diffusers' U-Net and scheduler in the same run; what bounds a training step is in
:mod:`planner.bench.limits`.
"""

from __future__ import annotations

import dataclasses
import math
import resource
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from planner.bench.baseline import PlainLoop
from planner.bench.limits import copy_rate, matmul_rate, seconds, step_bytes, step_flop
from planner.bench.norms import bench_norms, norms_summary
from planner.bench.planning import bench_planning, bench_rollout, planning_summary
from planner.config import Config, to_dict
from planner.data import load_data
from planner.device import pick_device
from planner.norms import NormKind
from planner.settings import Part
from planner.training.stacked import Stack, update_together
from planner.training.trainer import Trainer, seed_of
from planner.unet_convert import EXPRESSIBLE

CALLS_PER_PLAN_TIMING = 3


def bench(
    config: Config,
    device_name: str = "auto",
    *,
    parts: Sequence[Part] = ("training", "planning", "rollout"),
    repeats: int = 5,
    steps: int = 50,
    warm_level: float = 0.25,
    episodes: int = 100,
    stack: int = 8,
    norms: Sequence[NormKind] = ("group",),
) -> dict[str, Any]:
    """Times the parts on the preset's data with untrained networks.

    The docs' glossary says what each figure means. diffusers' U-Net knows only GroupNorm of 8 groups and kernel 5, so
    that comparisons of equal networks are made with these.

    Args:
        config: a training's settings; its dataset must exist. Plans use its sampler and number of steps.
        device_name: ``auto``, ``cpu`` or ``cuda``.
        parts: what to time.
        repeats: each figure is the median of so many, their parts timed in turn.
        steps: training steps per timing.
        warm_level: of warm-started replanning.
        episodes: rolled out side by side, and one after the other.
        stack: how many networks are trained as one.
        norms: whose training steps are timed in turn, each as a ratio to the first one's.

    Returns:
        ``{"config", "rows", "summary"}``: seconds of every repeat, medians of rates and ratios.

    Raises:
        UserError: bad data or settings.
    """
    device = pick_device(device_name)
    trainer = Trainer(config, load_data(config.data, device), device)
    expressible = _expressible(config)
    rows: list[dict[str, float]] = [{} for _ in range(repeats)]
    summary: dict[str, Any] = {"threads": torch.get_num_threads(), "device": str(device)}
    if "training" in parts:
        _repeat(rows, _training(trainer, Trainer(expressible, trainer.data, device), steps, stack))
        summary |= _training_summary(rows, trainer, stack)
    if "norms" in parts:
        _repeat(rows, bench_norms(trainer, norms, steps))
        summary |= norms_summary(rows, norms)
    if "planning" in parts:

        def timed(work: Callable[[], object]) -> float:
            return seconds(work, CALLS_PER_PLAN_TIMING, device)

        once = bench_planning(config, trainer, expressible, warm_level, timed)
        once()
        _repeat(rows, once)
        summary |= planning_summary(rows, config)
    if "rollout" in parts and trainer.data.statistics.maze is not None:
        summary |= bench_rollout(trainer.planner(), episodes)
    summary["peak_memory_mb"] = _peak_memory_mb(device)
    if "training" in parts:  # behind the memory, to whose peak the copies would add
        summary |= _copy_summary(rows, trainer)
    return {"config": to_dict(config), "rows": rows, "summary": summary}


def _repeat(rows: Sequence[dict[str, float]], once: Callable[[], dict[str, float]]) -> None:
    """Times once more for each row."""
    for row in rows:
        row |= once()


def _training(trainer: Trainer, same: Trainer, steps: int, size: int) -> Callable[[], dict[str, float]]:
    """A function that times each part of a training step once."""
    config, device = trainer.config, trainer.device
    clean, levels, noise = trainer.draw(trainer.data.training, config.batch_size, seed_of(config.seed, 0))
    noisy = torch.where(trainer.known_DT, clean, trainer.schedule.add_noise(clean, noise, levels))
    theirs = same.network.to_diffusers().to(device)
    plain = PlainLoop(
        theirs,
        config.diffusion.train_steps,
        config.diffusion.prediction,
        config.learning_rate,
        config.gradient_clip or math.inf,
    )

    many = [Trainer(dataclasses.replace(config, seed=seed), trainer.data, device) for seed in range(size)]
    stack = Stack([one.network for one in many])

    def arithmetic() -> None:
        _forward_backward(trainer.forward, noisy, levels)
        trainer.apply_gradients()

    def plain_step() -> None:
        plain.train_step(trainer.data.training, config.batch_size, trainer.known_DT)

    work: dict[str, Callable[[], object]] = {
        "step_s": trainer.update,
        "arithmetic_s": arithmetic,
        "step_stacked_s": lambda: update_together(many, stack),
        "step_same_net_s": same.update,
        "step_baseline_s": plain_step,
        "ours_s": lambda: _forward_backward(same.network, noisy, levels),
        "unet1d_s": lambda: _forward_backward(theirs, noisy, levels),
    }
    for call in work.values():
        seconds(call, max(3, steps // 10), device)

    def once() -> dict[str, float]:
        return {name: seconds(call, steps, device) for name, call in work.items()} | {
            "matmul_per_second": matmul_rate(device, config.precision)
        }

    return once


def _training_summary(rows: list[dict[str, float]], trainer: Trainer, stack: int) -> dict[str, float]:
    def middle(of: Callable[[dict[str, float]], float]) -> float:
        return float(np.median([of(row) for row in rows]))

    flop = step_flop(trainer)
    return {
        "steps_per_second": middle(lambda row: 1 / row["step_s"]),
        "outside_share": middle(lambda row: 1 - row["arithmetic_s"] / row["step_s"]),
        "stacked_ratio": middle(lambda row: row["step_stacked_s"] / stack / row["step_s"]),
        "unet1d_ratio": middle(lambda row: row["ours_s"] / row["unet1d_s"]),
        "baseline_steps_per_second": middle(lambda row: 1 / row["step_baseline_s"]),
        "step_ratio": middle(lambda row: row["step_baseline_s"] / row["step_same_net_s"]),
        "step_gflop": flop / 1e9,
        "matmul_gflop_per_second": middle(lambda row: row["matmul_per_second"]) / 1e9,
        "matmul_share": middle(lambda row: flop / row["step_s"] / row["matmul_per_second"]),
    }


def _copy_summary(rows: list[dict[str, float]], trainer: Trainer) -> dict[str, float]:
    """What a step moves, beside what a copy of this machine's memory moves; adds the copy's rate to the rows."""
    moved = step_bytes(trainer)
    for row in rows:
        row["copied_per_second"] = copy_rate(trainer.device)
    return {
        "step_gbyte": moved / 1e9,
        "copy_gbyte_per_second": float(np.median([row["copied_per_second"] for row in rows])) / 1e9,
        "copy_share": float(np.median([moved / row["step_s"] / row["copied_per_second"] for row in rows])),
    }


def _peak_memory_mb(device: torch.device) -> float:
    """Of this process, baseline included; on a GPU, of its tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _expressible(config: Config) -> Config:
    """The settings with a network that diffusers' U-Net can express."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **EXPRESSIBLE))


def _forward_backward(network: nn.Module, noisy: Tensor, levels: Tensor) -> None:
    output = network(noisy, levels)
    prediction: Tensor = output if isinstance(output, Tensor) else output.sample
    prediction.square().mean().backward()


MEANINGS = {
    "steps_per_second": "training steps per second",
    "outside_share": "share of a step outside forward, backward and optimizer",
    "stacked_ratio": "step of one of many networks trained as one, over a step alone (below 1: faster)",
    "unet1d_ratio": "forward + backward, ours over diffusers' U-Net of equal size (below 1: faster)",
    "baseline_steps_per_second": "training steps per second of the plain loop (GroupNorm, kernel 5)",
    "step_ratio": "plain loop's step over ours, equal networks (above 1: faster)",
    "step_gflop": "GFLOP of a training step",
    "matmul_gflop_per_second": "GFLOP per second of a large matrix product here",
    "matmul_share": "share of that rate that a training step reaches",
    "step_gbyte": "GB that the operations of a training step read and write, were none of them fused",
    "copy_gbyte_per_second": "GB per second that a large copy reads and writes here",
    "copy_share": "share of that rate that a training step reaches; above 1 its data stay in caches",
    "norm_step_ms": "milliseconds of a training step with {}",
    "norm_step_ratio": "a training step with {} over one with the first of the norms",
    "plans_per_second_batch_1": "plans per second, one at a time",
    "plans_per_second_batch_64": "plans per second, 64 at a time",
    "replans_per_second_cold": "replanning rate from pure noise",
    "replans_per_second_warm": "replanning rate from the last plan",
    "baseline_plans_per_second": "plans per second of the plain loop at all noise levels (GroupNorm, kernel 5)",
    "speedup_same_net": "speed-up over it of equal networks at our number of steps",
    "speedup_same_net_over_fewer_steps": "the same over (noise levels / our steps)",
    "reference_plans_per_second": "plans per second of the plain loop with the reference's network, 64 steps",
    "speedup_reference_net": "speed-up of our plans over it",
    "rollout_episodes": "episodes rolled out",
    "rollout_side_by_side_s": "seconds to plan and roll them out side by side",
    "rollout_one_by_one_s": "seconds one after the other",
    "rollout_steps_per_second": "environment steps per second side by side, planning included",
    "rollout_side_by_side_ratio": "speed-up of side by side",
    "peak_memory_mb": "peak memory in MB, baseline included",
    "threads": "threads",
    "device": "device",
}


def bench_table(summary: dict[str, Any]) -> str:
    """The summary as a Markdown table."""
    lines = ["| figure | value | meaning |", "|---|---|---|"]
    for name, value in summary.items():
        text = value if isinstance(value, str) else f"{value:.4g}"
        what, _, norm = name.partition(":")
        lines.append(f"| {name} | {text} | {MEANINGS[what].format(norm)} |")
    return "\n".join(lines)
