"""Minari episodes → normalized windows on the device.

All episodes lie end to end in one tensor; a window is an index computation, so that no DataLoader is needed::

    series   |e0 e0 e0 e0 e0 e0 e0|e1 e1 e1|e2 e2 e2 e2 e2 e2|
    window         x     x     x                               (start 1, horizon 3, stride 2)
                                   ↑ shorter than a window: skipped and counted
    hold_end |e0 e0 e0 e0 e0 e0 e0 r0 r0 r0|e1 e1 e1 r1 r1 r1|…   (r: the last position, at rest)

Shapes: B batch, D transition dimensions (state, then action if planned), T planned points, N all points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import minari
import numpy as np
import torch
from torch import Tensor

from envs.dataset import one_line, open_dataset
from envs.maps import from_env_spec
from envs.maze_map import MazeMap
from envs.splits import demonstrated_by, stitched
from groundwork.errors import UserError
from planner.config import DataConfig
from planner.normalizer import LimitsNormalizer


@dataclass(frozen=True)
class TrajectoryLayout:
    """What the dimensions of a planned point mean.

    Attributes:
        state_dim: leading dimensions that the environment observes; all are conditioned at the start.
        goal_dims: leading dimensions that are conditioned at the end (2, the position, in a maze).
        action_dim: trailing planned actions, 0 when only states are planned.
    """

    state_dim: int
    goal_dims: int
    action_dim: int

    @property
    def transition_dim(self) -> int:
        """All dimensions of a planned point."""
        return self.state_dim + self.action_dim

    def known(self, horizon: int, device: torch.device | str = "cpu") -> Tensor:
        """(D, T) boolean: the entries that start and goal determine, in the first and the last point."""
        known = torch.zeros(self.transition_dim, horizon, dtype=torch.bool, device=device)
        known[: self.state_dim, 0] = True
        known[: self.goal_dims, -1] = True
        return known


@dataclass(frozen=True)
class DataStatistics:
    """What a trained planner must remember of its data; stored with the run.

    Attributes:
        layout: meaning of the dimensions.
        normalizer: limits of the training split.
        maze: the map, or ``None`` when the environment is no maze.
        environment: Gymnasium id, for messages.
        longest_step_m: longest distance between neighbouring points of the training split, at the stride.
        median_step_m: median of the distances above a tenth of the longest (the moving ones).
        episodes, skipped_episodes, windows: counts of the training split.
    """

    layout: TrajectoryLayout
    normalizer: LimitsNormalizer
    maze: MazeMap | None
    environment: str
    longest_step_m: float
    median_step_m: float
    episodes: int
    skipped_episodes: int
    windows: int

    def maze_for(self, what: str) -> MazeMap:
        """The map, which ``what`` needs.

        Raises:
            UserError: the environment is no maze.
        """
        if self.maze is None:
            raise UserError(f"{what} needs a maze; {self.environment} is no maze")
        return self.maze

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("layout", "normalizer", "maze")},
            "layout": vars(self.layout),
            "normalizer": self.normalizer.to_dict(),
            "maze": self.maze.to_dict() if self.maze else None,
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DataStatistics:
        """From :meth:`to_dict`."""
        return DataStatistics(
            **{
                **values,
                "layout": TrajectoryLayout(**values["layout"]),
                "normalizer": LimitsNormalizer.from_dict(values["normalizer"]),
                "maze": MazeMap.from_dict(values["maze"]) if values["maze"] else None,
            }
        )


@dataclass(frozen=True)
class Windows:
    """Windows of one split, gathered on the device.

    Attributes:
        series_ND: normalized points of all episodes, end to end.
        starts_W: index of each window's first point.
        offsets_T: distance of a window's points from its first.
    """

    series_ND: Tensor
    starts_W: Tensor
    offsets_T: Tensor

    def __len__(self) -> int:
        return len(self.starts_W)

    def gather(self, which_B: Tensor) -> Tensor:
        """The windows ``which_B`` as (B, D, T)."""
        points = self.starts_W[which_B, None] + self.offsets_T
        return self.series_ND[points].transpose(1, 2).contiguous()


@dataclass(frozen=True)
class PlannerData:
    """Training and validation windows with their statistics; ``validation`` may be empty."""

    training: Windows
    validation: Windows
    statistics: DataStatistics


def _states(observations: Any, dataset_id: str) -> np.ndarray:
    """(L, S) state of an episode: a maze's ``observation``, or a flat observation as it is.

    A maze's ``desired_goal`` is not read: goals of windows are the points that were reached, so the stale
    first goal of Minari's maze data does no harm.
    """
    values = observations.get("observation") if isinstance(observations, dict) else observations
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise UserError(
            f"dataset {dataset_id!r} has observations that are neither flat nor a dict with a flat 'observation'"
        )
    return values


def _episodes(dataset: minari.MinariDataset, actions: bool, goals: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields (L, D) float32 points per episode; with actions the last observation, which has none, is left out.

    The goals at the episodes' ends, where there are any, are put into ``goals``: Minari's first one is stale.
    """
    name = dataset.spec.dataset_id
    for episode in dataset.iterate_episodes():
        if isinstance(episode.observations, dict) and "desired_goal" in episode.observations:
            goals.append(np.asarray(episode.observations["desired_goal"])[-1])
        points = _states(episode.observations, name)
        if actions:
            taken = np.asarray(episode.actions, dtype=float)
            if taken.ndim != 2:
                raise UserError(f"dataset {name!r} has actions of {taken.ndim - 1} dimensions; planning needs 1")
            points = np.concatenate([points[: len(taken)], taken], axis=1)
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            points = points.astype(np.float32)
        if not np.isfinite(points).all():
            raise UserError(
                f"dataset {name!r} has NaN, infinite or too large values in episode {episode.id}; leave that "
                f"episode out (dataset.filter_episodes) or collect it again"
            )
        yield points


def _action_dim(dataset: minari.MinariDataset, config: DataConfig) -> int:
    return int(np.prod(dataset.spec.action_space.shape)) if config.actions else 0


def _maze_of(dataset: minari.MinariDataset) -> tuple[MazeMap | None, str]:
    """The maze of a dataset, with the splits of its environment, and the environment's id."""
    spec = dataset.spec.env_spec
    if isinstance(spec, str):
        spec = gymnasium.envs.registration.EnvSpec.from_json(spec)
    if spec is None:
        return None, "unknown"
    return from_env_spec(spec), spec.id


def _with_splits(
    maze: MazeMap, dataset: minari.MinariDataset, episodes: list[np.ndarray], goals: list[np.ndarray]
) -> MazeMap:
    """The maze with the splits that the dataset's recipe means; where it names none, its episodes tell.

    Combining datasets drops what Minari does not know, the recipe among it.
    """
    recipe = dataset.storage.metadata.get("recipe")
    if recipe is not None or len(goals) < len(episodes):
        return stitched(maze) if recipe == "stitch" else maze
    ends = np.stack([[episode[0, :2] for episode in episodes], goals], axis=1)
    ways = {(tuple(start), tuple(goal)) for start, goal in maze.xy_to_cell(ends).tolist()}
    return demonstrated_by(maze, ways)


def _held_end(episode: np.ndarray, steps: int) -> np.ndarray:
    """A maze's episode (L, D) and then its last position for ``steps`` more, with velocity and actions zero."""
    end = np.zeros((steps, episode.shape[1]), episode.dtype)
    end[:, :2] = episode[-1, :2]
    return np.concatenate([episode, end])


def _without_waiting(episode: np.ndarray, within_m: float) -> np.ndarray:
    """An episode (L, D) up to the first of those last points that all lie within some metres of the very last."""
    away = np.flatnonzero(np.linalg.norm(episode[:, :2] - episode[-1, :2], axis=1) > within_m)
    return episode[: away[-1] + 2] if len(away) else episode[:1]


def _window_starts(lengths: list[int], span: int) -> np.ndarray:
    """Start indices of all windows of ``span`` points that do not cross an episode's end."""
    begins = np.cumsum([0, *lengths[:-1]])
    runs = [np.arange(begin, begin + length - span + 1) for begin, length in zip(begins, lengths, strict=True)]
    return np.concatenate(runs)


def _fewest_points(config: DataConfig) -> int:
    """Points that an episode must have to give a window."""
    return 2 if config.hold_end else (config.horizon - 1) * config.stride + 1


def _windows(episodes: list[np.ndarray], config: DataConfig, normalizer: LimitsNormalizer, device: Any) -> Windows:
    span = (config.horizon - 1) * config.stride + 1
    long_enough = [episode for episode in episodes if len(episode) >= _fewest_points(config)]
    if config.hold_end:  # every window keeps at least one step of the episode
        long_enough = [_held_end(episode, span - 2) for episode in long_enough]
    dim = len(normalizer.low)
    series = np.concatenate(long_enough) if long_enough else np.zeros((0, dim), np.float32)
    starts = _window_starts([len(e) for e in long_enough], span) if long_enough else np.zeros(0, np.int64)
    return Windows(
        series_ND=normalizer.normalize(torch.from_numpy(series)).to(device),
        starts_W=torch.from_numpy(starts).to(device),
        offsets_T=torch.arange(config.horizon, device=device) * config.stride,
    )


def _steps_m(episodes: list[np.ndarray], stride: int) -> np.ndarray:
    """Distances between positions ``stride`` environment steps apart, over all episodes."""
    return np.concatenate([np.linalg.norm(e[stride:, :2] - e[:-stride, :2], axis=1) for e in episodes])


def _read(dataset: minari.MinariDataset, config: DataConfig) -> tuple[list[np.ndarray], MazeMap | None, str]:
    """The episodes' points, the maze with the splits that they mean, and the environment's id."""
    name, (maze, environment) = dataset.spec.dataset_id, _maze_of(dataset)
    goals: list[np.ndarray] = []
    try:
        episodes = list(_episodes(dataset, config.actions, goals))
    except UserError:
        raise
    except Exception as error:  # a file cut short fails deep inside HDF5, with whatever it failed at
        raise UserError(f"dataset {name!r} is damaged ({one_line(error)}); collect or download it again") from error
    for setting in ("hold_end", "cut_waiting"):
        if getattr(config, setting) and maze is None:
            raise UserError(f"data.{setting} needs a maze; {environment} of {name!r} is no maze")
    if config.cut_waiting:
        episodes = [_without_waiting(episode, config.cut_waiting) for episode in episodes]
    span = _fewest_points(config)
    if not any(len(episode) >= span for episode in episodes):
        longest = max((len(episode) for episode in episodes), default=0)
        raise UserError(
            f"horizon {config.horizon} at stride {config.stride} needs episodes of {span} points; the longest of "
            f"{len(episodes)} in {name!r} has {longest}"
        )
    if maze is None:
        return episodes, None, environment
    if (dim := episodes[0].shape[1] - _action_dim(dataset, config)) != maze.world.state_dim:
        values = ", ".join(["x", "y", "vx", "vy"][: maze.world.state_dim])
        raise UserError(f"dataset {name!r} has states of {dim} values; those of map {maze.name} are {values}")
    return episodes, _with_splits(maze, dataset, episodes, goals), environment


def load_data(
    config: DataConfig, device: torch.device | str = "cpu", dataset: minari.MinariDataset | None = None
) -> PlannerData:
    """Reads a Minari dataset and cuts it into windows.

    Args:
        config: dataset, horizon, stride and split. Which episodes validate depends on their number alone, so
            that runs of different seeds and norms share the split.
        device: where the points are kept.
        dataset: a dataset in place of the one that ``config`` names, such as a filtered or a split one, which has
            no id of its own.

    Raises:
        UserError: a dataset that is missing or damaged, that holds NaN, infinite or non-flat values, or no
            episode long enough for a window.
    """
    if dataset is None:
        dataset = open_dataset(config.dataset)
    episodes, maze, environment = _read(dataset, config)
    span = _fewest_points(config)
    held_out = _validation_episodes(episodes, span, config.validation_share)
    training = [episode for index, episode in enumerate(episodes) if index not in held_out]
    validation = [episodes[index] for index in sorted(held_out)]
    action_dim = _action_dim(dataset, config)
    state_dim = episodes[0].shape[1] - action_dim
    normalizer = LimitsNormalizer.fit(torch.from_numpy(np.concatenate(training)))
    windows = _windows(training, config, normalizer, device)
    steps = _steps_m(training, config.stride) if maze else np.zeros(1)
    if not len(steps):
        raise UserError(
            f"stride = {config.stride}: no training episode of {dataset.spec.dataset_id!r} has that many steps"
        )
    statistics = DataStatistics(
        layout=TrajectoryLayout(state_dim, 2 if maze else state_dim, action_dim),
        normalizer=normalizer,
        maze=maze,
        environment=environment,
        longest_step_m=float(steps.max()),
        median_step_m=float(np.median(steps[steps >= 0.1 * steps.max()])),
        episodes=len(training),
        skipped_episodes=sum(len(episode) < span for episode in training),
        windows=len(windows),
    )
    return PlannerData(windows, _windows(validation, config, normalizer, device), statistics)


def _validation_episodes(episodes: list[np.ndarray], span: int, share: float) -> set[int]:
    """Indices of the held-out episodes, drawn among those long enough; one at least stays for training."""
    usable = [index for index, episode in enumerate(episodes) if len(episode) >= span]
    count = min(round(share * len(usable)), len(usable) - 1)
    return set(np.random.default_rng(0).permutation(usable)[:count].tolist())
