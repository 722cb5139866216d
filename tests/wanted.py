"""What some tests want to find: OGBench, a file of D4RL's, a finished grid, small parts of the paper's reproduction."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from envs.shipped import OGBENCH_TASKS, PICTURES
from norm_study.stitching.cells import FactorRun
from norm_study.stitching.grid import Budget, answers_in
from norm_study.stitching.settings import StitchSettings
from planner.config import Config

needs_ogbench = pytest.mark.skipif(find_spec("ogbench") is None, reason="the extra ogbench is not installed")
OGBENCH_MAPS = [pytest.param(name, marks=needs_ogbench) for name in OGBENCH_TASKS]
POINT_MAZE_MAPS = [name for name in PICTURES if name not in OGBENCH_TASKS]

FIRST, SECOND = (1.0, 3.0), (3.0, 3.0)
"""Goals in D4RL's axes: the ends of the U's right side, (row, column)."""

TINY_SIZES = "{length: 24, depth: 3, kernel: 3, width: 4, batch: 4, steps: 2, predictions: 20}"
TINY_NONE = TINY_SIZES.replace("}", ", norm: none}")
TINY_PARTS = f"""
- {{name: localize-none, experiment: localize, budgets: [quick, full], seeds: [0, 1], sizes: {TINY_NONE}}}
- {{name: localize-instance, experiment: localize, budgets: [quick, full], seeds: [0, 1], sizes: {TINY_SIZES}}}
- {{name: multihop, experiment: multihop, budgets: [full], seeds: [0, 1], sizes: {TINY_SIZES}}}
"""


def d4rl_stream() -> dict[str, np.ndarray]:
    """Two passages in one go, each to its goal, then a reset and a third that a timeout ends; D4RL's axes."""
    down = np.stack([np.linspace(0.8, 2.8, 81), np.full(81, 2.8)], axis=1)
    along = np.stack([np.full(81, 0.8), np.linspace(0.8, 2.8, 81)], axis=1)
    positions = np.concatenate([along, down[1:], along[:40]])
    goals = np.concatenate([np.tile(FIRST, (81, 1)), np.tile(SECOND, (80, 1)), np.tile(FIRST, (40, 1))])
    count = len(positions)
    velocities = np.gradient(positions, 0.01, axis=0)
    observations = np.concatenate([positions, velocities], axis=1)
    observations[81] = observations[80]  # the generator's stale row behind a goal
    timeouts = np.zeros(count, bool)
    timeouts[[160, count - 1]] = True
    return {
        "observations": observations.astype(np.float32),
        "actions": np.tile(np.float32([0.5, -0.25]), (count, 1)),
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": np.zeros(count, bool),
        "timeouts": timeouts,
        "infos/goal": goals.astype(np.float32),
        "infos/qpos": positions.astype(np.float32),
        "infos/qvel": velocities.astype(np.float32),
    }


def write_d4rl(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """An HDF5 file of D4RL's layout."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return path


def write_ogbench(path: Path) -> Path:
    """A file of the layout of OGBench's pointmaze: two passages from the first cell of medium to the one beside it."""
    positions = np.tile(np.stack([np.linspace(0.0, 4.0, 21), np.zeros(21)], axis=1), (2, 1))
    terminals = np.arange(42) % 21 == 20
    actions = np.tile(np.float32([1.0, 0.0]), (42, 1))
    np.savez(path, observations=positions.astype(np.float32), actions=actions, terminals=terminals)
    return path


def write_grid(study: Path, runs: Path, finished: Path, multiple: int) -> None:
    """A stitching study of which one run is there: ``finished``, under the name of a cell; one of two plans valid."""
    run = FactorRun("group", "zeros", "half", 0)
    runs.mkdir(parents=True)
    (runs / run.name).symlink_to(finished)
    rows = [
        {"split": split, "multiple": multiple, "countable": countable, "plan_valid": valid}
        for split, countable, valid in (
            ("held_out", True, 1.0),
            ("held_out", True, 0.0),
            ("held_out", False, 1.0),
            ("demonstrated", True, 1.0),
        )
    ]
    question = Budget(Config(), StitchSettings()).question(run)
    answers_in(study).keep(question, {"rows": rows, "facts": [{"steps": Config.steps}]})
