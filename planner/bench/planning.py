"""How fast a planner plans, plans anew and is rolled out, beside a plain loop; networks are untrained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from planner.bench.baseline import PlainLoop
from planner.config import Config, ModelConfig
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout
from planner.sampling import Sampling
from planner.training.trainer import Trainer, make_network

BATCH = 64
REFERENCE_MODEL = ModelConfig(dim=32, dim_mults=(1, 4, 8), kernel_size=5, norm="group", norm_groups=8)
REFERENCE_HORIZON = 128
REFERENCE_LEVELS = 64
"""Of Janner et al. (2022) for umaze."""


def bench_planning(
    config: Config, trainer: Trainer, expressible: Config, warm_level: float, timed: Callable[..., float]
) -> Callable[[], dict[str, float]]:
    """Sets up the planners and returns a function that times each once.

    Args:
        config: the preset's settings; its default sampler and number of steps are timed.
        trainer: gives data and device.
        expressible: the settings as diffusers' U-Net can be.
        warm_level: of warm-started replanning.
        timed: seconds per call of a function, over several calls.

    Returns:
        A function without arguments: seconds of each part.
    """
    statistics, device = trainer.data.statistics, trainer.device
    dim = statistics.layout.transition_dim
    ours = trainer.planner()
    same = Planner(make_network(expressible, dim).to(device), expressible, statistics)
    start, goal = _problem(trainer)
    levels = config.diffusion.train_steps
    plain = PlainLoop(same.network.to_diffusers().to(device).eval(), levels, config.diffusion.prediction)
    reference_config = dataclasses.replace(config, model=REFERENCE_MODEL)
    reference_network = make_network(reference_config, dim).to_diffusers().to(device).eval()
    reference = PlainLoop(reference_network, REFERENCE_LEVELS, config.diffusion.prediction)
    values = {
        horizon: torch.zeros(1, dim, horizon, device=device) for horizon in (config.data.horizon, REFERENCE_HORIZON)
    }
    last, warm = ours.plan(start, goal), Sampling(replan_warm=warm_level)

    def once() -> dict[str, float]:
        found = {
            "plan_s": timed(lambda: ours.plan(start, goal)),
            f"plan_{BATCH}_s": timed(lambda: ours.plan(start, goal, num_plans=BATCH)),
            "plan_same_net_s": timed(lambda: same.plan(start, goal)),
            "plan_baseline_s": timed(lambda: _plain_plan(plain, trainer, values[config.data.horizon])),
            "plan_reference_s": timed(lambda: _plain_plan(reference, trainer, values[REFERENCE_HORIZON])),
        }
        if levels > 1:  # with one, there is no level to begin at
            found["replan_warm_s"] = timed(lambda: ours.plan(start, goal, last_plans=last, sampling=warm))
        return found

    return once


def _problem(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """Start and goal of a training window, in data units."""
    statistics = trainer.data.statistics
    window = trainer.data.training.gather(torch.zeros(1, dtype=torch.long, device=trainer.device))
    points = statistics.normalizer.denormalize(window[0].T.cpu()).numpy()
    return points[0, : statistics.layout.state_dim], points[-1, : statistics.layout.goal_dims]


def _plain_plan(plain: PlainLoop, trainer: Trainer, values: torch.Tensor) -> np.ndarray:
    known = trainer.data.statistics.layout.known(values.shape[-1], trainer.device)
    return plain.plan(known, values).cpu().numpy()


def planning_summary(rows: list[dict[str, float]], config: Config) -> dict[str, float]:
    """Rates and ratios: medians over the repeats, each ratio within one repeat."""

    def middle(name: str) -> float:
        return float(np.median([row[name] for row in rows]))

    def ratio(of: str, to: str) -> float:
        return float(np.median([row[of] / row[to] for row in rows]))

    fewer = config.diffusion.train_steps / config.diffusion.sampling_steps
    return {
        "plans_per_second_batch_1": 1 / middle("plan_s"),
        f"plans_per_second_batch_{BATCH}": BATCH / middle(f"plan_{BATCH}_s"),
        "replans_per_second_cold": 1 / middle("plan_s"),
        **({"replans_per_second_warm": 1 / middle("replan_warm_s")} if "replan_warm_s" in rows[0] else {}),
        "baseline_plans_per_second": 1 / middle("plan_baseline_s"),
        "speedup_same_net": ratio("plan_baseline_s", "plan_same_net_s"),
        "speedup_same_net_over_fewer_steps": ratio("plan_baseline_s", "plan_same_net_s") / fewer,
        "reference_plans_per_second": 1 / middle("plan_reference_s"),
        "speedup_reference_net": ratio("plan_reference_s", "plan_s"),
    }


def bench_rollout(planner: Planner, episodes: int) -> dict[str, float]:
    """Episodes planned in one batch and rolled out side by side, against one after the other.

    Args:
        planner: in a maze.
        episodes: how many; starts and goals are drawn.

    Returns:
        Seconds of both ways and environment steps per second side by side.
    """
    tasks = choose_tasks(planner.statistics.maze_for("a rollout"), ["multi_task"])
    rollout(planner, tasks, RolloutSettings(episodes=1))
    began = time.perf_counter()
    together = rollout(planner, tasks, RolloutSettings(episodes=episodes))
    side_by_side_s = time.perf_counter() - began
    began = time.perf_counter()
    for seed in range(episodes):
        rollout(planner, tasks, RolloutSettings(episodes=1, seed=seed))
    one_by_one_s = time.perf_counter() - began
    steps = together.positions.shape[0] * (together.positions.shape[1] - 1)
    return {
        "rollout_episodes": episodes,
        "rollout_side_by_side_s": side_by_side_s,
        "rollout_one_by_one_s": one_by_one_s,
        "rollout_steps_per_second": steps / side_by_side_s,
        "rollout_side_by_side_ratio": one_by_one_s / side_by_side_s,
    }
