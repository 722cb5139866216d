"""What the subcommands of ``maze-data`` do with their settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import minari

from envs.collect import collect
from envs.convert import convert, map_of_file
from envs.convert_ogbench import convert_npz, map_of_npz
from envs.dataset import one_line, open_dataset
from envs.maps import from_env_spec, get_map
from envs.references import measure_references
from envs.settings import CollectSettings, ConvertSettings, PushSettings, ReferenceSettings, ShowSettings
from groundwork.errors import UserError
from groundwork.files import read_json, write_atomically


def collect_dataset(settings: CollectSettings) -> None:
    """Collects a dataset on MuJoCo."""
    maze = get_map(settings.map)
    name = settings.id or f"mazes/{maze.name}-{settings.recipe}-v0"
    dataset = collect(
        maze, settings.recipe, settings.all_steps, settings.seed, name, settings.overwrite, settings.order
    )
    print(f"{name}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")


def convert_file(settings: ConvertSettings) -> None:
    """Makes a dataset from an old file of D4RL's, or from one of OGBench's."""
    ogbench = settings.file.suffix.lower() == ".npz"
    named, convert_it = (map_of_npz, convert_npz) if ogbench else (map_of_file, convert)
    maze = get_map(settings.map) if settings.map else named(settings.file)
    dataset = convert_it(settings.file, settings.id, maze, settings.overwrite)
    print(f"{settings.id}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")


def references(settings: ReferenceSettings) -> None:
    """Measures what a random policy and the expert earn."""
    mazes, target = [get_map(name) for name in settings.maps], Path(settings.json)
    kept = read_json(target) if settings.json != "-" and target.is_file() else {}
    if not isinstance(kept, dict):
        raise UserError(f"{target} is damaged (it holds no mapping)")
    measured = {maze.name: measure_references(maze, settings.episodes, settings.seed) for maze in mazes}
    if settings.json == "-":
        print(json.dumps(measured, indent=2))
        return
    write_atomically(target, json.dumps(kept | measured, indent=2) + "\n")


def list_datasets() -> None:
    """Prints a table of the local datasets."""
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


def push_dataset(settings: PushSettings) -> None:
    """Uploads a dataset and prints where it is."""
    from envs.push import push

    push(settings.id, settings.to)
    print(f"{settings.to}/{settings.id}")


def show_dataset(settings: ShowSettings) -> None:
    """Draws a dataset's episodes."""
    from envs.draw import dataset_figure  # matplotlib, which nothing else here needs
    from groundwork.files import save_figure

    dataset = open_dataset(settings.id)
    spec = dataset.env_spec
    maze = from_env_spec(spec) if spec is not None else None
    if maze is None:
        environment = spec.id if spec is not None else "unknown"
        raise UserError(f"id: {settings.id} is of no maze (environment {environment}); allowed: maze datasets")
    try:
        episodes = [episode.observations["observation"] for episode in dataset.iterate_episodes()]
    except Exception as error:
        raise UserError(f"id: {settings.id} is damaged ({one_line(error)}); collect or download it again") from error
    save_figure(dataset_figure(maze, episodes, settings.id), settings.out, dpi=150)
    print(settings.out)
