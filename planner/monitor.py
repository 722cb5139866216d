"""What a training shows while it runs: rows of metrics, TensorBoard, figures of plans, short rollouts."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from envs.draw import figure_to_array
from planner.config import Config, to_dict
from planner.data import PlannerData
from planner.figures import plans_figure
from planner.plan import Planner
from planner.rollout import RolloutSettings, choose_tasks, rollout, summarize
from planner.run import RunFolder

FINAL_METRICS = ("loss", "validation_loss", "rollout_success", "rollout_plan_valid")


class Monitor:
    """Writes ``metrics.jsonl`` and TensorBoard events of one run.

    Args:
        folder: the run.
        config: its settings.
        data: its data, for the maze.
        purge_step: events from this step on, of an earlier process, are hidden in TensorBoard.
    """

    def __init__(self, folder: RunFolder, config: Config, data: PlannerData, purge_step: int):
        self._folder, self._config, self._data = folder, config, data
        self._writer = SummaryWriter(str(folder.path), purge_step=purge_step or None)
        self._tasks = choose_tasks(data.statistics.maze, ["demonstrated"]) if data.statistics.maze else []

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row and shows its numbers as scalars under ``train/`` and ``evaluation/``."""
        self._folder.append_metrics(row)
        for name, value in row.items():
            if name != "step" and value is not None:
                group = "evaluation" if name.startswith(("validation", "rollout")) else "train"
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def evaluate(self, step: int, planner: Planner, validation_loss: float | None) -> dict[str, float | None]:
        """Validation loss and, in a maze, a figure of plans and a short rollout of the demonstrated tasks."""
        row: dict[str, float | None] = {"validation_loss": validation_loss}
        if self._tasks:
            result = rollout(planner, self._tasks, RolloutSettings(episodes=self._config.evaluate_episodes))
            summary = summarize(result.rows)["demonstrated"]
            row |= {f"rollout_{name}": summary[name]["mean"] for name in ("success", "plan_valid", "longest_step")}
            self._show(step, plans_figure({f"step {step}": planner}))
        return row

    def _show(self, step: int, figure: Figure) -> None:
        self._writer.add_image("plans", figure_to_array(figure), step, dataformats="HWC")

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
            self._writer._get_file_writer().add_summary(summary)
        for name, value in final.items():
            self._writer.add_scalar(f"final/{name}", value, self._config.steps)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


def _rooms(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Nested settings by their first name; those of the top level under the empty name."""
    rooms: dict[str, dict[str, Any]] = {"": {}}
    for key, value in values.items():
        if isinstance(value, dict):
            rooms[key] = value
        else:
            rooms[""][key] = value
    return rooms
