"""What a reader wants to know of a run beside its results."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from groundwork.section import commit_text
from planner.config import Config
from planner.training.run import RunFolder

LAST_ROWS = 5
"""So many logged rows make a loss."""


def norm_label(config: Config) -> str:
    """The norm, with its placement, conditioning and what norms the weights where these are not the usual ones."""
    model = config.model
    unusual = {
        "post": model.norm_placement == "post" and model.norm != "none",
        "conditioned": model.norm_conditioned,
        f"{model.weights} weights": model.weights != "plain",
    }
    return ", ".join([model.norm, *(word for word, holds in unusual.items() if holds)])


def run_facts(folder: RunFolder) -> dict[str, str]:
    """Settings, curves and origin of a run, finished or not, as text by name."""
    config, origin, metrics = folder.config(), folder.provenance(), folder.metrics()
    losses = [row["loss"] for row in metrics][-LAST_ROWS:]
    validation = [row["validation_loss"] for row in metrics if row.get("validation_loss") is not None]
    step = metrics[-1]["step"] if metrics else config.steps if folder.done else 0
    return {
        "run": folder.path.resolve().name,
        "norm": norm_label(config),
        "seed": str(config.seed),
        "steps": f"{step:,} of {config.steps:,}",
        "horizon": f"{config.data.horizon} points, stride {config.data.stride}",
        "data": config.data.dataset,
        "teacher": config.diffusion.teacher or "–",
        "loss": f"{np.mean(losses):.4f}" if losses else "–",
        "validation loss": f"{validation[-1]:.4f}" if validation else "–",
        "steps/s": f"{np.median([row['steps_per_second'] for row in metrics]):.1f}" if metrics else "–",
        "commit": commit_text(origin) if origin else "–",
    }


def network_facts(folder: RunFolder) -> dict[str, str]:
    """Size and receptive field of a run's network."""
    network: Any = folder.load_network()
    left, right = network.receptive_field()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": f"{parameters:,}", "receptive field (points)": f"−{left} … +{right}"}


def watching(folder: RunFolder) -> dict[str, str]:
    """The command that shows a run's curves, where TensorBoard has any."""
    there = any(folder.path.glob("events.out.tfevents.*"))
    return {"TensorBoard": f"`tensorboard --logdir {shlex.quote(str(folder.path))}`" if there else "–"}
