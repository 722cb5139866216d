"""Why a norm that pools over time does not stitch: candidate explanations, each with a prediction that could fail.

(a) The statistics name a demonstrated whole. Then they can be decoded, a plan under a demonstrated plan's statistics
takes that plan's way, and a held-out plan under the statistics of a right plan of its own task comes out right.
(b) The statistics of a held-out plan, or of another length, are unlike any in training. Then plans under the training's
average statistics, or under statistics of windows of the training's length, come out right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from envs.maze_map import Task
from groundwork.errors import UserError
from norm_study.stitching.settings import CauseSettings
from norm_study.stitching.statistics import Frozen, borrowing_denoiser, denoiser_under, recorded, windowed_moments
from norm_study.stitching.summary import Rows
from planner.composition import require_one_piece
from planner.data import load_data
from planner.diffusion import make_schedule
from planner.plan import Planner
from planner.rollout import Rollout, RolloutSettings, can_be_done, choose_tasks, rollout

FOLDS = 4


def cause_rows(run: str | Path, donor: str | Path, settings: CauseSettings, device: str = "auto") -> Rows:
    """Plans of one planner with GroupNorms while rules take the place of its statistics, executed on MuJoCo.

    Args:
        run: a finished run whose network has GroupNorms, its dataset at hand.
        donor: a planner of the same maze and horizon that stitches; it lends right plans of every task.
        settings: how much is sampled.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        One row per rule, multiple, task and episode: those of :func:`planner.rollout.rollout` with ``rule``,
        ``multiple``, ``countable`` and ``to_lender_m``, the root mean square distance between plan and lent plan
        (``None`` where nothing was lent). Rules: ``own`` as trained; ``frozen`` at the training's average of each
        noise level; ``windowed`` over the training's length, above the training horizon; ``right``, those of the
        donor's plan of the same task; ``demonstrated``, those of the demonstrated plan from the same start.

    Raises:
        UserError: no such runs, runs of different mazes or horizons, or a network that is told more than its plan.
    """
    planner, lender = _borrower_and_lender(run, donor, settings, device)
    maze = planner.statistics.maze_for("cause")
    tasks, own_network = choose_tasks(maze, ("demonstrated", "held_out")), planner.network
    frozen = Frozen.of(planner, load_data(planner.config.data, planner.device).training, seed=settings.seed)
    rows: Rows = []
    for multiple in settings.multiples:
        horizon = multiple * planner.config.data.horizon
        asked = RolloutSettings(episodes=settings.episodes, seed=settings.seed, horizon=horizon)
        fits = {task.name: can_be_done(maze, task, horizon, planner.statistics.median_step_m) for task in tasks}
        own = rollout(planner, tasks, asked)
        lent = {"right": rollout(lender, tasks, asked).plans, "demonstrated": _demonstrated_plans(own, tasks, settings)}
        rules: dict[str, Callable[..., Any]] = {"frozen": frozen.denoiser(own_network)}
        if multiple > 1:
            rules["windowed"] = denoiser_under(own_network, windowed_moments(1 / multiple))
        for name, plans in lent.items():
            rules[name] = borrowing_denoiser(planner, planner.normalized(plans), settings.seed)
        done = {"own": own}
        for name, denoise in rules.items():
            planner.network = denoise  # a sampler needs no more of a network
            try:
                done[name] = rollout(planner, tasks, asked)
            finally:
                planner.network = own_network
        for name, found in done.items():
            lender_plans = lent.get(name)
            for index, row in enumerate(found.rows):
                about = {"rule": name, "multiple": multiple, "countable": fits[row["task"]]}
                rows.append(about | row | {"to_lender_m": _distance(found.plans, lender_plans, index)})
            if name in lent:
                distances = [_distance(own.plans, lender_plans, index) for index in range(len(own.rows))]
                for row, distance in zip(rows[-len(distances) :], distances, strict=True):
                    row["own_to_lender_m"] = distance
    about = {"run": Path(run).name, "norm": planner.config.model.norm, "run_seed": planner.config.seed}
    return [about | row for row in rows]


def _borrower_and_lender(
    run: str | Path, donor: str | Path, settings: CauseSettings, device: str
) -> tuple[Planner, Planner]:
    """Both planners, if the one can take plans of the other.

    Raises:
        UserError: it cannot.
    """
    planner, lender = (Planner.from_run(path, device=device) for path in (run, donor))
    maze = planner.statistics.maze
    if maze is None or lender.statistics.maze != maze or lender.config.data != planner.config.data:
        raise UserError(f"{donor} cannot lend plans to {run}: both must be planners of the same maze and data")
    if planner.config.diffusion.train_steps == 1:
        raise UserError(f"{run} has one noise level (diffusion.train_steps); cause changes what several steps do")
    if planner.config.model.tell_known:
        raise UserError(
            f"{run} has a network that is told which entries are known (model.tell_known); cause exchanges the "
            "statistics of networks that see their plan alone"
        )
    require_one_piece(planner.config, max(settings.multiples) * planner.config.data.horizon, f"cause of {run}")
    return planner, lender


def _demonstrated_plans(own: Rollout, tasks: Sequence[Task], settings: CauseSettings) -> np.ndarray:
    """For each episode the plan of the demonstrated task with the same start, in another episode of its own."""
    first: dict[tuple[int, int], int] = {}
    for index, task in enumerate(tasks):
        if task.split == "demonstrated":
            first.setdefault(task.start, index * settings.episodes)
    chosen = [
        first[task.start] + (episode + 1) % settings.episodes for task in tasks for episode in range(settings.episodes)
    ]
    return own.plans[chosen]


def _distance(plans: np.ndarray, others: np.ndarray | None, index: int) -> float | None:
    if others is None:
        return None
    apart = plans[index, 1:-1, :2] - others[index, 1:-1, :2]
    return float(np.sqrt((apart**2).sum(-1).mean()))


def decoded_rows(run: str | Path, settings: CauseSettings, device: str = "auto") -> Rows:
    """Whether the demonstrated task can be read from nothing but a network's norm statistics.

    Returns:
        One row per noise level: ``accuracy`` of a logistic regression on means and variances of all groups of all
        layers, cross-validated, ``n`` plans and ``chance``.

    Raises:
        UserError: no such run, or its environment is no maze.
    """
    planner = Planner.from_run(run, device=device)
    tasks = choose_tasks(planner.statistics.maze_for(f"decoding the task of {run}"), ("demonstrated",))
    asked = RolloutSettings(episodes=settings.decoded_plans, seed=settings.seed)
    clean = planner.normalized(rollout(planner, tasks, asked).plans)
    labels = np.repeat(np.arange(len(tasks)), settings.decoded_plans)
    about = {"run": Path(run).name, "norm": planner.config.model.norm, "run_seed": planner.config.seed}
    rows = []
    for level, moments in _moments_at(planner, clean, settings):
        features = np.concatenate(moments, axis=1)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        right = cross_val_predict(model, features, labels, cv=FOLDS) == labels
        rows.append(
            about | {"level": level, "accuracy": float(right.mean()), "n": len(right), "chance": 1 / len(tasks)}
        )
    return rows


def _moments_at(
    planner: Planner, clean_BDT: torch.Tensor, settings: CauseSettings
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Per noise level the means and variances (B, G) of each layer, of plans noised to it, their ends written in."""
    levels = planner.config.diffusion.train_steps
    schedule = make_schedule(levels, planner.config.diffusion.prediction)
    generator = torch.Generator(planner.device).manual_seed(settings.seed)
    known = planner.statistics.layout.known(clean_BDT.shape[-1], planner.device)
    for share in settings.levels:
        level = round(share * (levels - 1))
        noise = torch.randn(clean_BDT.shape, generator=generator, device=clean_BDT.device)
        noisy = schedule.add_noise(clean_BDT, noise, torch.full((len(noise),), level, device=noise.device))
        found = recorded(planner.network, torch.where(known, clean_BDT, noisy), level)
        yield (
            share,
            [
                values[..., 0].cpu().numpy()
                for mean, square in found.values()
                for values in (mean, square - mean.square())
            ],
        )
