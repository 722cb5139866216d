"""What the subcommands of ``planner`` take: every option with its default and unit."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from groundwork.command_line import OneLineParser
from groundwork.options import add_options
from planner.config import Config, preset_names
from planner.sampling import SAMPLERS


def make_parser() -> OneLineParser:
    """All subcommands with their options; the parsed ``subcommand`` is the chosen one's name."""
    parser = OneLineParser(prog="planner", description="Train diffusion planners, plan, roll out, compare norms.")
    commands = parser.add_subparsers(dest="subcommand", title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a planner, or continue one", description="Train a planner.")
    train.add_argument("preset", help=f"a YAML file or a shipped name: {', '.join(preset_names())}")
    train.add_argument("--run", help="run folder; the same command again continues it", default=argparse.SUPPRESS)
    _add_device(train)
    add_options(train, Config, "settings (override the preset's)")

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

    rollout = commands.add_parser("rollout", help="plan and execute episodes", description="Plan and execute.")
    rollout.add_argument("run", help="run folder, or the name of a shipped planner")
    _add_rollout(rollout)
    rollout.add_argument("--horizon", type=_positive, help="planned points (default: the training's)")
    rollout.add_argument("--json", metavar="FILE", help="write config, rows and summary; - for standard output")
    _add_weights(rollout)
    _add_device(rollout)

    compare = commands.add_parser("compare", help="table and figures of several runs", description="Compare runs.")
    compare.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or names of shipped planners, on one maze"
    )
    compare.add_argument("--out", required=True, help="folder for report.html, comparison.json and figures")
    compare.add_argument("--multiples", type=_integers, default=(1, 2), help="multiples of the training horizon")
    _add_rollout(compare)
    _add_device(compare)

    samplers = commands.add_parser(
        "samplers",
        help="how few network evaluations a planner needs",
        description="Roll out every sampler at every number of steps on the same episodes, and time a plan.",
    )
    samplers.add_argument("run", help="run folder, or the name of a shipped planner")
    samplers.add_argument("--out", required=True, type=Path, help="folder for table, figure and rows")
    samplers.add_argument("--samplers", type=_words, default=tuple(SAMPLERS), help="separated by commas")
    samplers.add_argument("--steps", type=_integers, default=(1, 2, 4, 8, 16, 32, 64), help="network evaluations")
    samplers.add_argument("--tasks", type=_words, default=("multi_task",), help="splits, families or names")
    samplers.add_argument("--episodes", type=_positive, default=1000, help="per task")
    samplers.add_argument("--seed", type=int, default=0, help="of starts, goals and plans")
    _add_device(samplers)

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
    add_options(bench, Config, "settings (override the preset's)")
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
    parser.add_argument("--sampler", choices=tuple(SAMPLERS), help="default: the run's")
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
