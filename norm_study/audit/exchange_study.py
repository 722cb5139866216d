"""What a user does next: foreign planners before and after the exchange of their norms, fine-tuned and measured.

The problem is a crossing of two corridors, without physics: demonstrations run straight along one of them, tasks held
out turn at the crossing. Letters: B batch, D = 2 position, T time.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.files import write_atomically
from groundwork.tables import Table, number
from norm_study.audit.foreign import FOREIGN
from norm_study.audit.leakage import audit
from norm_study.audit.surgery import replace_norms
from planner.diffusion import make_schedule, training_loss
from planner.sampler import Conditions, sample

HORIZON, BATCH, LEVELS, RATE = 64, 32, 64, 1e-3
END, CORRIDOR, LATERAL = 0.9, 0.2, 0.05
AUDIT_LENGTH = 256
ARMS = torch.tensor([[-END, 0.0], [END, 0.0], [0.0, -END], [0.0, END]])
STRAIGHT = [(0, 1), (1, 0), (2, 3), (3, 2)]
TURNS = [(a, b) for a in range(4) for b in range(4) if a != b and (a, b) not in STRAIGHT]


def _wave(count: int, horizon: int, generator: torch.Generator) -> Tensor:
    """(B, T) smooth random curves of about unit size."""
    at = torch.linspace(0, 1, horizon)
    phases, sizes = torch.rand(count, 4, generator=generator), torch.randn(count, 4, generator=generator)
    waves = torch.cos(2 * torch.pi * (torch.arange(1, 5)[:, None] * at / 2 + phases[..., None]))
    return (sizes[..., None] * waves).sum(1) / 2**0.5


def demonstrations(count: int, horizon: int, generator: torch.Generator) -> Tensor:
    """(B, 2, T) passages straight across, at speeds that vary and with a little to the side."""
    speed = torch.exp(0.5 * _wave(count, horizon, generator))
    run = speed.cumsum(1) - speed[:, :1]
    along = END * (2 * run / run[:, -1:] - 1) * (2 * torch.randint(0, 2, (count, 1), generator=generator) - 1)
    ends = torch.sin(torch.linspace(0, torch.pi, horizon))
    across = LATERAL * _wave(count, horizon, generator) * ends
    vertical = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
    return torch.stack([torch.where(vertical, across, along), torch.where(vertical, along, across)], 1)


def longest_step(plans_BDT: Tensor) -> Tensor:
    """(B,) the longest step between neighbouring points."""
    return plans_BDT.diff(dim=-1).norm(dim=1).amax(-1)


def valid(plans_BDT: Tensor, limit: float) -> Tensor:
    """(B,) whether a plan keeps to the corridors, between its points too, and makes no step above the limit."""
    shares = torch.linspace(0, 1, 9)[:, None, None, None]
    between = plans_BDT[..., :-1] + shares * plans_BDT.diff(dim=-1)
    inside = (between.abs().amin(2) <= CORRIDOR) & (between.abs().amax(2) <= END + CORRIDOR)
    return inside.all(-1).all(0) & (longest_step(plans_BDT) <= limit)


def _known(horizon: int) -> Tensor:
    known = torch.zeros(2, horizon, dtype=torch.bool)
    known[:, [0, -1]] = True
    return known


class _Loss:
    """The training loss of a network on demonstrations, at random levels."""

    def __init__(self, seed: int):
        self.schedule = make_schedule(LEVELS, "sample")
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, network: nn.Module) -> Tensor:
        clean = demonstrations(BATCH, HORIZON, self.generator)
        levels = torch.randint(LEVELS, (BATCH,), generator=self.generator)
        noise = torch.randn(clean.shape, generator=self.generator)
        return training_loss(network, self.schedule, clean, _known(HORIZON), levels, noise)


def train_steps(network: nn.Module, steps: int, seed: int) -> nn.Module:
    """Adam with a cosine; returns the network."""
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss_of = _Loss(seed)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _plans(network: nn.Module, tasks: Sequence[tuple[int, int]], each: int, horizon: int) -> Tensor:
    pairs = torch.tensor(tasks).repeat_interleave(each, 0)
    values = torch.zeros(len(pairs), 2, horizon)
    values[..., 0], values[..., -1] = ARMS[pairs[:, 0]], ARMS[pairs[:, 1]]
    conditions, generator = Conditions(_known(horizon), values), torch.Generator().manual_seed(0)
    return sample(network, make_schedule(LEVELS, "sample"), conditions, num_steps=LEVELS, generator=generator)


def measure(network: nn.Module, each: int) -> dict[str, Any]:
    """Training loss, leakage and movement on demonstrations twice forth and back, and valid plans.

    Args:
        network: the denoiser.
        each: plans per task.
    """
    with torch.no_grad():
        loss_of = _Loss(10_000)
        loss = sum(float(loss_of(network)) for _ in range(32)) / 32
    generator = torch.Generator().manual_seed(1)
    clean = demonstrations(1, HORIZON, generator)
    level = torch.tensor([LEVELS // 4])
    noise = torch.randn(clean.shape, generator=generator)
    noisy = make_schedule(LEVELS, "sample").add_noise(clean, noise, level)
    sequence = torch.cat([noisy.flip(-1) if i % 2 else noisy for i in range(AUDIT_LENGTH // HORIZON)], -1)
    report = audit(network, (sequence, level), attribution=False, times=16, training=False)
    limit = 2 * float(longest_step(demonstrations(1000, HORIZON, generator)).max())
    shares = {
        f"valid_{name}_{multiple}x": float(
            valid(_plans(network, tasks, each, multiple * HORIZON), limit).float().mean()
        )
        for name, tasks in (("demonstrated", STRAIGHT), ("held_out", TURNS))
        for multiple in (1, 2)
    }
    leakage, moved = report.leakage, report.finite[0]
    return {
        "loss": loss,
        "leakage": None if leakage is None else leakage.value,
        "movement": moved.value,
        "receptive_field": list(report.receptive_field),
        **shares,
    }


def study(name: str, steps: int, tuning: int, each: int, seed: int) -> list[dict[str, Any]]:
    """The rows of one planner: as trained, with the norms exchanged, that fine-tuned, and the old one trained on.

    Args:
        name: of the planner, see :data:`norm_study.audit.foreign.FOREIGN`.
        steps: of training.
        tuning: of fine-tuning.
        each: plans per task.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    network, rows = FOREIGN[name](2), []
    began = time.perf_counter()

    def row(stage: str, network: nn.Module, spent: int) -> None:
        found = measure(network.eval(), each)
        rows.append({"planner": name, "stage": stage, "seed": seed, "steps": spent, **found})

    row("as trained", train_steps(network, steps, seed), steps)
    seconds = time.perf_counter() - began
    exchanged = copy.deepcopy(network)
    replace_norms(exchanged, "channel")
    row("exchanged", exchanged, steps)
    row("exchanged, fine-tuned", train_steps(exchanged, tuning, seed + 1), steps + tuning)
    row("not exchanged, trained on", train_steps(network, tuning, seed + 1), steps + tuning)
    return [one | {"training_seconds": round(seconds, 1)} for one in rows]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    titles = ["planner", "stage", "training loss", "leakage, %", "movement, sd"]
    titles += [f"valid, {split} {multiple}×, %" for split in ("demonstrated", "held out") for multiple in (1, 2)]
    shares = [f"valid_{split}_{multiple}x" for split in ("demonstrated", "held_out") for multiple in (1, 2)]

    def mean(chosen: Sequence[dict[str, Any]], name: str) -> float:
        return sum(row[name] for row in chosen) / len(chosen)

    body = []
    for planner, stage in dict.fromkeys((row["planner"], row["stage"]) for row in rows):
        chosen = [row for row in rows if (row["planner"], row["stage"]) == (planner, stage)]
        cells = [number(mean(chosen, "loss")), number(100 * mean(chosen, "leakage")), number(mean(chosen, "movement"))]
        body.append([planner, stage, *cells, *(f"{100 * mean(chosen, name):.0f}" for name in shares)])
    return Table(titles, body).markdown()


def main() -> None:
    """Runs the study, or goes on with it, and prints its table."""
    parser = argparse.ArgumentParser(description="Foreign planners before and after the exchange of their norms.")
    parser.add_argument("--out", type=Path, required=True, help="the file of rows")
    parser.add_argument("--steps", type=int, default=2500, help="of training")
    parser.add_argument("--tuning", type=int, default=1000, help="of fine-tuning")
    parser.add_argument("--each", type=int, default=16, help="plans per task")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.out.read_text()) if given.out.exists() else []
    for seed in range(given.seeds):
        for name in FOREIGN:
            if not any((row["planner"], row["seed"]) == (name, seed) for row in rows):
                rows += study(name, given.steps, given.tuning, given.each, seed)
                write_atomically(given.out, json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
