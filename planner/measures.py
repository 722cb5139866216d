"""What an episode is worth: one table of its measures, and how each is taken.

Success hides what a plan is like: jumps at what was conditioned, steps too long, paths through walls. Shapes: N plans
or episodes, H planned points, L environment steps, X the two coordinates; positions in metres. It can be read without
torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from envs.geometry import points_free, segments_free
from envs.maze_map import MazeMap
from groundwork.tables import Cell, cell_text, measured

LONGEST_VALID_STEP = 2.0
"""A valid plan's longest step, in multiples of the training split's longest."""

LEAVING_DISTANCE_M = 1.0
"""There-and-back counts as done only after leaving by so much."""


@dataclass(frozen=True)
class Measure:
    """One number of an episode, and how it is shown.

    Attributes:
        label: its name on axes.
        of: what it tells about: the plan, or what came of its execution.
        better: which way is better; ``None``: neither.
        share: whether it is true or false or a share, shown in per cent.
        unit: behind the mean in a table.
        digits: behind the decimal point.
        against: what it is a multiple of.
        column: whether a comparison has a column for it.
        headline: whether a comparison begins with it, in its chart and its first table.
        known_with: the measure that must be known where this one shall be shown.
        least: what it cannot be below.
    """

    label: str
    of: Literal["plan", "execution"]
    better: Literal["higher", "lower"] | None
    share: bool = False
    unit: str = ""
    digits: int = 2
    against: str = ""
    column: bool = False
    headline: bool = False
    known_with: str | None = None
    least: float = 0.0

    @property
    def within(self) -> tuple[float, float]:
        """What it can be: intervals end there."""
        return self.least, 1.0 if self.share else math.inf

    def cell(self, interval: Mapping[str, Any] | None) -> Cell:
        """A mean with its interval as a table shows it; "–" where it was not measured."""
        if interval is None:
            return "–"
        return measured(interval, ".1f", " %") if self.share else measured(interval, f".{self.digits}f", self.unit)

    def text(self, interval: Mapping[str, Any] | None) -> str:
        """The same as text."""
        return cell_text(self.cell(interval))

    @property
    def axis(self) -> str:
        """The label of an axis of means, where shares run from 0 to 1."""
        if self.against:
            return f"{self.label}\n({self.unit.strip()} {self.against})"
        return f"{self.label} ({self.unit.strip()})" if self.unit else self.label


MEASURES: dict[str, Measure] = {
    "success": Measure("success", "execution", "higher", share=True, column=True, headline=True),
    "plan_valid": Measure("valid plans", "plan", "higher", share=True, column=True, headline=True),
    "longest_step": Measure("longest step", "plan", "lower", unit=" ×", against="the data's longest", column=True),
    "end_gap": Measure("end gap", "plan", "lower", unit=" m", column=True),
    "steps_to_goal": Measure("steps to goal", "execution", "lower", digits=0, column=True),
    "tracking_error": Measure("tracking error", "execution", "lower", unit=" m", column=True),
    "wall_contact": Measure("time in wall contact", "execution", "lower", share=True),
    "free_share": Measure("points in free space", "plan", "higher", share=True),
    "free_segments": Measure("segments in free space", "plan", "higher", share=True),
    "valid_among_n": Measure("valid among those drawn", "plan", "higher", share=True),
    "plan_avoids": Measure("plans that avoid the region", "plan", "higher", share=True),
    "last_plan_valid": Measure("last plan valid", "plan", "higher", share=True),
    "path_avoids": Measure("paths that avoid the region", "execution", "higher", share=True),
    # Told where the tasks have references to score by, which are D4RL's protocols.
    "score": Measure("score", "execution", "higher", digits=1, column=True, known_with="score_expert", least=-math.inf),
    "score_expert": Measure(
        "score, expert 100", "execution", "higher", digits=1, column=True, known_with="score_expert", least=-math.inf
    ),
}
"""Every measure of an episode by the name that rows have for it, in the order of tables."""


def held(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The measures that some of these rows hold: kept ones may be from before a measure existed, or hold no score."""
    rows = list(rows)
    return [
        name
        for name, measure in MEASURES.items()
        if any(name in row for row in rows)
        and (measure.known_with is None or any(row.get(measure.known_with) is not None for row in rows))
    ]


@dataclass(frozen=True)
class Execution:
    """What happened, per episode.

    Attributes:
        positions: (N, L + 1, 2) metres.
        references: (N, L, 2) metres, what the controller followed.
        contact: (N, L) whether the ball touched a wall.
        lasted: (N, L) whether the episode was still going on when the step was made; behind its end the ball stays.
    """

    positions: np.ndarray
    references: np.ndarray
    contact: np.ndarray
    lasted: np.ndarray

    def to_goal_m(self, goals_NX: np.ndarray) -> np.ndarray:
        """(N, L) distances to the goals after each step."""
        return np.linalg.norm(self.positions[:, 1:] - goals_NX[:, None], axis=-1)


def plan_measures(positions_NHX: np.ndarray, maze: MazeMap, data_longest_step_m: float) -> dict[str, np.ndarray]:
    """What a plan is worth before it is executed.

    Args:
        positions_NHX: (N, H, 2) planned positions in metres, H ≥ 2.
        maze: the walls.
        data_longest_step_m: longest step of the training split at the same stride.

    Returns:
        Arrays (N,): ``longest_step`` (multiple of the data's longest), ``end_gap`` (metres: the larger of the
        first and the last step), ``free_share`` and ``free_segments`` (of the points and of the segments between
        them, for a body of the world's radius) and ``plan_valid`` (every segment free and the longest step at most
        twice the data's).
    """
    steps = np.linalg.norm(np.diff(positions_NHX, axis=1), axis=-1)
    longest_step = steps.max(1) / data_longest_step_m
    radius_m = maze.world.body_radius_m
    free = segments_free(maze, positions_NHX[:, :-1], positions_NHX[:, 1:], radius_m)
    return {
        "longest_step": longest_step,
        "end_gap": np.maximum(steps[:, 0], steps[:, -1]),
        "free_share": points_free(maze, positions_NHX, radius_m).mean(1),
        "free_segments": free.mean(1),
        "plan_valid": free.all(1) & (longest_step <= LONGEST_VALID_STEP),
    }


def execution_measures(
    execution: Execution, goals_NX: np.ndarray, plan_steps: int, returns_N: Sequence[bool], goal_tolerance_m: float
) -> dict[str, np.ndarray]:
    """What executing a plan was worth.

    Args:
        execution: of N episodes.
        goals_NX: in metres.
        plan_steps: environment steps that the plans take.
        returns_N: whether the task leads there and back.
        goal_tolerance_m: the goal is reached within this distance.

    Returns:
        Arrays (N,): ``success``, ``steps_to_goal`` (L for a failure), ``wall_contact`` (share of steps) and
        ``tracking_error`` (root mean square distance to the plan while it runs, in metres), both while the episode
        lasts.
    """
    away = np.linalg.norm(execution.positions[:, 1:] - execution.positions[:, :1], axis=-1) >= LEAVING_DISTANCE_M
    left = np.maximum.accumulate(away, axis=1) | ~np.asarray(returns_N)[:, None]
    at_goal = (execution.to_goal_m(goals_NX) <= goal_tolerance_m) & left
    success = at_goal.any(1)
    off = np.linalg.norm(execution.positions[:, 1:] - execution.references, axis=-1)
    return {
        "success": success,
        "steps_to_goal": np.where(success, at_goal.argmax(1) + 1, at_goal.shape[1]),
        "wall_contact": _mean_while(execution.contact, execution.lasted),
        "tracking_error": np.sqrt(_mean_while(np.square(off[:, :plan_steps]), execution.lasted[:, :plan_steps])),
    }


def _mean_while(values_NL: np.ndarray, lasted_NL: np.ndarray) -> np.ndarray:
    return (values_NL * lasted_NL).sum(1) / lasted_NL.sum(1)


def jumps(positions_NHX: np.ndarray, data_longest_step_m: float) -> np.ndarray:
    """Which steps (…, H − 1) of paths (…, H, 2) are longer than any of a valid plan."""
    steps = np.linalg.norm(np.diff(positions_NHX, axis=-2), axis=-1)
    return steps > LONGEST_VALID_STEP * data_longest_step_m


def path_length_m(positions_NHX: np.ndarray) -> np.ndarray:
    """Lengths (…,) of paths (…, H, 2), in metres."""
    return np.linalg.norm(np.diff(positions_NHX, axis=-2), axis=-1).sum(-1)
