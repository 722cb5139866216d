"""What thousands of untrained networks cost as one computation, against one network at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from norm_study.init_bias.guesses import inputs_of, measure_networks, measure_outputs
from norm_study.init_bias.networks import MLPChunk, felt_inputs, kaiming_gain
from norm_study.init_bias.settings import InitBiasBenchConfig, InitBiasConfig


def torch_network(config: InitBiasConfig, inputs: int) -> nn.Sequential:
    """One such network as it is usually written."""
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "mish": nn.Mish}[config.activation]
    norm = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[config.norm]
    layers: list[nn.Module] = []
    for width in [inputs] + [config.width] * (config.depth - 1):
        block = [norm(config.width), activation()]
        layers += [nn.Linear(width, config.width), *(block if config.place == "pre" else block[::-1])]
    network = nn.Sequential(*layers, nn.Linear(config.width, config.classes))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, kaiming_gain(config.activation) / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
    return network


@torch.no_grad()
def _one_at_a_time(config: InitBiasConfig, x_ND: Tensor) -> None:
    for _ in range(config.inits):
        network = torch_network(config, x_ND.shape[1]).to(x_ND.device)
        hidden = network[:-1](x_ND)
        measure_outputs(network[-1](hidden).T[None], torch.linalg.vector_norm(hidden, dim=1)[None])


@torch.no_grad()
def _chunks_of_one(config: InitBiasConfig, x_ND: Tensor) -> None:
    for index in range(config.inits):
        for outputs in MLPChunk(config, 0, [index], x_ND).outputs(config.norm, config.place):
            measure_outputs(*outputs)


def _fastest(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    times = []
    for _ in range(repeats + 1):  # the first pays for start-up
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def matmul_gflops(config: InitBiasConfig, device: torch.device) -> float:
    """What this machine reaches on one large product of the first layer's sizes, in 1e9 operations per second."""
    rows = 16 * config.width
    a = torch.randn(rows, config.dimensions, device=device)
    b = torch.randn(config.dimensions, config.points, device=device)
    return 2 * rows * config.dimensions * config.points / _fastest(lambda: a @ b, 5, device) / 1e9


def run_init_bias_bench(config: InitBiasBenchConfig, device: torch.device) -> dict[str, Any]:
    """Times both, and how much of the time at many points is the products' arithmetic.

    Returns:
        ``summary.speedup`` at few points: time of networks made and applied one by one, out of torch's layers,
        over that of the batch; ``speedup_same_draws``: of the batch's own code with one network at a time;
        ``draws_avoided`` is the share of the weights that few points never feel and that are not drawn.
        ``matmul_share`` at many points: rate of the products, over the whole time, as a share of what one
        large product alone reaches.
    """
    variant = [(config.norm, config.place)]
    few = replace(config, points=config.few_points)
    x = inputs_of(few, 0).to(device)
    inputs, width = x.shape[1], config.width
    batched_s = _fastest(lambda: measure_networks(few, variant, 0, device), config.repeats, device)
    single_s = _fastest(lambda: _one_at_a_time(few, x), config.repeats, device)
    chunks_of_one_s = _fastest(lambda: _chunks_of_one(few, x), config.repeats, device)
    many_s = _fastest(lambda: measure_networks(config, variant, 0, device), config.repeats, device)
    limit = matmul_gflops(config, device)
    weights = width * (inputs + (config.depth - 1) * width)
    reached = 2 * weights * config.points * config.inits / many_s / 1e9
    drawn = width * sum(felt_inputs(few.points, size) for size in [inputs] + [width] * (config.depth - 1))
    summary = {
        "speedup": single_s / batched_s,
        "speedup_same_draws": chunks_of_one_s / batched_s,
        "batched_ms_per_network": 1e3 * batched_s / config.inits,
        "single_ms_per_network": 1e3 * single_s / config.inits,
        "draws_avoided": 1 - drawn / weights,
        "many_ms_per_network": 1e3 * many_s / config.inits,
        "reached_gflops": reached,
        "matmul_gflops": limit,
        "matmul_share": reached / limit,
    }
    about = {"device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"config": {**asdict(config), **about}, "rows": [], "summary": summary}
