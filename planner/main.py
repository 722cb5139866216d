"""The console command ``planner``: what train, plan, rollout, compare, samplers and bench do with their options."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from groundwork.command_line import run_command
from groundwork.errors import UserError
from planner.sampling import Sampling

if TYPE_CHECKING:
    from planner.plan import Planner

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command, argv)


def _command(argv: Sequence[str] | None) -> None:
    from planner.options import make_parser

    run = {
        "train": _train,
        "plan": _plan,
        "rollout": _rollout,
        "compare": _compare,
        "samplers": _samplers,
        "bench": _bench,
    }
    arguments = make_parser().parse_args(argv)
    run[arguments.subcommand](arguments)


def _from_options(kind: type[T], arguments: argparse.Namespace) -> T:
    """The settings of that kind, each from the option of its name where there is one."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(arguments).items() if name in names})


def _write_json(target: str | None, result: dict[str, Any]) -> None:
    if target == "-":
        print(json.dumps(result))
    elif target:
        from groundwork.files import write_atomically

        write_atomically(Path(target), json.dumps(result))


def _train(arguments: argparse.Namespace) -> None:
    from groundwork.options import read_options
    from planner.config import Config, from_dict, load_preset, merge, to_yaml
    from planner.training.train import train

    config = from_dict(merge(load_preset(arguments.preset), read_options(arguments, Config)))
    default = f"runs/{Path(arguments.preset).stem}-{config.model.norm}-seed{config.seed}"
    run = getattr(arguments, "run", default)
    print(to_yaml(config), end="", file=sys.stderr)
    folder = train(config, run, arguments.device)
    print(folder.path)


def _load(arguments: argparse.Namespace) -> Planner:
    from planner.plan import Planner

    return Planner.from_run(
        arguments.run, weights=arguments.weights, step=arguments.checkpoint, device=arguments.device
    )


def _plan(arguments: argparse.Namespace) -> None:
    kind = arguments.out.suffix.lower()
    if kind not in (".png", ".gif", ".json"):
        raise UserError(f"--out {arguments.out} must end in .png, .gif or .json")
    planner = _load(arguments)
    maze = planner.statistics.maze
    if arguments.avoid and maze is None:
        raise UserError(f"--avoid needs a maze; {planner.statistics.environment} is none")
    plans = planner.plan(
        arguments.start,
        arguments.goal,
        arguments.num_plans,
        arguments.seed,
        horizon=arguments.horizon,
        sampling=_from_options(Sampling, arguments),
    )
    if kind == ".json":
        _write_json(str(arguments.out), {"start": arguments.start, "goal": arguments.goal, "plans": plans.tolist()})
    elif maze is None:
        raise UserError(f"a picture needs a maze; {planner.statistics.environment} is none: take --out FILE.json")
    elif kind == ".png":
        from matplotlib.figure import Figure

        from envs.draw import draw_maze, draw_trajectories
        from groundwork.files import save_figure

        figure = Figure(figsize=(5, 5), layout="constrained")
        axis = figure.subplots()
        draw_maze(axis, maze, arguments.avoid)
        draw_trajectories(axis, list(plans[..., :2]), dots=True)
        axis.set_title(f"{planner.config.model.norm}, {plans.shape[1]} points")
        save_figure(figure, arguments.out, dpi=150)
    else:
        from envs.draw import rollout_gif
        from groundwork.files import write_atomically
        from planner.execution import execute_one

        animation = io.BytesIO()
        rollout_gif(animation, maze, execute_one(planner, plans[0]), plans[0, :, :2], avoid=arguments.avoid)
        write_atomically(arguments.out, animation.getvalue())
    print(arguments.out)


def _rollout(arguments: argparse.Namespace) -> None:
    from planner.comparison.compare import format_cell
    from planner.rollout import RolloutSettings, choose_tasks, rollout, summarize

    planner = _load(arguments)
    if planner.statistics.maze is None:
        raise UserError(f"rollout needs a maze; {planner.statistics.environment} is none")
    settings = _from_options(RolloutSettings, arguments)
    rows = rollout(planner, choose_tasks(planner.statistics.maze, arguments.tasks), settings).rows
    summary = summarize(rows)
    config = {"run": arguments.run, "tasks": arguments.tasks, **dataclasses.asdict(settings)}
    _write_json(arguments.json, {"config": config, "rows": rows, "summary": summary})
    if arguments.json != "-":
        for split, measures in summary.items():
            print(f"{split} ({measures['success']['n']} episodes)")
            for name, cell in measures.items():
                print(f"  {name:<15} {format_cell(cell, name)}")


def _compare(arguments: argparse.Namespace) -> None:
    from planner.comparison.compare import compare
    from planner.rollout import RolloutSettings

    page = compare(
        arguments.runs,
        arguments.out,
        _from_options(RolloutSettings, arguments),
        multiples=arguments.multiples,
        tasks=arguments.tasks,
        device=arguments.device,
        command=shlex.join(["planner", *sys.argv[1:]]),
    )
    print((page.parent / "comparison.md").read_text(encoding="utf-8"))
    print(page)


def _samplers(arguments: argparse.Namespace) -> None:
    from planner.comparison.sampler_ablation import AblationSettings, ablate

    settings = _from_options(AblationSettings, arguments)
    command = shlex.join(["planner", *sys.argv[1:]])
    table = ablate(arguments.run, settings, arguments.out, arguments.device, command)
    print(table.read_text(encoding="utf-8"))


def _bench(arguments: argparse.Namespace) -> None:
    from groundwork.options import read_options
    from planner.bench.rates import Part, bench, bench_table
    from planner.config import Config, from_dict, load_preset, merge

    unknown = set(arguments.parts) - set(get_args(Part))
    if unknown:
        raise UserError(f"--parts {','.join(sorted(unknown))}; allowed: {', '.join(get_args(Part))}")
    config = from_dict(merge(load_preset(arguments.preset), read_options(arguments, Config)))
    result = bench(
        config,
        arguments.device,
        parts=arguments.parts,
        repeats=arguments.repeats,
        steps=arguments.bench_steps,
        warm_level=arguments.warm_level,
        episodes=arguments.episodes,
    )
    _write_json(arguments.json, result)
    if arguments.json != "-":
        print(bench_table(result["summary"]))


if __name__ == "__main__":
    sys.exit(main())
