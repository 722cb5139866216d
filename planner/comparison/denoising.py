"""How near planners come to the best denoiser that their training windows give, inside a plan where no end is in sight.

The mean of all training windows, each weighted by how well it explains the noisy one, is the best prediction if those
windows were all there is (the posterior mean of the empirical distribution). A network that errs by clearly more has
not learned what they tell. What that does to plans is seen in windows drawn from noise, beside real ones.

Shapes: N windows, W training windows, D transition dimensions, T planned points.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor
from tqdm import tqdm

from groundwork.errors import UserError
from groundwork.files import save_figure, write_atomically
from groundwork.intervals import mean_interval
from groundwork.section import Picture, Section
from groundwork.style import GRAY, PALETTE, legend_outside, open_axes
from groundwork.tables import Cell, Table, measured
from planner.data import Windows, load_data
from planner.measures import plan_measures
from planner.plan import Planner
from planner.sampler import Conditions, predicted_clean, sample, settings_of
from planner.settings import DenoiseSettings

BEST = "training windows"
AT_ONCE = 32
"""Noisy windows that are held against all training windows at once."""
NOTE = (
    "Error: mean distance of the predicted from the true positions, over validation windows of which no end is known. "
    "*Training windows*: that of their mean, each weighted by how well it explains the noisy window; a network that "
    "errs by clearly more has not learned what they tell. *Calibration*: true over predicted displacement from a "
    "window's first point to its last, by least squares; above 1, predictions are too short, and sampling, step after "
    "step, shortens plans."
)


def denoise(runs: Sequence[str], settings: DenoiseSettings, out: Path, device: str, command: str) -> Path:
    """Measures the runs, and writes rows, tables and figure.

    Args:
        runs: trained planners of mazes, whose datasets are at hand.
        settings: how many windows, at which noise levels.
        out: the folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        command: what made it, for the page.

    Returns:
        The path of the tables.

    Raises:
        UserError: no such run or dataset, no maze, no validation windows, a run that never saw unknown ends or draws
            chunks, or two of one name.
    """
    if len({Path(run).name for run in runs}) < len(runs):
        raise UserError(
            "denoise: give runs whose folders have names of their own, by which tables and figure tell them"
        )
    planners = {Path(run).name: _planner(run, device) for run in runs}  # all are looked at before one is measured
    found = {name: measure(planner, settings) for name, planner in tqdm(planners.items(), desc="denoise", unit="run")}
    write_atomically(out / "denoise.json", json.dumps(found, allow_nan=False) + "\n")
    save_figure(denoise_figure(found), out / "denoise.png", dpi=150)
    section = denoise_section(found, command).write(out, "denoise")
    write_atomically(out / "denoise.md", section.markdown())
    return out / "denoise.md"


def _planner(run: str, device: str) -> Planner:
    """The planner of a run whose denoising can be measured."""
    planner = Planner.from_run(run, device=device)
    planner.statistics.maze_for(f"denoise of {run}")
    if not planner.config.diffusion.drop_ends:
        raise UserError(f"run {run} always knew both ends (diffusion.drop_ends = 0), so that nothing shows its inside")
    if planner.config.model.overlap:
        raise UserError(
            f"run {run} draws chunks that are told of their neighbours (model.overlap); here windows have none"
        )
    if not planner.config.data.validation_share:
        raise UserError(f"run {run} kept no validation windows (data.validation_share = 0) to denoise")
    return planner


def measure(planner: Planner, settings: DenoiseSettings) -> dict[str, Any]:
    """``{"levels", "windows"}`` of one planner: intervals at each noise level, and of windows drawn and real.

    Raises:
        UserError: no validation windows.
    """
    data = load_data(planner.config.data, planner.device)
    if not len(data.validation):
        raise UserError(f"{planner.config.data.dataset} has too few episodes for validation windows to denoise")
    generator = torch.Generator(planner.device).manual_seed(settings.seed)
    clean_NDT = _some(data.validation, settings.windows, generator)
    all_WDT = data.training.gather(torch.arange(len(data.training), device=planner.device))
    levels = [_at_level(planner, all_WDT, clean_NDT, share, generator) for share in settings.levels]
    return {"levels": levels, "windows": _windows(planner, clean_NDT, generator)}


def _some(windows: Windows, count: int, generator: torch.Generator) -> Tensor:
    which = torch.randperm(len(windows), generator=generator, device=generator.device)[:count]
    return windows.gather(which)


def _nothing_known(like_NDT: Tensor) -> Tensor:
    return torch.zeros(like_NDT.shape[1:], dtype=torch.bool, device=like_NDT.device)


@torch.no_grad()
def _at_level(
    planner: Planner, all_WDT: Tensor, clean_NDT: Tensor, share: float, generator: torch.Generator
) -> dict[str, Any]:
    """Errors of network and training windows at one share of the noise levels."""
    schedule = planner.schedule
    level = max(0, round(share * schedule.config["num_train_timesteps"]) - 1)
    levels = torch.full((len(clean_NDT),), level, device=clean_NDT.device)
    noise = torch.randn(clean_NDT.shape, generator=generator, device=clean_NDT.device)
    noisy = schedule.add_noise(clean_NDT, noise, levels)
    denoiser = planner.denoiser(_nothing_known(clean_NDT))
    predicted = predicted_clean(schedule, denoiser(noisy, levels), noisy, level)
    kept = schedule.alphas_cumprod[level].item()
    best = torch.cat([posterior_mean(part, all_WDT, kept) for part in noisy.split(AT_ONCE)])
    true, network, windows = (planner.positions_m(each) for each in (clean_NDT, predicted, best))
    limits = planner.statistics.normalizer
    meters = float((limits.high - limits.low)[:2].mean()) / 2
    moved = [(each[:, -1] - each[:, 0]).ravel() for each in (true, network)]
    return {
        "share": share,
        "noise_m": meters * ((1 - kept) / kept) ** 0.5,
        "network": mean_interval(np.linalg.norm(network - true, axis=-1).mean(1)),
        BEST: mean_interval(np.linalg.norm(windows - true, axis=-1).mean(1)),
        "calibration": float(moved[0] @ moved[1] / max(moved[1] @ moved[1], 1e-12)),
    }


def posterior_mean(noisy_NDT: Tensor, all_WDT: Tensor, kept: float) -> Tensor:
    """The mean of all windows, weighted by their likelihood of being the noisy ones without noise, (N, D, T).

    Args:
        noisy_NDT: √kept · clean + √(1 − kept) · noise.
        all_WDT: the windows of the training.
        kept: share of the variance that is not noise.
    """
    flat_NX, all_WX = noisy_NDT.flatten(1), all_WDT.flatten(1)
    fit_NW = (kept**0.5 * flat_NX @ all_WX.T - kept / 2 * all_WX.square().sum(1)) / (1 - kept)
    return (fit_NW.softmax(1) @ all_WX).view_as(noisy_NDT)


def _windows(planner: Planner, clean_NDT: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Length, displacement and validity of windows drawn from noise with no end known, and of real ones."""
    maze = planner.statistics.maze_for("denoise")
    known = _nothing_known(clean_NDT)
    drawn = sample(
        planner.denoiser(known),
        planner.schedule,
        Conditions(known, torch.zeros_like(clean_NDT)),
        generator=generator,
        **settings_of(planner.config.diffusion),
    )
    found = {}
    for name, windows in (("drawn", drawn), ("real", clean_NDT)):
        positions = planner.positions_m(windows)
        measures = plan_measures(positions, maze, planner.statistics.longest_step_m)
        found[name] = {
            "length": mean_interval(np.linalg.norm(np.diff(positions, axis=1), axis=-1).sum(1)),
            "displacement": mean_interval(np.linalg.norm(positions[:, -1] - positions[:, 0], axis=-1)),
            "valid": mean_interval(measures["plan_valid"]),
        }
    return found


def denoise_section(found: Mapping[str, Any], command: str = "") -> Section:
    """What the runs do inside a plan."""
    return Section(
        "Denoising",
        "How near networks come to the best denoiser that their training windows give.",
        tables=[_level_table(found), _window_table(found)],
        pictures=[Picture("denoise.png", "Error of the predicted positions against the noise.")],
        notes=[NOTE],
        commands=[command] if command else [],
        data=["denoise.json"],
    )


def _level_table(found: Mapping[str, Any]) -> Table:
    lines: list[list[Cell]] = [
        [
            run,
            f"{row['noise_m']:.1f} m",
            measured(row["network"], unit=" m"),
            measured(row[BEST], unit=" m"),
            f"{row['calibration']:.2f}",
        ]
        for run, one in found.items()
        for row in one["levels"]
    ]
    return Table(["run", "noise", "error, network", f"error, {BEST}", "calibration"], lines)


def _window_table(found: Mapping[str, Any]) -> Table:
    lines: list[list[Cell]] = [
        [
            run,
            name,
            measured(windows["length"], ".1f", " m"),
            measured(windows["displacement"], ".1f", " m"),
            measured(windows["valid"], ".0f", " %"),
        ]
        for run, one in found.items()
        for name, windows in one["windows"].items()
    ]
    return Table(["run", "windows", "length", "displacement", "valid"], lines)


def denoise_figure(found: Mapping[str, Any]) -> Figure:
    """Error against noise, a line per run, and one of the training windows for all runs that share them."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    bounds: dict[str, str] = {}  # drawn lines of training windows, by their numbers
    for (run, one), color in zip(found.items(), PALETTE * len(found), strict=False):
        noise = [row["noise_m"] for row in one["levels"]]
        _draw(axis, noise, [row["network"] for row in one["levels"]], color=color, marker="o", label=run)
        best = [row[BEST] for row in one["levels"]]
        if bounds.setdefault(str(best), run) == run:
            label = BEST if len(bounds) == 1 else f"{BEST} of {run}"
            _draw(axis, noise, best, color=GRAY, marker="s", ls="--", label=label)
    axis.set(xscale="log", yscale="log", xlabel="noise (m)", ylabel="error of predicted positions (m)")
    for its in (axis.xaxis, axis.yaxis):
        its.set_major_locator(LogLocator(subs=(1, 2, 5)))
        its.set_major_formatter("{x:g}")
        its.set_minor_locator(NullLocator())
    open_axes([axis])
    legend_outside(figure, axis)
    return figure


def _draw(axis: Axes, noise: Sequence[float], cells: Sequence[Mapping[str, Any]], **look: Any) -> None:
    means, low, high = (np.array([cell[key] for cell in cells]) for key in ("mean", "low", "high"))
    axis.errorbar(noise, means, (means - low, high - means), ms=4, capsize=2, **look)
