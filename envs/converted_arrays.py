"""What is checked of the arrays in files of other projects, whatever their layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.geometry import points_free
from envs.maze_map import MazeMap
from groundwork.errors import UserError

FREE_SHARE = 0.99


def check_arrays(path: Path, arrays: Mapping[str, np.ndarray], widths: Mapping[str, int | None], layout: str) -> None:
    """Refuses arrays that are empty, not of one length, not of their widths, or not finite.

    Args:
        path: their file, for messages.
        arrays: by name, ``observations`` among them.
        widths: columns of each; ``None``: one number per row.
        layout: whose it is, for messages.

    Raises:
        UserError: one of these.
    """
    count = len(arrays["observations"])
    if not count:
        raise UserError(f"{path} holds no steps")
    for name, width in widths.items():
        array, expected = arrays[name], (count,) if width is None else (count, width)
        if array.shape != expected or array.dtype.kind not in "fiub":
            raise UserError(f"{path}: {name} has shape {array.shape}; {layout} needs {expected}")
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            raise UserError(f"{path}: {name} has NaN or infinite values, the first in row {finite.argmin()}")


def require_on_map(path: Path, positions_N2: np.ndarray, maze: MazeMap) -> None:
    """Refuses positions in metres of which more than a hundredth lie in the walls.

    Raises:
        UserError: they are of another map.
    """
    share = points_free(maze, positions_N2, 0.0).mean()
    if share < FREE_SHARE:
        raise UserError(f"map: {share:.0%} of the positions in {path} are free in {maze.name}; allowed: the file's map")
