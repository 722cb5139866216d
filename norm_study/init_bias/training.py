"""From prejudiced and from neutral starts: how long the initial bias lasts, and what it costs.

All networks of all seeds train as one batched computation, each with weights and batches of its own. The bias of
a network is the total variation distance between the class shares that it predicts on held-out data and the
true ones. Norms use the statistics of the data at hand, in training and in judging.

Letters: S networks, N data points, B batch, D inputs, W width, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from groundwork.intervals import mean_intervals
from norm_study.init_bias.data import blobs, digits
from norm_study.init_bias.networks import activate, draw, kaiming_gain
from norm_study.init_bias.settings import InitBiasTrainingConfig

BATCH_STREAM = 9 * 1_000_003
BLOB_TRAINING_POINTS = 4000
FINE_STEPS = 20  # every step is judged up to here, later every fifth
EPS = 1e-5
Rows = list[dict[str, Any]]


class StackedMLP(nn.Module):
    """S MLPs of equal hidden layers, each a function of (seed, index); norms have gains and shifts."""

    def __init__(self, config: InitBiasTrainingConfig, seeds: Sequence[int], inputs: int):
        super().__init__()
        self.config = config
        widths = [inputs, *[config.width] * config.depth, config.classes]
        gain = kaiming_gain(config.activation)
        sizes = [(i * o, gain / i**0.5) for i, o in zip(widths, widths[1:], strict=False)]
        drawn = [draw(seed, range(config.networks), sizes, torch.device("cpu")) for seed in seeds]
        self.networks = len(seeds) * config.networks
        self.weights = nn.ParameterList(
            torch.cat([one[layer] for one in drawn]).view(self.networks, o, i)
            for layer, (i, o) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.biases = nn.ParameterList(torch.zeros(self.networks, o, 1) for o in widths[1:])
        normed = config.depth if config.norm != "none" else 0
        self.gains = nn.ParameterList(torch.ones(self.networks, config.width, 1) for _ in range(normed))
        self.shifts = nn.ParameterList(torch.zeros(self.networks, config.width, 1) for _ in range(normed))

    def forward(self, x_SDN: Tensor) -> Tensor:
        """Logits (S, K, N); data of one network or the same (1, D, N) for all."""
        h = x_SDN
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.matmul(weight, h) + bias
            if layer < self.config.depth:
                h = self._norm_and_activation(h, layer)
        return h

    def _norm_and_activation(self, z: Tensor, layer: int) -> Tensor:
        kind = self.config.activation
        if self.config.norm == "none":
            return activate(z, kind)
        if self.config.place == "pre":
            return activate(self._norm(z, layer), kind)
        return self._norm(activate(z, kind), layer)

    def _norm(self, x_SWN: Tensor, layer: int) -> Tensor:
        if self.config.norm == "batch":
            normal = functional.layer_norm(x_SWN, x_SWN.shape[-1:], eps=EPS)
        else:
            normal = functional.layer_norm(x_SWN.mT, (x_SWN.shape[1],), eps=EPS).mT
        return normal * self.gains[layer] + self.shifts[layer]


class Tasks:
    """Each seed's training and held-out data, and each network's own order of batches."""

    def __init__(self, config: InitBiasTrainingConfig, seeds: Sequence[int], device: torch.device):
        self.config, self.device = config, device
        pairs = [self._load(config, seed) for seed in seeds]
        x = torch.stack([x for x, _ in pairs]).to(device)
        labels = torch.stack([labels for _, labels in pairs]).to(device)
        kept = config.held_out
        self.held_x, self.held_labels = x[:, :kept].mT.contiguous(), labels[:, :kept]
        self.x, self.labels = x[:, kept:], labels[:, kept:]
        self.generators = [
            torch.Generator().manual_seed(BATCH_STREAM + seed * 1_000_003 + which)
            for seed in seeds
            for which in range(config.networks)
        ]

    @staticmethod
    def _load(config: InitBiasTrainingConfig, seed: int) -> tuple[Tensor, Tensor]:
        if config.data == "digits":
            return digits(None, config.classes, seed)
        return blobs(config.held_out + BLOB_TRAINING_POINTS, config.dimensions, config.classes, seed)

    def batch(self) -> tuple[Tensor, Tensor]:
        """One step's data (S, D, B) and labels (S, B)."""
        count = self.x.shape[1]
        which = torch.stack([torch.randint(count, (self.config.batch,), generator=g) for g in self.generators])
        which = which.to(self.device)
        seed = torch.arange(len(self.x), device=self.device).repeat_interleave(self.config.networks)[:, None]
        return self.x[seed, which].mT, self.labels[seed, which]

    def held_out(self) -> tuple[Tensor, Tensor]:
        """The data (S, D, N) and labels (S, N) that each network is judged on."""
        each = self.config.networks
        return self.held_x.repeat_interleave(each, 0), self.held_labels.repeat_interleave(each, 0)


def judged_steps(steps: int) -> list[int]:
    """After how many updates the networks are judged."""
    return [step for step in range(steps + 1) if step <= FINE_STEPS or step % 5 == 0 or step == steps]


@torch.no_grad()
def judge(network: StackedMLP, x_SDN: Tensor, labels_SN: Tensor) -> dict[str, Tensor]:
    """Bias and largest predicted share (S,), loss and accuracy of each class (S, K)."""
    logits = network(x_SDN)
    classes = logits.shape[1]
    true = functional.one_hot(labels_SN, classes).float()
    guesses = logits.argmax(1)
    shares = functional.one_hot(guesses, classes).float().mean(1)
    losses = functional.cross_entropy(logits, labels_SN, reduction="none")
    count = true.sum(1)
    return {
        "bias": (shares - true.mean(1)).abs().sum(1) / 2,
        "max_fraction": shares.max(1).values,
        "class_loss": torch.einsum("sn,snk->sk", losses, true) / count,
        "class_accuracy": torch.einsum("sn,snk->sk", (guesses == labels_SN).float(), true) / count,
        "accuracy": (guesses == labels_SN).float().mean(1),
    }


def first_for_good(fulfilled_ES: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """(S,) the first judged step from which a condition holds to the end; infinity where it never does."""
    holds = np.logical_and.accumulate(fulfilled_ES[::-1], axis=0)[::-1]
    return np.where(holds.any(0), np.array(steps, dtype=float)[holds.argmax(0)], np.inf)


def train_and_judge(
    config: InitBiasTrainingConfig, seeds: Sequence[int], device: torch.device
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Trains all networks of all seeds together.

    Returns:
        The judged steps, and per measure of :func:`judge` an array (steps, S, ...).
    """
    tasks = Tasks(config, seeds, device)
    network = StackedMLP(config, seeds, tasks.x.shape[-1]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    held, steps, seen = tasks.held_out(), judged_steps(config.steps), []
    label = f"{config.norm} {config.place} depth {config.depth}"
    for step in tqdm(range(config.steps + 1), desc=label, file=sys.stderr, leave=False, mininterval=1.0):
        if step in steps:
            seen.append(judge(network, *held))
        if step < config.steps:
            x, labels = tasks.batch()
            losses = functional.cross_entropy(network(x), labels, reduction="none").mean(1)
            losses.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return steps, {name: torch.stack([one[name] for one in seen]).cpu().numpy() for name in seen[0]}


def run_init_bias_training(config: InitBiasTrainingConfig, seeds: Sequence[int], device: torch.device) -> Rows:
    """One row per seed, the mean over its networks.

    ``gone_step``: steps until the bias stays within ``even_within``; ``learned_step``: until the accuracy stays at
    least at ``learned_at``. A network that does not get there counts with ``steps`` (so the mean is then a lower
    bound); ``gone_share`` and ``learned_share`` say how many do.
    """
    steps, seen = train_and_judge(config, seeds, device)
    gone = first_for_good(seen["bias"] <= config.even_within, steps)
    learned = first_for_good(seen["accuracy"] >= config.learned_at, steps)
    rows = []
    for which, seed in enumerate(seeds):
        own = slice(which * config.networks, (which + 1) * config.networks)
        curves = {name: seen[name][:, own].mean(1) for name in seen}
        first, last = (seen["bias"][at, own] for at in (0, -1))
        rows.append(
            {
                "seed": seed,
                "norm": config.norm,
                "place": config.place,
                "initial_bias": float(first.mean()),
                "final_bias": float(last.mean()),
                "initial_max_fraction": float(curves["max_fraction"][0]),
                "gone_step": float(np.minimum(gone[own], config.steps).mean()),
                "gone_share": float(np.isfinite(gone[own]).mean()),
                "learned_step": float(np.minimum(learned[own], config.steps).mean()),
                "learned_share": float(np.isfinite(learned[own]).mean()),
                "accuracy": float(curves["accuracy"][-1]),
                "worst_class_accuracy": float(seen["class_accuracy"][-1, own].min(-1).mean()),
                "initial_loss_spread": float(np.ptp(seen["class_loss"][0, own], axis=-1).mean()),
                "steps": steps,
                "curves": {name: np.round(values.astype(float), 4).tolist() for name, values in curves.items()},
            }
        )
    return rows


def summarize_init_bias_training(config: InitBiasTrainingConfig, rows: Rows) -> dict[str, Any]:
    """Means over seeds with 95 % intervals."""
    names = (
        "initial_bias",
        "initial_max_fraction",
        "initial_loss_spread",
        "gone_step",
        "gone_share",
        "learned_step",
        "learned_share",
        "final_bias",
        "accuracy",
        "worst_class_accuracy",
    )
    return {**mean_intervals(rows, names), "steps": config.steps}
