"""The paper's case study: does the planner's U-Net know positions beyond its receptive field?

The U-Net learns problem 2.1 on sequences longer than it can see. Its strides make a norm-free net equivariant
only to shifts by the total stride, so two interior indices of different phase may differ without any
knowledge of position. Definition 2.3 allows for that by itself: an index is localized only if it differs from
*every* other one, and another interior index of the same phase has the same distribution. The exact test
shifts by the total stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.errors import UserError
from norm_study.localization.equivariance import interior_shift_error
from norm_study.localization.localize import Noise, fit, predict, target
from norm_study.localization.settings import UNetConfig
from norm_study.localization.welch import localize
from planner.unet import TemporalUNet


class UNetOnNoise(nn.Module):
    """The planner's U-Net at diffusion step 0, as a map (B, 1, L) to (B, 1, L)."""

    def __init__(self, config: UNetConfig, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unet = TemporalUNet(
                transition_dim=1,
                dim=config.dim,
                dim_mults=config.dim_mults,
                kernel_size=config.kernel,
                norm=config.norm,
                norm_groups=config.groups,
            )

    def forward(self, x: Tensor) -> Tensor:
        """Predicts every position."""
        return self.unet(x, torch.zeros(len(x), dtype=torch.long, device=x.device))


def run_unet(config: UNetConfig, seeds: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """Trains and tests one U-Net per seed; one row each.

    ``interior_localized`` counts the localized indices that see neither end, ``shift_error`` is how far
    the interior is from equivariance to shifts by the total stride.
    """
    return [_run_one(config, seed, device) for seed in seeds]


def _run_one(config: UNetConfig, seed: int, device: torch.device) -> dict[str, Any]:
    network = UNetOnNoise(config, seed).to(device)
    left, right = network.unet.receptive_field()
    shift = config.total_stride
    if config.length - left - right < 2 * shift + 1:
        raise UserError(
            f"length = {config.length} must be at least {left + right + 2 * shift + 1}: the receptive field "
            f"reaches {left} to the left and {right} to the right"
        )
    noise, wanted = Noise([seed], device), target(config.length).to(device)
    label = f"unet {config.norm} seed {seed}"
    fit(
        [network],
        lambda: (noise.draw(config.batch, config.length), wanted),
        config.learning_rate,
        config.steps,
        label,
    )
    predictions = predict(network, seed, config.predictions, config.length)
    found = localize(predictions, config.alpha)
    inside = range(left, config.length - right)
    (x,) = Noise([seed], device, stream=6).draw(16, config.length + shift)
    positions = target(config.length).numpy()
    return {
        "seed": seed,
        "norm": config.norm,
        "left": left,
        "right": right,
        "mse": float(((predictions - positions) ** 2).mean()),
        "floor": float((positions[inside.start : inside.stop] ** 2).sum() / config.length),
        **found.as_row(),
        "interior_localized": sum(i in inside for i in found.indices()),
        "interior_share": sum(i in inside for i in found.indices()) / len(inside),
        "shift_error": interior_shift_error(network, x, shift, left, right),
        "mean": predictions.mean(0).round(5).tolist(),
        "deviation": predictions.std(0).round(5).tolist(),
    }
