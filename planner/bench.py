"""How long the parts of a training step take, as ratios within one run (machines are noisy)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from planner.config import Config, to_dict
from planner.data import load_data
from planner.plan import pick_device
from planner.train import Trainer, make_network, seed_of


def _seconds(work: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds per call of ``work``, over ``steps`` calls."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def bench_training(config: Config, device_name: str = "auto", repeats: int = 5, steps: int = 50) -> dict[str, Any]:
    """Times a whole training step against its arithmetic, and our U-Net against diffusers'.

    ``outside_share`` is the share of a step outside forward, backward and optimizer (clipping and moving average
    counted with the optimizer): drawing windows, levels and noise, noising, writing the conditions.
    ``unet1d_ratio`` is our forward plus backward over that of ``diffusers.UNet1DModel`` with the same widths,
    kernel 5 and GroupNorm, which are all that it can be.

    Args:
        config: a training's settings; its dataset must exist.
        device_name: ``auto``, ``cpu`` or ``cuda``.
        repeats: each ratio is the median of so many, their parts timed in turn.
        steps: calls per timing.

    Returns:
        ``{"config", "rows", "summary"}``: seconds of every repeat, medians of the ratios.

    Raises:
        UserError: bad data or settings.
    """
    device = pick_device(device_name)
    trainer = Trainer(config, load_data(config.data, device), device)
    clean, levels, noise = trainer.draw(trainer.data.training, config.batch_size, seed_of(config.seed, 0))
    noisy = torch.where(trainer.known_DT, clean, trainer.schedule.add_noise(clean, noise, levels))
    ours = _expressible(config, trainer, device)
    theirs = ours.to_diffusers().to(device)

    def arithmetic() -> None:
        _forward_backward(trainer.forward, noisy, levels)
        trainer.apply_gradients()

    rows = []
    for work in (trainer.update, arithmetic):
        _seconds(work, max(3, steps // 10), device)
    for _ in range(repeats):
        rows.append(
            {
                "step_s": _seconds(trainer.update, steps, device),
                "arithmetic_s": _seconds(arithmetic, steps, device),
                "ours_s": _seconds(lambda: _forward_backward(ours, noisy, levels), steps, device),
                "unet1d_s": _seconds(lambda: _forward_backward(theirs, noisy, levels), steps, device),
            }
        )
    outside = [1 - row["arithmetic_s"] / row["step_s"] for row in rows]
    ratio = [row["ours_s"] / row["unet1d_s"] for row in rows]
    summary = {
        "steps_per_second": 1 / float(np.median([row["step_s"] for row in rows])),
        "outside_share": float(np.median(outside)),
        "unet1d_ratio": float(np.median(ratio)),
        "threads": torch.get_num_threads(),
    }
    return {"config": to_dict(config), "rows": rows, "summary": summary}


def _expressible(config: Config, trainer: Trainer, device: torch.device) -> Any:
    """Our network with what diffusers' can express."""
    model = dataclasses.replace(
        config.model,
        kernel_size=5,
        norm="group",
        norm_groups=8,
        norm_placement="pre",
        num_packs=1,
        padding_mode="zeros",
    )
    return make_network(dataclasses.replace(config, model=model), trainer.network.config["transition_dim"]).to(device)


def _forward_backward(network: nn.Module, noisy: Tensor, levels: Tensor) -> None:
    output = network(noisy, levels)
    prediction: Tensor = output if isinstance(output, Tensor) else output.sample
    prediction.square().mean().backward()
