"""The planner's U-Net before training and in its first steps, with the norm before and after the activation.

The theory's two moments carry over to a network that predicts numbers instead of classes: how far the mean
prediction differs between initialisations, against how far the predictions of one network differ between data. Their
ratio is gamma of a time step and dimension. A prejudiced denoiser draws the same plan whatever it is shown.

Letters: I networks, B windows, D transition dimensions, T planned points.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.intervals import mean_intervals
from norm_study.init_bias.settings import InitBiasUNetConfig
from planner.config import Config, Placement, from_dict, load_preset, merge
from planner.data import PlannerData, load_data
from planner.norms import NormKind
from planner.training.trainer import Trainer, make_network, seed_of

Rows = list[dict[str, Any]]
KEPT_EVERY = 10  # steps per recorded loss
LAST_STEPS = 50  # the loss after so many steps is the mean over these


def variants(config: InitBiasUNetConfig) -> list[tuple[NormKind, Placement]]:
    """No norm, whose placement means nothing, and every norm in both places."""
    found: list[tuple[Any, Placement]] = [("none", "pre")]
    for norm in config.norms:
        found += [(norm, "pre"), (norm, "post")]
    return found


def with_norm(base: Config, norm: NormKind, placement: Placement, seed: int) -> Config:
    """The planner's settings with another norm."""
    return replace(base, seed=seed, model=replace(base.model, norm=norm, norm_placement=placement))


@torch.no_grad()
def first_predictions(trainer: Trainer, inits: int, windows: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over windows of what untrained networks predict from pure noise.

    The input is what sampling starts with: noise of the highest level with the known entries of a training
    window written in; all networks see the same. BatchNorm uses the batch's statistics.

    Returns:
        (I, D, T) means and (I, D, T) standard deviations.
    """
    config, device = trainer.config, trainer.device
    clean, _, noise = trainer.draw(trainer.data.training, windows, seed_of(config.seed, -3))
    sample = torch.where(trainer.known_DT, clean, noise)
    levels = torch.full((windows,), config.diffusion.train_steps - 1, device=device)
    predictions = []
    for init in range(inits):
        network = make_network(replace(config, seed=config.seed * 100_003 + init), clean.shape[1]).to(device).train()
        predicted = network(sample, levels)
        predictions.append((predicted.mean(0), predicted.std(0, correction=0)))
    means, deviations = zip(*predictions, strict=True)
    return torch.stack(means), torch.stack(deviations)


def first_losses(trainer: Trainer, steps: int, label: str) -> np.ndarray:
    """(steps,) training losses from the start; the learning rate is that of the preset's whole run."""
    trainer.network.train()
    progress = tqdm(range(steps), desc=label, file=sys.stderr, leave=False, mininterval=1.0)
    return torch.stack([trainer.update()[0] for _ in progress]).cpu().numpy()


def prediction_row(means_IDT: Tensor, deviations_IDT: Tensor) -> dict[str, Any]:
    """What the moments say, over all entries and per dimension and time step.

    ``over_inits``: standard deviation over networks of the mean prediction; ``over_data``: root mean square over
    networks of the standard deviation over windows; ``gamma``: the square of their ratio, with both squares
    averaged over the entries first.
    """
    between, within = means_IDT.var(0), deviations_IDT.square().mean(0)
    return {
        "over_inits": float(between.mean().sqrt()),
        "over_data": float(within.mean().sqrt()),
        "gamma": float(between.mean() / within.mean()),
        "mean_by_time": _rounded(means_IDT.mean(0)),
        "over_inits_by_time": _rounded(between.sqrt()),
        "over_data_by_time": _rounded(within.sqrt()),
    }


def _rounded(values_DT: Tensor) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in values_DT.tolist()]


def _data(config: InitBiasUNetConfig, device: torch.device) -> tuple[Config, PlannerData]:
    base = from_dict(merge(load_preset(config.preset), {"data": {"dataset": config.dataset}}))
    if base.diffusion.train_steps == 1:
        raise UserError(f"preset = {config.preset} has one noise level; first predictions are those from pure noise")
    return base, load_data(base.data, device)


def run_init_bias_unet(config: InitBiasUNetConfig, seeds: Sequence[int], device: torch.device) -> Rows:
    """One row per seed, norm and placement."""
    base, data = _data(config, device)
    rows = []
    for seed in seeds:
        for norm, placement in variants(config):
            trainer = Trainer(with_norm(base, norm, placement, seed), data, device)
            row = prediction_row(*first_predictions(trainer, config.inits, config.windows))
            losses = first_losses(trainer, config.loss_steps, f"{norm} {placement} seed {seed}")
            kept = [losses[at : at + KEPT_EVERY].mean() for at in range(0, len(losses), KEPT_EVERY)]
            rows.append(
                {
                    "seed": seed,
                    "norm": norm,
                    "placement": placement,
                    **row,
                    "first_loss": float(losses[0]),
                    "last_loss": float(losses[-LAST_STEPS:].mean()),
                    "losses": [float(f"{loss:.5g}") for loss in kept],
                }
            )
    return rows


def summarize_init_bias_unet(config: InitBiasUNetConfig, rows: Rows) -> dict[str, Any]:
    """One line per norm and placement, with 95 % intervals over seeds."""
    names = ("gamma", "over_inits", "over_data", "first_loss", "last_loss")
    table = []
    for norm, placement in variants(config):
        own = [row for row in rows if (row["norm"], row["placement"]) == (norm, placement)]
        table.append({"norm": norm, "placement": placement, **mean_intervals(own, names)})
    return {"table": table, "loss_steps": config.loss_steps}
