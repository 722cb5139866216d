"""``norm-study audit``: a planner's run, or anybody's network out of a Python module."""

from __future__ import annotations

import importlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.errors import UserError
from groundwork.program import Compute, JsonOutput
from norm_study.audit.leakage import audit
from norm_study.audit.report import write_audit
from norm_study.audit.settings import AuditSettings
from planner.composition import require_one_piece
from planner.config import check_horizon
from planner.data import TrajectoryLayout
from planner.device import pick_device
from planner.diffusion import make_schedule, noisy_input
from planner.sampler import Conditions, sample
from planner.training.find import find_run
from planner.unet import TemporalUNet

PLANS, SAMPLING_STEPS = 2, 20
DTYPES = {"float64": torch.float64, "float32": torch.float32, "own": None}


def command(settings: AuditSettings, compute: Compute, output: JsonOutput) -> None:
    """Audits a network and prints what it leaks."""
    result = run_audit(settings, pick_device(compute.device))
    if output.write(result):
        print(readable(result))


def run_audit(settings: AuditSettings, device: torch.device) -> dict[str, Any]:
    """Audits what was asked for and writes ``settings.out``; returns the report as JSON has it.

    Raises:
        UserError: a run or factory that cannot be used.
    """
    if settings.run is not None:
        network: nn.Module
        network, inputs = planner_inputs(
            Path(settings.run),
            length=settings.length,
            levels=settings.levels,
            weights=settings.weights,
            seed=settings.seed,
            device=device,
        )
        if settings.diffusers:
            network = network.to_diffusers().to(device).eval()
        dims: list[int | None] = [-1]
    else:
        network, inputs = _factory_inputs(settings, device)
        dims = list(settings.time_dim or [-1])
        if settings.levels:
            dims.insert(1, None)
    report = audit(
        network,
        inputs,
        time_dims=dims,
        output_time_dim=settings.output_time_dim,
        output=settings.output,
        times=settings.times,
        projections=settings.projections,
        exact=settings.exact,
        dtype=DTYPES[settings.dtype],
        training={"own": None, "train": True, "eval": False}[settings.mode],
        attribution=settings.attribution,
        redraws=settings.redraws,
        seed=settings.seed,
    )
    subject = str(settings.run) if settings.run is not None else settings.factory
    levels = [int(one[1][0]) for one in inputs] if isinstance(inputs, list) else None
    report.settings.update(network=subject, device=str(device), levels=levels, threads=torch.get_num_threads())
    report.cost["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if settings.out is not None:
        write_audit(report, settings.out)
        print(f"page: {settings.out / 'audit.html'}", file=sys.stderr)
    return report.to_dict()


def readable(result: dict[str, Any]) -> str:
    """The summary and the modules that mix, for a terminal."""
    summary = result["summary"]
    lines = [f"verdict: {summary['verdict']}: {summary['reason']}"]
    for name in ("leakage", "jacobian_change"):
        found = summary[name]
        error = "" if found is None or found["standard_error"] is None else f" ± {found['standard_error']:.2g}"
        lines.append(f"{name}: " + ("none is given" if found is None else f"{found['value']:.4g}{error}"))
    left, right = summary["receptive_field"]
    lines += [f"receptive_field: {left} left, {right} right", f"leaking_modules: {summary['leaking_modules']}"]
    cost = summary["cost"]
    seconds = sum(value for name, value in cost.items() if name.startswith("seconds_"))
    lines.append(
        f"cost: {seconds:.1f} s, of which attribution {cost['seconds_attribution']:.1f} s; "
        f"{100 * cost['share_of_jacobian_rows']:.2g} % of the Jacobian's rows; {cost['peak_memory_mb']:.0f} MB at most"
    )
    for movement in summary["finite"]:
        if movement["value"] is not None:
            lines.append(f"movement when all beyond is redrawn, input {movement['input']}: {movement['value']:.4g} sd")
    for row in result["rows"]:
        if row["verdict"] != "local":
            alone, without = (_number(row[key]) for key in ("leakage_alone", "leakage_without"))
            lines.append(
                f"  {row['name'] or 'the network itself'} ({row['type']}) {row['verdict']}"
                f"{' by design' if row['by_design'] else ''}; "
                f"alone {alone}, without it {without}"
            )
    return "\n".join([*lines, *(f"note: {note}" for note in summary["notes"])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


# a planner's run


class Told(nn.Module):
    """A planner's network that is told of a start and a goal, whatever the length of its plans.

    Args:
        network: with ``model.tell_known``.
        layout: which entries start and goal determine.
    """

    def __init__(self, network: TemporalUNet, layout: TrajectoryLayout):
        super().__init__()
        self.network, self.layout = network, layout

    def forward(self, sample_BDT: Tensor, level_B: Tensor) -> Tensor:
        """The prediction (B, D, T)."""
        return self.network(sample_BDT, level_B, self.layout.known(sample_BDT.shape[-1], sample_BDT.device))

    def to_diffusers(self) -> nn.Module:
        """Refused: diffusers' network cannot be told."""
        return self.network.to_diffusers()


def planner_inputs(
    run: Path,
    *,
    length: int | None = None,
    levels: Sequence[int] | None = None,
    weights: str = "ema",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[TemporalUNet | Told, list[tuple[Tensor, ...]]]:
    """The network of a run, and plans of its own at several noise levels.

    One that was trained to be told what is known is told of both ends. The plans need no dataset: the network draws
    them between random starts and goals, and each level's noise is added as in training.

    Args:
        run: the run folder, or the name of a shipped planner.
        length: of the plans; by default the training horizon.
        levels: noise levels; by default those at a quarter, a half and three quarters of the schedule.
        weights: ``ema`` or ``model``.
        seed: of ends and noise.
        device: where to.

    Raises:
        UserError: no run, or a length or level that it cannot have.
    """
    folder = find_run(run)
    config, layout = folder.config(), folder.statistics().layout
    length, train_steps = length or config.data.horizon, config.diffusion.train_steps
    check_horizon(length, config.model.dim_mults, config.model.num_packs)
    require_one_piece(config, length, f"audit of {run}")
    unet = folder.load_network(weights).to(device)
    network = Told(unet, layout) if config.model.tell_known else unet
    levels = levels or sorted({train_steps * part // 4 for part in (1, 2, 3)})
    if not all(0 <= level < train_steps for level in levels):
        raise UserError(f"levels = {list(levels)} must be from 0 to {train_steps - 1}")
    schedule = make_schedule(train_steps, config.diffusion.prediction)
    generator = torch.Generator(device).manual_seed(seed)
    shape = (PLANS, layout.transition_dim, length)
    ends = 2 * torch.rand(shape, generator=generator, device=device) - 1
    known = layout.known(length, device)
    how: dict[str, Any] = {"num_steps": min(SAMPLING_STEPS, train_steps), "temperature": float(train_steps > 1)}
    plans = sample(network, schedule, Conditions(known, ends), kind="ddim", generator=generator, **how)
    inputs: list[tuple[Tensor, ...]] = []
    for level in levels:
        noise = torch.randn(shape, generator=generator, device=device)
        at = torch.full((PLANS,), level, device=device)
        inputs.append((noisy_input(schedule, plans, known, at, noise), at))
    return network, inputs


# anybody's network


def _factory_inputs(settings: AuditSettings, device: torch.device) -> tuple[nn.Module, Any]:
    assert settings.factory is not None
    made = _call_factory(settings.factory)
    given: tuple[Any, ...] = ()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        made, inputs = made
        given = inputs if isinstance(inputs, tuple) else (inputs,)
    if not isinstance(made, nn.Module):
        raise UserError(f"factory = {settings.factory} returned {type(made).__name__}, not a torch.nn.Module")
    if bool(given) == bool(settings.shape):
        raise UserError("give --shape once per input, or a factory that returns (network, inputs), but not both")
    generator = torch.Generator().manual_seed(settings.seed)
    if settings.shape:
        given = tuple(torch.randn(shape, generator=generator) for shape in settings.shape)
    given = tuple(value.to(device) if isinstance(value, Tensor) else value for value in given)
    if not settings.levels:
        return made.to(device), given
    batch = len(given[0])
    inputs = [(given[0], torch.full((batch,), level, device=device), *given[1:]) for level in settings.levels]
    return made.to(device), inputs


def _call_factory(text: str) -> Any:
    """What the function returns.

    Raises:
        UserError: it cannot be imported or called.
    """
    module_name, _, function_name = text.partition(":")
    if not module_name or not function_name:
        raise UserError(f"factory = {text!r} must be package.module:function")
    sys.path.insert(0, str(Path.cwd()))  # a console command does not look there by itself
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        torch.manual_seed(0)
        return function()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"factory = {text} cannot be used: {type(error).__name__}: {reason}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
