"""What a training shows while it runs: rows of metrics, TensorBoard, figures of plans, short rollouts."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams

from envs.draw import Panel, figure_to_array, rollout_gif
from envs.maze_map import MazeMap
from planner.comparison.figures import example_tasks, family_plans, plans_figure
from planner.config import Config, to_dict
from planner.data import PlannerData
from planner.execution import execute_one
from planner.measures import MEASURES, plan_measures
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout, summarize
from planner.training.run import RunFolder
from planner.training.trackers import TrackerName, open_tracker

WATCHED = ("plan_valid", "longest_step", "success")
"""Of a short rollout of demonstrated tasks; what tells about plans alone also of held-out tasks."""
HELD_OUT = tuple(name for name in WATCHED if MEASURES[name].of == "plan")
FINAL_METRICS = ("loss", "validation_loss", "rollout_success", "rollout_plan_valid", "held_out_plan_valid")


def _charts(prefix: str, names: Sequence[str]) -> dict[str, str]:
    return {MEASURES[name].axis.replace("\n", " "): f"evaluation/{prefix}_{name}" for name in names}


# TensorBoard's CUSTOM SCALARS page: category → chart → scalar, one line per run.
LAYOUT = {
    "training": {
        "loss": "train/loss",
        "validation loss": "evaluation/validation_loss",
        "gradient norm": "train/gradient_norm",
    },
    "demonstrated tasks": _charts("rollout", WATCHED),
    "held-out tasks": _charts("held_out", HELD_OUT),
}
GIF_FRAMES, GIF_INCHES = 20, 2.4


class Monitor:
    """Writes ``metrics.jsonl`` and TensorBoard events of one run.

    Args:
        folder: the run.
        config: its settings.
        data: its data, for the maze.
        purge_step: events from this step on, of an earlier process, are hidden in TensorBoard.
        log: ``tensorboard``, which alone shows figures and animations, and the trackers that get its scalars, too.

    Attributes:
        writer: of TensorBoard's events; ``None`` where they are not asked for.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        data: PlannerData,
        purge_step: int,
        log: Sequence[TrackerName] = ("tensorboard",),
    ):
        self._folder, self._config, self._data = folder, config, data
        self._trackers = [
            open_tracker(name, folder.path, config) for name in dict.fromkeys(log) if name != "tensorboard"
        ]
        self.writer = SummaryWriter(str(folder.path), purge_step=purge_step) if "tensorboard" in log else None
        self._maze = data.statistics.maze
        self._tasks = choose_tasks(self._maze, ["demonstrated"]) if self._maze else []
        charts = {
            category: {title: ["Multiline", [f"^{tag}$"]] for title, tag in lines.items()}
            for category, lines in LAYOUT.items()
        }
        self._add(custom_scalars(charts))

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row and shows its numbers as scalars under ``train/`` and ``evaluation/``."""
        self._folder.append_metrics(row)
        values = {}
        for name, value in row.items():
            if name != "step" and value is not None:
                group = "evaluation" if name.startswith(("validation", "rollout", "held_out")) else "train"
                values[f"{group}/{name}"] = value
        self._scalars(values, row["step"])

    def _scalars(self, values: Mapping[str, float], step: int, *, final: bool = False) -> None:
        for name, value in values.items():
            if self.writer is not None:
                self.writer.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.scalars(values, step, final=final)

    def evaluate(self, step: int, planner: Planner, validation_loss: float | None) -> dict[str, float | None]:
        """Validation loss and, in a maze, a short rollout of the demonstrated tasks and plans for every family.

        The plans are shown as a figure; those for held-out tasks are measured, and one plan of each split is executed
        and shown as a GIF.
        """
        row: dict[str, float | None] = {"validation_loss": validation_loss}
        if self._maze is not None:
            result = rollout(planner, self._tasks, RolloutSettings(episodes=self._config.evaluate_episodes))
            summary = summarize(result.rows)["demonstrated"]
            row |= {f"rollout_{name}": summary[name]["mean"] for name in WATCHED}
            plans_FNHD = family_plans(planner)
            row |= self._held_out(self._maze, planner, plans_FNHD)
            if self.writer is not None:
                figure = figure_to_array(plans_figure(self._maze, {f"step {step}": plans_FNHD}))
                self.writer.add_image("plans", figure, step, dataformats="HWC")
                self._show_rollouts(step, self._maze, planner, plans_FNHD)
        return row

    @staticmethod
    def _held_out(maze: MazeMap, planner: Planner, plans_FNHD: np.ndarray) -> dict[str, float | None]:
        held_out = [index for index, task in enumerate(example_tasks(maze)) if task.split == "held_out"]
        if not held_out:
            return {}
        positions = np.concatenate(plans_FNHD[held_out, ..., :2])
        measures = plan_measures(positions, maze, planner.statistics.longest_step_m)
        return {f"held_out_{name}": float(measures[name].mean()) for name in HELD_OUT}

    def _show_rollouts(self, step: int, maze: MazeMap, planner: Planner, plans_FNHD: np.ndarray) -> None:
        """Executes the first plan for the first family of each split."""
        first = {task.split: index for index, task in reversed(list(enumerate(example_tasks(maze))))}
        for split, index in first.items():
            plan = plans_FNHD[index, 0]
            positions = execute_one(planner, plan)
            self._add(gif_summary(f"rollout/{split}", maze, positions, plan[:, :2]), step)

    def _add(self, summary: Summary, step: int | None = None) -> None:
        if self.writer is not None:
            self.writer._get_file_writer().add_summary(summary, step)

    def finish(self, metrics: list[dict[str, Any]]) -> None:
        """Writes the settings with the final metrics for TensorBoard's HPARAMS page, into the run's own events."""
        final = {name: row[name] for row in metrics for name in FINAL_METRICS if row.get(name) is not None}
        flat = {
            f"{room}.{key}" if room else key: value
            for room, values in _rooms(to_dict(self._config)).items()
            for key, value in values.items()
        }
        shown = {key: value if isinstance(value, int | float | str) else str(value) for key, value in flat.items()}
        for summary in hparams(shown, {f"final/{name}": value for name, value in final.items()}):
            self._add(summary)
        self._scalars({f"final/{name}": value for name, value in final.items()}, self._config.steps, final=True)

    def close(self) -> None:
        """Flushes and closes the event file, and the trackers' runs."""
        if self.writer is not None:
            self.writer.close()
        for tracker in self._trackers:
            tracker.close()


def gif_summary(tag: str, maze: MazeMap, positions: np.ndarray, plan: np.ndarray) -> Summary:
    """A ball's way as an image summary that holds a GIF: TensorBoard hands it to the browser as it is, which plays it.

    Args:
        tag: its name in TensorBoard.
        maze: the walls.
        positions: (L, 2) metres, one per environment step; about ``GIF_FRAMES`` of them are drawn.
        plan: (H, 2) planned points, drawn behind.
    """
    file = io.BytesIO()
    every_s = math.ceil(len(positions) / GIF_FRAMES) * maze.world.dt_s
    rollout_gif(file, maze, [Panel(positions, plan)], fps=8, every_s=every_s, inches=GIF_INCHES)
    width, height = Image.open(file).size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def _rooms(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Nested settings by their first name; those of the top level under the empty name."""
    rooms: dict[str, dict[str, Any]] = {"": {}}
    for key, value in values.items():
        if isinstance(value, dict):
            rooms[key] = value
        else:
            rooms[""][key] = value
    return rooms
