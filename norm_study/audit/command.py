"""``norm-study audit``: a planner's run, or anybody's network out of a Python module."""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.errors import UserError
from norm_study.audit.leakage import audit
from norm_study.audit.report import write_audit
from norm_study.options import add_device, add_json
from planner.diffusion import make_schedule
from planner.plan import pick_device
from planner.sampler import Conditions, sample
from planner.training.run import find_run
from planner.unet import TemporalUNet, check_horizon

PLANS, SAMPLING_STEPS = 2, 20
DTYPES = {"float64": torch.float64, "float32": torch.float32, "own": None}


def whole_numbers(text: str) -> tuple[int, ...]:
    """Comma-separated whole numbers."""
    return tuple(int(part) for part in text.split(","))


def time_axis(text: str) -> int | None:
    """A whole number, or ``none``."""
    return None if text == "none" else int(text)


def add_audit(commands: Any) -> None:
    """The subcommand with its options."""
    command = commands.add_parser(
        "audit",
        help="what a network leaks through time, and which module does it",
        description="Measures the receptive field, the leakage beyond it, and each module's part in it.",
    )
    command.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run folder, or a shipped planner's name")
    command.add_argument("--length", type=int, metavar="INT", help="of RUN's plans; by default its training horizon")
    command.add_argument("--weights", choices=("ema", "model"), default="ema", help="of RUN")
    command.add_argument(
        "--diffusers", action="store_true", help="audit RUN's weights in diffusers.UNet1DModel, if it can express them"
    )
    command.add_argument(
        "--levels",
        type=whole_numbers,
        metavar="A,B",
        help="noise levels to audit at, passed as the second argument; of RUN three by default",
    )
    command.add_argument(
        "--factory",
        metavar="PACKAGE.MODULE:FUNCTION",
        help="instead of RUN: a function without arguments that returns the network, or (network, inputs)",
    )
    command.add_argument(
        "--shape",
        type=whole_numbers,
        action="append",
        metavar="A,B",
        help="of an input, drawn from a standard normal; give it once per input",
    )
    command.add_argument(
        "--time-dim",
        type=time_axis,
        action="append",
        metavar="INT",
        help="the time axis of an input, or none; once per input, by default -1 for the first",
    )
    command.add_argument("--output-time-dim", type=int, metavar="INT", help="by default that of the first input")
    command.add_argument("--mode", choices=("own", "train", "eval"), default="own", help="of the network")
    command.add_argument("--dtype", choices=tuple(DTYPES), default="float64", help="that is computed in")
    command.add_argument("--times", type=int, default=32, metavar="INT", help="output times measured")
    command.add_argument("--projections", type=int, default=2, metavar="INT", help="random ones per output time")
    command.add_argument("--exact", action="store_true", help="all channels instead of projections")
    command.add_argument("--redraws", type=int, default=4, metavar="INT", help="inputs more for the receptive field")
    command.add_argument(
        "--attribution", action=argparse.BooleanOptionalAction, default=True, help="measure each module's own leakage"
    )
    command.add_argument("--seed", type=int, default=0, metavar="INT", help="of everything random")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="maps, tables and a page are written there")
    add_device(command)
    add_json(command)


def run_audit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Audits what was asked for and writes ``--out``; returns the report as JSON has it.

    Raises:
        UserError: neither RUN nor ``--factory``, or one that cannot be used.
    """
    if (arguments.run is None) == (arguments.factory is None):
        raise UserError("give either RUN or --factory package.module:function")
    if arguments.seed < 0:
        raise UserError(f"seed = {arguments.seed} must be at least 0")
    device = pick_device(arguments.device)
    if arguments.run is not None:
        if arguments.shape or arguments.time_dim or arguments.output_time_dim is not None:
            raise UserError("--shape, --time-dim and --output-time-dim go with --factory; a RUN knows its own")
        network: nn.Module
        network, inputs = planner_inputs(
            arguments.run,
            length=arguments.length,
            levels=arguments.levels,
            weights=arguments.weights,
            seed=arguments.seed,
            device=device,
        )
        if arguments.diffusers:
            network = network.to_diffusers().to(device).eval()
        dims: list[int | None] = [-1]
    else:
        network, inputs = _factory_inputs(arguments, device)
        dims = list(arguments.time_dim or [-1])
        if arguments.levels:
            dims.insert(1, None)
    report = audit(
        network,
        inputs,
        time_dims=dims,
        output_time_dim=arguments.output_time_dim,
        times=arguments.times,
        projections=arguments.projections,
        exact=arguments.exact,
        dtype=DTYPES[arguments.dtype],
        training={"own": None, "train": True, "eval": False}[arguments.mode],
        attribution=arguments.attribution,
        redraws=arguments.redraws,
        seed=arguments.seed,
    )
    subject = str(arguments.run) if arguments.run is not None else arguments.factory
    levels = [int(one[1][0]) for one in inputs] if isinstance(inputs, list) else None
    report.settings.update(network=subject, device=str(device), levels=levels, threads=torch.get_num_threads())
    report.cost["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.out is not None:
        write_audit(report, arguments.out)
        print(f"page: {arguments.out / 'audit.html'}", file=sys.stderr)
    return report.to_dict()


def readable(result: dict[str, Any]) -> str:
    """The summary and the modules that mix, for a terminal."""
    summary, lines = result["summary"], []
    for name in ("leakage", "norm_borne"):
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
                f"  {row['name'] or 'the network itself'} ({row['type']}) {row['verdict']}; "
                f"alone {alone}, without it {without}"
            )
    return "\n".join([*lines, *(f"note: {note}" for note in summary["notes"])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


# a planner's run


def planner_inputs(
    run: Path,
    *,
    length: int | None = None,
    levels: Sequence[int] | None = None,
    weights: str = "ema",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[TemporalUNet, list[tuple[Tensor, ...]]]:
    """The network of a run, and plans of its own at several noise levels.

    The plans need no dataset: the network draws them between random starts and goals, and each level's noise is
    added as in training.

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
    network = folder.load_network(weights).to(device)
    levels = levels or sorted({train_steps * part // 4 for part in (1, 2, 3)})
    if not all(0 <= level < train_steps for level in levels):
        raise UserError(f"levels = {list(levels)} must be from 0 to {train_steps - 1}")
    schedule = make_schedule(train_steps, config.diffusion.prediction)
    generator = torch.Generator(device).manual_seed(seed)
    shape = (PLANS, layout.transition_dim, length)
    ends = 2 * torch.rand(shape, generator=generator, device=device) - 1
    known = layout.known(length, device)
    steps = min(SAMPLING_STEPS, train_steps)
    plans = sample(network, schedule, Conditions(known, ends), kind="ddim", num_steps=steps, generator=generator)
    inputs: list[tuple[Tensor, ...]] = []
    for level in levels:
        noise = torch.randn(shape, generator=generator, device=device)
        at = torch.full((PLANS,), level, device=device)
        noisy = schedule.add_noise(plans, noise, at)
        inputs.append((torch.where(known, plans, noisy), at))
    return network, inputs


# anybody's network


def _factory_inputs(arguments: argparse.Namespace, device: torch.device) -> tuple[nn.Module, Any]:
    if arguments.length is not None or arguments.diffusers:
        raise UserError("--length and --diffusers go with RUN; a factory's inputs get their length from --shape")
    made = _call_factory(arguments.factory)
    given: tuple[Any, ...] = ()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        made, inputs = made
        given = inputs if isinstance(inputs, tuple) else (inputs,)
    if not isinstance(made, nn.Module):
        raise UserError(f"factory = {arguments.factory} returned {type(made).__name__}, not a torch.nn.Module")
    if bool(given) == bool(arguments.shape):
        raise UserError("give --shape once per input, or a factory that returns (network, inputs), but not both")
    generator = torch.Generator().manual_seed(arguments.seed)
    if arguments.shape:
        for shape in arguments.shape:
            if min(shape) < 1:
                raise UserError(f"shape = {','.join(map(str, shape))} must have sizes of at least 1")
        given = tuple(torch.randn(shape, generator=generator) for shape in arguments.shape)
    given = tuple(value.to(device) if isinstance(value, Tensor) else value for value in given)
    if not arguments.levels:
        return made.to(device), given
    batch = len(given[0])
    inputs = [(given[0], torch.full((batch,), level, device=device), *given[1:]) for level in arguments.levels]
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
