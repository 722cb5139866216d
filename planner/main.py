"""The console command ``planner``: train, plan, rollout, compare, samplers, bench."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from envs.command_line import OneLineParser, UserError, run_command

if TYPE_CHECKING:
    from planner.plan import Planner
    from planner.rollout import RolloutSettings


def main() -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command)


def _command(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    arguments.run_subcommand(arguments)


def _parser() -> OneLineParser:
    from planner.config import add_options, preset_names

    parser = OneLineParser(prog="planner", description="Train diffusion planners, plan, roll out, compare norms.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a planner, or continue one", description="Train a planner.")
    train.add_argument("preset", help=f"a YAML file or a shipped name: {', '.join(preset_names())}")
    train.add_argument("--run", help="run folder; the same command again continues it", default=argparse.SUPPRESS)
    _add_device(train)
    add_options(train)
    train.set_defaults(run_subcommand=_train)

    plan = commands.add_parser("plan", help="draw plans from a start to a goal", description="Draw plans.")
    plan.add_argument("run", help="run folder, or the name of a shipped planner")
    plan.add_argument("--start", required=True, type=_point, help="x,y or x,y,vx,vy in metres and metres per second")
    plan.add_argument("--goal", required=True, type=_point, help="x,y in metres")
    plan.add_argument("--out", required=True, type=Path, help="PNG (plans), GIF (one plan executed) or JSON (numbers)")
    plan.add_argument("--num-plans", type=_positive, default=6, help="plans to draw")
    plan.add_argument("--seed", type=int, default=0, help="of the plans")
    plan.add_argument("--horizon", type=_positive, help="planned points (default: the training's)")
    _add_sampling(plan)
    _add_weights(plan)
    _add_device(plan)
    plan.set_defaults(run_subcommand=_plan)

    rollout = commands.add_parser("rollout", help="plan and execute episodes", description="Plan and execute.")
    rollout.add_argument("run", help="run folder, or the name of a shipped planner")
    _add_rollout(rollout)
    rollout.add_argument("--horizon", type=_positive, help="planned points (default: the training's)")
    rollout.add_argument("--json", metavar="FILE", help="write config, rows and summary; - for standard output")
    _add_weights(rollout)
    _add_device(rollout)
    rollout.set_defaults(run_subcommand=_rollout)

    compare = commands.add_parser("compare", help="table and figures of several runs", description="Compare runs.")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders on one maze")
    compare.add_argument("--out", required=True, help="folder for report.html, comparison.json and figures")
    compare.add_argument("--multiples", type=_integers, default=(1, 2), help="multiples of the training horizon")
    _add_rollout(compare)
    _add_device(compare)
    compare.set_defaults(run_subcommand=_compare)

    samplers = commands.add_parser(
        "samplers",
        help="how few network evaluations a planner needs",
        description="Roll out every sampler at every number of steps on the same episodes, and time a plan.",
    )
    samplers.add_argument("run", help="run folder")
    samplers.add_argument("--out", required=True, type=Path, help="folder for table, figure and rows")
    samplers.add_argument("--samplers", type=_words, default=("ddpm", "ddim", "dpm"), help="separated by commas")
    samplers.add_argument("--steps", type=_integers, default=(1, 2, 4, 8, 16, 32, 64), help="network evaluations")
    samplers.add_argument("--tasks", type=_words, default=("multi_task",), help="splits, families or names")
    samplers.add_argument("--episodes", type=_positive, default=1000, help="per task")
    samplers.add_argument("--seed", type=int, default=0, help="of starts, goals and plans")
    _add_device(samplers)
    samplers.set_defaults(run_subcommand=_samplers)

    bench = commands.add_parser(
        "bench",
        help="time training, planning and rolling out",
        description="Time training, planning and rolling out beside a plain loop of diffusers' parts.",
    )
    bench.add_argument("preset", help="a YAML file or a shipped name")
    bench.add_argument(
        "--parts",
        type=_words,
        default=("training", "planning", "rollout"),
        help="what to time: training, planning, rollout, separated by commas",
    )
    bench.add_argument("--repeats", type=_positive, default=5, help="the median of so many is reported")
    bench.add_argument("--bench-steps", type=_positive, default=50, help="training steps per repeat")
    bench.add_argument("--warm-level", type=_number, default=0.25, help="of warm-started replanning")
    bench.add_argument("--episodes", type=_positive, default=100, help="episodes to roll out")
    bench.add_argument("--json", metavar="FILE", help="write the numbers; - for standard output")
    _add_device(bench)
    add_options(bench)
    bench.set_defaults(run_subcommand=_bench)
    return parser


def _point(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _whole(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _region(text: str) -> tuple[float, float, float]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,radius")
    x, y, radius = map(_number, parts)
    return x, y, radius


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="moving average or raw weights")
    parser.add_argument("--checkpoint", type=_positive, help="step of a kept checkpoint (default: the last)")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sampler", choices=("ddpm", "ddim", "dpm"), help="default: the run's")
    parser.add_argument("--sampling-steps", type=_positive, help="network evaluations per plan (default: the run's)")
    parser.add_argument(
        "--best-of", "--best_of", type=_positive, default=1, metavar="N", help="draw N per plan, keep the best"
    )
    parser.add_argument("--avoid", type=_region, metavar="X,Y,RADIUS", help="a region to stay out of, in metres")
    parser.add_argument(
        "--avoid-scale", "--avoid_scale", type=_number, default=4.0, help="how hard each step pushes plans out of it"
    )


def _add_rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tasks",
        type=_words,
        default=("demonstrated", "held_out"),
        help="splits, families or names, separated by commas",
    )
    parser.add_argument("--episodes", type=_positive, default=10, help="episodes per task")
    parser.add_argument("--seed", type=int, default=0, help="of starts, goals and plans")
    parser.add_argument(
        "--replan-every",
        type=_whole,
        default=0,
        help="environment steps after which to plan anew; 0: plan once",
    )
    parser.add_argument(
        "--replan-warm",
        "--replan_warm",
        type=_number,
        default=0.0,
        metavar="SHARE",
        help="replan from the last plan, noised again to this share of the noise levels; 0: from pure noise",
    )
    _add_sampling(parser)


def _settings(arguments: argparse.Namespace) -> RolloutSettings:
    from planner.rollout import RolloutSettings

    names = {field.name for field in dataclasses.fields(RolloutSettings)}
    return RolloutSettings(**{name: value for name, value in vars(arguments).items() if name in names})


def _write_json(target: str | None, result: dict[str, Any]) -> None:
    if target == "-":
        print(json.dumps(result))
    elif target:
        from envs.files import write_aside

        write_aside(Path(target), json.dumps(result))


def _train(arguments: argparse.Namespace) -> None:
    from planner.config import from_dict, load_preset, merge, parse_overrides, to_yaml
    from planner.train import train

    config = from_dict(merge(load_preset(arguments.preset), parse_overrides(arguments)))
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
    from planner.guidance import AvoidRegion

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
        sampler=arguments.sampler,
        sampling_steps=arguments.sampling_steps,
        best_of=arguments.best_of,
        guide=AvoidRegion(*arguments.avoid) if arguments.avoid else None,
        guide_scale=arguments.avoid_scale,
    )
    if kind == ".json":
        _write_json(str(arguments.out), {"start": arguments.start, "goal": arguments.goal, "plans": plans.tolist()})
    elif maze is None:
        raise UserError(f"a picture needs a maze; {planner.statistics.environment} is none: take --out FILE.json")
    elif kind == ".png":
        from matplotlib.figure import Figure

        from envs.draw import draw_maze, draw_trajectories
        from envs.files import save_figure

        figure = Figure(figsize=(5, 5), layout="constrained")
        axis = figure.subplots()
        draw_maze(axis, maze, arguments.avoid)
        draw_trajectories(axis, list(plans[..., :2]), dots=True)
        axis.set_title(f"{planner.config.model.norm}, {plans.shape[1]} points")
        save_figure(figure, arguments.out, dpi=150)
    else:
        from envs.draw import rollout_gif
        from envs.files import write_aside
        from planner.rollout import execute_one

        animation = io.BytesIO()
        rollout_gif(animation, maze, execute_one(planner, plans[0]), plans[0, :, :2], avoid=arguments.avoid)
        write_aside(arguments.out, animation.getvalue())
    print(arguments.out)


def _rollout(arguments: argparse.Namespace) -> None:
    from planner.compare import format_cell
    from planner.rollout import choose_tasks, rollout, summarize

    planner = _load(arguments)
    if planner.statistics.maze is None:
        raise UserError(f"rollout needs a maze; {planner.statistics.environment} is none")
    settings = _settings(arguments)
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
    from planner.compare import compare

    page = compare(
        arguments.runs,
        arguments.out,
        _settings(arguments),
        multiples=arguments.multiples,
        tasks=arguments.tasks,
        device=arguments.device,
        command=shlex.join(["planner", *sys.argv[1:]]),
    )
    print((page.parent / "comparison.md").read_text(encoding="utf-8"))
    print(page)


def _samplers(arguments: argparse.Namespace) -> None:
    from planner.samplers import AblationSettings, ablate

    settings = AblationSettings(
        arguments.samplers, arguments.steps, arguments.tasks, arguments.episodes, arguments.seed
    )
    command = shlex.join(["planner", *sys.argv[1:]])
    table = ablate(arguments.run, settings, arguments.out, arguments.device, command)
    print(table.read_text(encoding="utf-8"))


def _bench(arguments: argparse.Namespace) -> None:
    from planner.bench import Part, bench, bench_table
    from planner.config import from_dict, load_preset, merge, parse_overrides

    unknown = set(arguments.parts) - set(get_args(Part))
    if unknown:
        raise UserError(f"--parts {','.join(sorted(unknown))}; allowed: {', '.join(get_args(Part))}")
    config = from_dict(merge(load_preset(arguments.preset), parse_overrides(arguments)))
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
