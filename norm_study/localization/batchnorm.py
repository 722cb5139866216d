"""Figures 5 and 6: BatchNorm carries position with minibatch statistics and loses it with running ones.

Training and the minibatch test run through PackNorm over the sequences of a minibatch, which is the same
computation (see ``network.minibatch_norm``). For the other test the same weights move into real BatchNorm
layers in evaluation mode.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from norm_study.localization.localize import (
    Noise,
    chunks,
    norm_free_floor,
    predict_as_trained,
    prediction_row,
    train_networks,
)
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import BatchNormConfig
from planner.norms import PackNorm, make_norm


class _Moments:
    """Averages over minibatches of what one norm layer is given."""

    def __init__(self, minibatch: int):
        self.minibatch = minibatch
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def observe(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward hook; rows of a minibatch are consecutive."""
        pooled = rearrange(inputs[0], "(n m) c t -> n c (m t)", m=self.minibatch)
        self.means.append(reduce(pooled, "n c t -> n c", "mean"))
        self.variances.append(pooled.var(dim=-1))


@torch.no_grad()
def with_running_statistics(network: ConvNetwork, seed: int, config: BatchNormConfig) -> ConvNetwork:
    """The same weights in BatchNorm layers that use running statistics.

    They are the average over ``config.calibration`` minibatches with the final weights, rather than the
    trailing average of training, which at a small minibatch would be noisy: what is lost here is the
    minibatch's own statistics, not the accuracy of the population's.
    """
    device = next(network.parameters()).device
    moments = [_Moments(config.minibatch) for _ in network.norms]
    hooks = [norm.register_forward_pre_hook(m.observe) for norm, m in zip(network.norms, moments, strict=True)]
    noise, left = Noise([seed], device, stream=5), config.calibration
    while left > 0:
        size = min(left, max(1, 128 // config.minibatch))
        network(*noise.draw(size * config.minibatch, config.length))
        left -= size
    for hook in hooks:
        hook.remove()

    frozen = copy.deepcopy(network)
    for layer, (norm, m) in enumerate(zip(network.norms, moments, strict=True)):
        assert isinstance(norm, PackNorm)
        replacement = make_norm("batch", m.means[0].shape[1]).to(device)
        state = norm.instance.state_dict()
        state["running_mean"] = torch.cat(m.means).mean(0)
        state["running_var"] = torch.cat(m.variances).mean(0)
        state["num_batches_tracked"] = torch.tensor(config.calibration)
        replacement.load_state_dict(state)
        frozen.norms[layer] = replacement
    return frozen.eval()


def run_batchnorm(config: BatchNormConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains one network per seed and tests it with both statistics.

    Returns:
        One row each: the error, distance, localized indices and moments of the predictions under either name.
    """
    rows = []
    floor = norm_free_floor(config.length, config.reach)
    for chunk in chunks(seeds, config.batch * config.width * config.length, device):
        networks = train_networks(config, chunk, device)
        for seed, network in zip(chunk, networks, strict=True):
            by_minibatch = predict_as_trained(network, seed, config)
            by_running = predict_as_trained(with_running_statistics(network, seed, config), seed, config)
            row: dict[str, Any] = {"seed": seed, "floor": floor}
            for name, predictions in (("minibatch", by_minibatch), ("running", by_running)):
                measured = prediction_row(predictions, config.alpha, config.reach)
                measured["distance"] = measured.pop("localization_distance")
                row |= {f"{key}_{name}": value for key, value in measured.items()}
            rows.append(row)
    return rows
