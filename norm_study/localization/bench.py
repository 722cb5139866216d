"""What it costs to train many networks at once, against one by one."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch

from norm_study.localization.localize import Noise, fit, target
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import BenchConfig


def _seconds(config: BenchConfig, seeds: list[int], device: torch.device) -> float:
    sizes = {name: getattr(config, name) for name in ("depth", "kernel", "width", "groups", "minibatch")}
    networks = [ConvNetwork(seed, config.norm, **sizes).to(device) for seed in seeds]
    noise, wanted = Noise(seeds, device), target(config.length).to(device)
    started = time.perf_counter()
    fit(
        networks, lambda: (noise.draw(config.batch, config.length), wanted), config.learning_rate, config.steps, "bench"
    )
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run_bench(config: BenchConfig, device: torch.device) -> dict[str, Any]:
    """Times N networks in one stack against N single runs, alternately.

    Returns:
        ``summary.ratio`` is the stack's time over that of the single runs together; the rates count only the
        convolutions' arithmetic, so that they show how near the machine's limit either comes.
    """
    seeds = list(range(config.networks))
    _seconds(config, seeds[:1], device)  # the first run pays for start-up
    rows = [
        {
            "stacked_s": _seconds(config, seeds, device),
            "single_s": sum(_seconds(config, [s], device) for s in seeds),
        }
        for _ in range(config.repeats)
    ]
    stacked, single = (min(row[key] for row in rows) for key in ("stacked_s", "single_s"))
    per_position = 6 * config.kernel * config.width * (config.width * (config.depth - 2) + 2)
    flops = per_position * config.batch * config.length * config.steps * config.networks
    summary = {
        "ratio": stacked / single,
        "stacked_s": stacked,
        "single_s": single,
        "networks": config.networks,
        "stacked_gflops": flops / stacked / 1e9,
        "single_gflops": flops / single / 1e9,
    }
    about = {"device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"config": {**asdict(config), **about}, "rows": rows, "summary": summary}
