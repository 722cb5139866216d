"""Mazes and trajectories on matplotlib axes; rollouts as a GIF. No pyplot, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from envs.maze_map import MazeMap
from groundwork.style import PALETTE

WALL_COLOR, JUMP_COLOR = "0.85", "#d00000"
PATHS_DRAWN, COLORS_OF_PATHS = 60, 6


def draw_maze(axis: Axes, maze: MazeMap, avoid: tuple[float, float, float] | None = None) -> None:
    """Draws the walls grey and sets limits, equal scales and labels in metres.

    Args:
        axis: to draw on.
        maze: its walls.
        avoid: x, y and radius in metres of a region to stay out of, hatched; or nothing.
    """
    (left, bottom), (right, top) = maze.bounds_m
    side = maze.world.cell_m
    walls = [Rectangle((x, y), side, side) for x, y in maze.cell_to_xy(np.argwhere(maze.walls)) - side / 2]
    axis.add_collection(PatchCollection(walls, facecolor=WALL_COLOR, edgecolor="none"))
    if avoid is not None:
        axis.add_patch(Circle(avoid[:2], avoid[2], facecolor="none", edgecolor="0.3", hatch="////", linewidth=1))
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.set(xlabel="x (m)", ylabel="y (m)")


def draw_trajectories(axis: Axes, trajectories: Sequence[np.ndarray], *, dots: bool = False) -> None:
    """Draws paths, each in a colour of its own, with a ring at the first start and a star at the first goal.

    Args:
        axis: with the maze drawn.
        trajectories: arrays (T, 2) in metres.
        dots: whether to mark every point, as for planned waypoints.
    """
    for index, path in enumerate(trajectories):
        color = PALETTE[index % COLORS_OF_PATHS]
        marker = "." if dots else "none"
        axis.plot(*path.T, color=color, linewidth=0.8, alpha=0.8, marker=marker, markersize=2.5)
    if len(trajectories):
        start, goal = trajectories[0][0], trajectories[0][-1]
        axis.plot(*start, "o", fillstyle="none", color="black", markersize=7, zorder=5)
        axis.plot(*goal, "*", color="black", markersize=7, zorder=5)


def draw_jumps(axis: Axes, plan: np.ndarray, jumps: np.ndarray) -> None:
    """Draws those segments (H − 1,) of a plan (H, 2) that are too long in red, over everything else."""
    for segment in np.flatnonzero(jumps):
        axis.plot(*plan[segment : segment + 2].T, color=JUMP_COLOR, linewidth=2.5, zorder=4)


def figure_to_array(figure: Figure) -> np.ndarray:
    """The rendered figure as uint8 (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@dataclass(frozen=True)
class Panel:
    """One ball's way in an animation.

    Attributes:
        positions: (L, 2) meters, one per environment step.
        plan: (H, 2) planned points, drawn behind; or nothing.
        jumps: (H − 1,) which segments of the plan are too long, drawn in red; or nothing.
        title: above.
    """

    positions: np.ndarray
    plan: np.ndarray | None = None
    jumps: np.ndarray | None = None
    title: str = ""


def rollout_gif(
    path: str | Path | BinaryIO,
    maze: MazeMap,
    panels: Sequence[Panel],
    *,
    every_s: float = 0.04,
    fps: int | None = None,
    inches: float = 4.0,
    avoid: tuple[float, float, float] | None = None,
) -> None:
    """Writes an animation of balls on their ways, side by side; who has arrived waits for the others.

    Args:
        path: the file to write, or one that is open.
        maze: its walls.
        panels: one per ball.
        every_s: seconds of the episode between pictures, rounded to environment steps.
        fps: pictures per second; ``None``: real time.
        inches: width and height of a panel, at 100 dots each.
        avoid: a region to stay out of, see :func:`draw_maze`.
    """
    figure = Figure(figsize=(inches * len(panels), inches), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    drawn = [_draw_panel(axis, maze, panel, avoid, inches) for axis, panel in zip(axes, panels, strict=True)]
    figure_to_array(figure)
    figure.set_layout_engine("none")  # the panels stand still from here on
    frames: list[Image.Image] = []
    every = max(1, round(every_s / maze.world.dt_s))
    duration_ms = 1000 // fps if fps else round(1000 * every * maze.world.dt_s)
    for last in range(0, max(len(panel.positions) for panel in panels), every):
        for panel, (trail, ball) in zip(panels, drawn, strict=True):
            here = min(last, len(panel.positions) - 1)
            trail.set_data(*panel.positions[: here + 1].T)
            ball.set_data(*panel.positions[here : here + 1].T)
        frames.append(Image.fromarray(figure_to_array(figure)).quantize(64))
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0)


def _draw_panel(
    axis: Axes, maze: MazeMap, panel: Panel, avoid: tuple[float, float, float] | None, inches: float
) -> tuple[Line2D, Line2D]:
    """Draws all that stays; returns the trail and the ball."""
    draw_maze(axis, maze, avoid)
    if panel.plan is not None:
        draw_trajectories(axis, [panel.plan], dots=True)
        if panel.jumps is not None:
            draw_jumps(axis, panel.plan, panel.jumps)
    axis.set_title(panel.title, fontsize=min(10, 2.7 * inches))
    (trail,) = axis.plot([], [], color="black", linewidth=1)
    (ball,) = axis.plot([], [], "o", color="black", markersize=5)
    return trail, ball


def dataset_figure(maze: MazeMap, episodes: Sequence[np.ndarray], title: str) -> Figure:
    """Some paths on the maze, where episodes start, the speeds and the lengths of a dataset's episodes.

    Args:
        maze: its walls.
        episodes: states (T, 4) of every episode, in metres and metres per second.
        title: above.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    (on_maze, starts), (speeds, durations) = figure.subplots(2, 2, height_ratios=(2, 1))
    figure.suptitle(title)
    chosen = np.linspace(0, len(episodes) - 1, min(PATHS_DRAWN, len(episodes))).astype(int)
    draw_maze(on_maze, maze)
    for index in chosen:
        on_maze.plot(*episodes[index][:, :2].T, color=PALETTE[0], linewidth=0.6, alpha=0.4)
    on_maze.set_title(f"paths of {len(chosen)} of {len(episodes)} episodes", fontsize=10)
    draw_maze(starts, maze)
    ends = {
        "start": [episode[0, :2] for episode in episodes],
        "end": [episode[-1, :2] for episode in episodes],
    }
    for (label, points), color, marker in zip(ends.items(), PALETTE[1:], "ox", strict=False):
        starts.plot(*np.array(points).T, marker, color=color, markersize=3, alpha=0.5, linestyle="none", label=label)
    starts.legend(loc="upper right", fontsize=8, framealpha=0.9)
    starts.set_title("where all episodes start and end", fontsize=10)
    ways = np.concatenate([np.diff(episode[:, :2], axis=0) for episode in episodes])
    _histogram(speeds, np.linalg.norm(ways, axis=1) / maze.world.dt_s, "speed (m/s)", "steps")
    lengths_s = maze.world.dt_s * np.array([len(episode) - 1 for episode in episodes])
    _histogram(durations, lengths_s, "duration (s)", "episodes")
    return figure


def _histogram(axis: Axes, values: np.ndarray, label: str, counted: str) -> None:
    axis.hist(values, bins=40, color=PALETTE[0])
    axis.axvline(float(np.median(values)), color="black", linewidth=1, linestyle="--")
    axis.set(xlabel=f"{label}; dashed: median {np.median(values):.2f}", ylabel=counted, xlim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
