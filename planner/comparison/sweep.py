"""One planner per norm, placement, changed setting and seed, trained and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from groundwork.command_options import read_change, said
from groundwork.errors import UserError
from groundwork.jobs import Executor, Job, run_jobs
from groundwork.options import leaves_of, merge, nested, to_dict
from planner.comparison.compare import compare, held_equal
from planner.comparison.kept import rollout_job
from planner.config import Config, from_dict
from planner.data import load_data
from planner.norms import packs_of
from planner.rollout import choose_tasks
from planner.settings import RolloutSettings, SweepSettings
from planner.training.stacked import stacks
from planner.training.train import stack_job


def swept(settings: SweepSettings) -> Iterator[tuple[str, Config]]:
    """Names and settings of the runs, norm by norm; ``none`` has one placement, isolated norms have two packs.

    Raises:
        UserError: a change of no setting, of one that a comparison does not hold equal, or one that stands twice.
    """
    bases = _bases(settings)
    for norm in settings.norms:
        for change, base in bases.items():
            for seed in range(base.seed, base.seed + (settings.seeds or 1)):
                for placement in settings.placements[:1] if norm == "none" else settings.placements:
                    model = replace(base.model, norm=norm, norm_placement=placement, num_packs=packs_of(norm))
                    numbered = f"seed{seed}" if settings.seeds else ""
                    parts = [norm, "" if placement == "pre" else placement, change, numbered]
                    yield "-".join(filter(None, parts)), replace(base, model=model, seed=seed)


def _bases(settings: SweepSettings) -> dict[str, Config]:
    """Change, fit for a file's name, → settings; nothing changed comes first."""
    bases = {"": settings.config}
    for change in settings.vary or ():
        name, value = read_change(Config, change)
        if name == "data.dataset":
            raise UserError(f"vary = {change}: planners that are compared have one dataset")
        base = from_dict(merge(to_dict(settings.config), nested({name: value})))
        known_as = f"{name}={said(leaves_of(base)[name])}".replace("/", "_")
        if known_as in bases or held_equal(base) in map(held_equal, bases.values()):
            raise UserError(f"vary = {change} stands twice, or changes nothing that a comparison holds equal")
        bases[known_as] = base
    return bases


def sweep(settings: SweepSettings, executor: Executor, device: str, command: str) -> Path:
    """Trains what is not trained yet, rolls it out, and compares; see :func:`planner.comparison.compare.compare`.

    Args:
        settings: which planners; the comparison goes to ``settings.out``.
        executor: where trainings and rollouts run.
        device: ``auto``, ``cpu`` or ``cuda``.
        command: what made it, for the page.

    Returns:
        The path of the page.

    Raises:
        UserError: no such tasks; a run failed, told when the others are done; or its folder holds a run of other
            settings.
    """
    choose_tasks(load_data(settings.config.data).statistics.maze_for("sweep"), settings.tasks)
    folder = settings.runs_folder or settings.out
    runs = {folder / name: config for name, config in swept(settings)}
    asked, multiples = RolloutSettings(episodes=settings.episodes), list(dict.fromkeys(settings.horizons))
    jobs: list[Job] = []
    for stack in stacks(runs, settings.stack):
        training = stack_job(stack, device)
        jobs.append(training)
        for run, config in stack.items():
            scaled = [replace(asked, horizon=multiple * config.data.horizon) for multiple in multiples]
            jobs += [rollout_job(run, one, settings.tasks, device, training.name) for one in scaled]
    run_jobs(jobs, executor, "sweep")
    return compare(
        list(runs), settings.out, asked, multiples=multiples, tasks=settings.tasks, device=device, command=command
    )
