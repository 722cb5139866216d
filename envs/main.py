"""The console command ``maze-data``: collect, convert, list and show Minari datasets of mazes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from groundwork.command_line import OneLineParser, run_command
from groundwork.errors import UserError


def main() -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command)


def _command(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    arguments.run_subcommand(arguments)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _parser() -> OneLineParser:
    from envs.maps import map_names

    parser = OneLineParser(prog="maze-data", description="Collect, convert, list and show Minari datasets of mazes.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    collect = commands.add_parser("collect", help="collect a dataset", description="Collect a dataset on MuJoCo.")
    collect.add_argument("map", help=f"{', '.join(map_names())}, or a text file of # and . cells")
    collect.add_argument(
        "--recipe",
        choices=("tasks", "navigate", "stitch"),
        default="navigate",
        help="the demonstrated tasks, a walk between random goals, or goals four cells away",
    )
    collect.add_argument("--steps", type=_whole, default=100_000, help="environment steps of 0.01 s")
    collect.add_argument("--seed", type=_whole, default=0, help="same seed, same data")
    collect.add_argument("--id", help="dataset id (default: mazes/MAP-RECIPE-v0)", default=argparse.SUPPRESS)
    collect.add_argument("--order", choices=("breadth", "depth"), default="breadth", help="the expert's path search")
    collect.add_argument("--overwrite", action="store_true", help="replace a dataset of that id")
    collect.set_defaults(run_subcommand=_collect)

    convert = commands.add_parser(
        "convert", help="make a dataset from an old D4RL file", description="Convert a maze2d HDF5 file of D4RL."
    )
    convert.add_argument("file", type=Path, help="such as maze2d-umaze-sparse-v1.hdf5")
    convert.add_argument("--id", required=True, help="dataset id, such as mazes/umaze-d4rl-v1")
    convert.add_argument("--map", help="the maze (default: from the file's name)")
    convert.add_argument("--overwrite", action="store_true", help="replace a dataset of that id")
    convert.set_defaults(run_subcommand=_convert)

    references = commands.add_parser(
        "references",
        help="measure what a random policy and the expert earn",
        description="Measure the returns that score 0 (a random policy) and 100 (the expert).",
    )
    references.add_argument("maps", nargs="+", metavar="MAP", help=", ".join(map_names()))
    references.add_argument("--episodes", type=_whole, default=500, help="per policy and protocol")
    references.add_argument("--seed", type=_whole, default=0, help="same seed, same returns")
    references.add_argument(
        "--json", metavar="FILE", default="-", help="its other maps are kept; - for standard output"
    )
    references.set_defaults(run_subcommand=_references)

    listing = commands.add_parser("list", help="list the local datasets", description="List the local datasets.")
    listing.set_defaults(run_subcommand=_list)

    show = commands.add_parser("show", help="draw a dataset", description="Draw a dataset.")
    show.add_argument("id", help="dataset id; one on Minari's server is downloaded first")
    show.add_argument("--out", required=True, type=Path, help="picture to write (PNG, PDF or SVG)")
    show.set_defaults(run_subcommand=_show)
    return parser


def _collect(arguments: argparse.Namespace) -> None:
    from envs.collect import collect
    from envs.maps import get_map

    maze = get_map(arguments.map)
    name = getattr(arguments, "id", f"mazes/{maze.name}-{arguments.recipe}-v0")
    dataset = collect(
        maze, arguments.recipe, arguments.steps, arguments.seed, name, arguments.overwrite, arguments.order
    )
    print(f"{name}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")


def _convert(arguments: argparse.Namespace) -> None:
    from envs.convert import convert, map_of_file
    from envs.maps import get_map

    maze = get_map(arguments.map) if arguments.map else map_of_file(arguments.file)
    dataset = convert(arguments.file, arguments.id, maze, arguments.overwrite)
    print(f"{arguments.id}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")


def _references(arguments: argparse.Namespace) -> None:
    from envs.maps import get_map
    from envs.references import measure_references
    from groundwork.files import read_json, write_atomically

    mazes, target = [get_map(name) for name in arguments.maps], Path(arguments.json)
    kept = read_json(target) if arguments.json != "-" and target.is_file() else {}
    if not isinstance(kept, dict):
        raise UserError(f"{target} is damaged (it holds no mapping)")
    measured = {maze.name: measure_references(maze, arguments.episodes, arguments.seed) for maze in mazes}
    if arguments.json == "-":
        print(json.dumps(measured, indent=2))
        return
    write_atomically(target, json.dumps(kept | measured, indent=2) + "\n")


def _list(arguments: argparse.Namespace) -> None:
    import minari

    try:
        datasets = minari.list_local_datasets()
    except ValueError as error:  # a folder that looks like a dataset and has an impossible name
        raise UserError(f"datasets folder: {error}") from error
    if not datasets:
        print(f"no datasets in {minari.storage.get_dataset_path()}", file=sys.stderr)
        return
    print(f"{'id':<32} {'environment':<24} {'episodes':>8} {'steps':>9} {'MB':>7}  recipe")
    for name, facts in datasets.items():
        environment = json.loads(facts.get("env_spec") or "{}").get("id", "-")
        size_mb, recipe = float(facts.get("dataset_size") or 0), facts.get("recipe", "-")
        counts = f"{facts.get('total_episodes', '-'):>8} {facts.get('total_steps', '-'):>9} {size_mb:>7.1f}"
        print(f"{name:<32} {environment:<24} {counts}  {recipe}")


def _show(arguments: argparse.Namespace) -> None:
    from envs.dataset import one_line, open_dataset
    from envs.draw import dataset_figure
    from envs.maps import from_env_spec
    from groundwork.files import save_figure

    if arguments.out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out: {arguments.out}; allowed: a file name ending in .png, .pdf or .svg")
    dataset = open_dataset(arguments.id)
    spec = dataset.env_spec
    maze = from_env_spec(spec) if spec is not None else None
    if maze is None:
        environment = spec.id if spec is not None else "unknown"
        raise UserError(f"id: {arguments.id} is of no maze (environment {environment}); allowed: maze datasets")
    try:
        episodes = [episode.observations["observation"] for episode in dataset.iterate_episodes()]
    except Exception as error:
        raise UserError(f"id: {arguments.id} is damaged ({one_line(error)}); collect or download it again") from error
    save_figure(dataset_figure(maze, episodes, arguments.id), arguments.out, dpi=150)
    print(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
