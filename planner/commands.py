"""What the subcommands of ``planner`` do with their settings."""

from __future__ import annotations

import io
import json
import sys
import webbrowser
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from envs.collect import collect_missing
from envs.draw import Panel, draw_maze, draw_trajectories, rollout_gif
from groundwork.files import save_figure, write_atomically
from groundwork.program import Compute, Jobs, JsonOutput, command_line
from groundwork.yaml_files import to_yaml
from planner.animation import animate as animate_plans
from planner.bench import rates
from planner.comparison import compare as comparison
from planner.comparison import denoising, sampler_ablation
from planner.comparison import sweep as sweeping
from planner.device import pick_device
from planner.execution import execute_one
from planner.measures import MEASURES
from planner.plan import Planner
from planner.rollout import choose_tasks, summarize
from planner.rollout import rollout as roll_out
from planner.settings import (
    AblationOutput,
    AblationSettings,
    AnimatedRuns,
    BenchSettings,
    ComparedRuns,
    DenoiseSettings,
    FromPreset,
    PlanSettings,
    Problem,
    PushSettings,
    RolloutSettings,
    ShowSettings,
    SweepSettings,
    Tasks,
    TrainedRun,
    TrainSettings,
    Weights,
)
from planner.show import describe, write_page
from planner.training.distributed import joined
from planner.training.train import train as train_run


def train(settings: TrainSettings, compute: Compute) -> None:
    """Trains a planner, or continues one; prints its folder."""
    config = settings.config
    path = settings.run or f"runs/{Path(settings.preset).stem}-{config.model.norm}-seed{config.seed}"

    def begin() -> None:
        print(to_yaml(config), end="", file=sys.stderr)
        _collect(settings)

    with joined(pick_device(compute.device)) as ranks:
        ranks.first(begin)
        train_run(config, path, compute.device, log=settings.log, leakage_every=settings.leakage_every)
        ranks.first(lambda: print(Path(path)))


def _collect(settings: FromPreset) -> None:
    """The dataset, where it is wanted and missing."""
    if settings.collect:
        collect_missing(settings.data.dataset)


def _load(trained: TrainedRun, weights: Weights, compute: Compute) -> Planner:
    return Planner.from_run(trained.run, weights=weights.weights, step=weights.checkpoint, device=compute.device)


def plan(trained: TrainedRun, problem: Problem, settings: PlanSettings, weights: Weights, compute: Compute) -> None:
    """Draws plans from a start to a goal."""
    planner = _load(trained, weights, compute)
    if settings.avoid:
        planner.statistics.maze_for("--avoid")
    plans = planner.plan(
        problem.start,
        problem.goal,
        settings.num_plans,
        problem.seed,
        horizon=settings.horizon,
        sampling=settings,
    )
    if settings.out.suffix.lower() == ".json":
        found = {"start": problem.start, "goal": problem.goal, "plans": plans.tolist()}
        write_atomically(settings.out, json.dumps(found))
    else:
        _draw_plans(planner, plans, settings)
    print(settings.out)


def _draw_plans(planner: Planner, plans: np.ndarray, settings: PlanSettings) -> None:
    """A picture of the plans, or an animation of the first one."""
    maze = planner.statistics.maze_for("a picture (--out FILE.json takes the numbers)")
    if settings.out.suffix.lower() == ".png":
        figure = Figure(figsize=(5, 5), layout="constrained")
        axis = figure.subplots()
        draw_maze(axis, maze, settings.avoid)
        draw_trajectories(axis, list(plans[..., :2]), dots=True)
        axis.set_title(f"{planner.config.model.norm}, {plans.shape[1]} points")
        save_figure(figure, settings.out, dpi=150)
    else:
        animation = io.BytesIO()
        rollout_gif(animation, maze, [Panel(execute_one(planner, plans[0]), plans[0, :, :2])], avoid=settings.avoid)
        write_atomically(settings.out, animation.getvalue())


def animate(runs: AnimatedRuns, problem: Problem, compute: Compute) -> None:
    """Draws a plan of each planner and the ball that follows it."""
    animate_plans(runs.runs, problem.start, problem.goal, runs.out, problem.seed, compute.device)
    print(runs.out)


def rollout(
    trained: TrainedRun, settings: RolloutSettings, tasks: Tasks, output: JsonOutput, weights: Weights, compute: Compute
) -> None:
    """Plans and executes episodes; prints what they come to."""
    planner = _load(trained, weights, compute)
    rows = roll_out(planner, choose_tasks(planner.statistics.maze_for("rollout"), tasks.tasks), settings).rows
    summary = summarize(rows)
    config = {"run": trained.run, **asdict(tasks), **asdict(settings)}
    if output.write({"config": config, "rows": rows, "summary": summary}):
        for split, measures in summary.items():
            print(f"{split} ({sum(row['split'] == split for row in rows)} episodes)")
            for name, cell in measures.items():
                print(f"  {name:<15} {MEASURES[name].text(cell)}")


def sweep(settings: SweepSettings, jobs: Jobs, compute: Compute) -> None:
    """Trains planners of several norms and seeds, and compares them."""
    _collect(settings)
    _print_comparison(sweeping.sweep(settings, jobs.run_in(settings.out), compute.device, command_line()))


def compare(runs: ComparedRuns, settings: RolloutSettings, tasks: Tasks, jobs: Jobs, compute: Compute) -> None:
    """Writes table, figures and page of several runs."""
    page = comparison.compare(
        runs.runs,
        runs.out,
        settings,
        multiples=runs.horizons,
        tasks=tasks.tasks,
        device=compute.device,
        command=command_line(),
        executor=jobs.run_in(runs.out),
    )
    _print_comparison(page)


def _print_comparison(page: Path) -> None:
    print((page.parent / "comparison.md").read_text(encoding="utf-8"))
    print(page)


def show(trained: TrainedRun, settings: ShowSettings, compute: Compute) -> None:
    """Says what a run is."""
    if not settings.open:
        print(describe(trained.run, compute.device))
        return
    page = write_page(trained.run, compute.device)
    webbrowser.open(page.resolve().as_uri())
    print(page)


def push(trained: TrainedRun, settings: PushSettings) -> None:
    """Uploads a planner; prints what was uploaded."""
    from planner.push import push as upload  # what nothing else here needs

    names = upload(
        trained.run,
        settings.repo,
        step=settings.checkpoint,
        overwrite=settings.overwrite,
        public=settings.public,
    )
    print("\n".join(f"{settings.repo}/{name}" for name in names))


def samplers(trained: TrainedRun, settings: AblationSettings, output: AblationOutput, compute: Compute) -> None:
    """Rolls out every sampler at every number of steps; prints the table."""
    table = sampler_ablation.ablate(trained.run, settings, output.out, compute.device, command_line())
    print(table.read_text(encoding="utf-8"))


def denoise(settings: DenoiseSettings, compute: Compute) -> None:
    """Measures how well runs denoise windows; prints the tables."""
    table = denoising.denoise(settings.runs, settings, settings.out, compute.device, command_line())
    print(table.read_text(encoding="utf-8"))


def bench(settings: BenchSettings, output: JsonOutput, compute: Compute) -> None:
    """Times training, planning and rolling out."""
    _collect(settings)
    result = rates.bench(
        settings.config,
        compute.device,
        parts=settings.parts,
        repeats=settings.repeats,
        steps=settings.bench_steps,
        warm_level=settings.warm_level,
        episodes=settings.episodes,
        stack=settings.stack,
        norms=settings.norms,
    )
    if output.write(result):
        print(rates.bench_table(result["summary"]))
