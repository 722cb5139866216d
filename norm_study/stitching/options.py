"""Options of the commands that work on the stitching grid: which of its cells."""

from __future__ import annotations

import argparse
from typing import Any

from norm_study.options import list_of
from norm_study.stitching.grid import Grid


def add_cells(parser: Any) -> None:
    """Adds them, the whole grid by default."""
    parser.add_argument("--norms", type=list_of(str), default=Grid.norms, metavar="A,B", help="norm kinds")
    parser.add_argument("--paddings", type=list_of(str), default=Grid.paddings, metavar="A,B", help="paddings")
    parser.add_argument(
        "--fields",
        type=list_of(str),
        default=Grid.fields,
        metavar="A,B",
        help="receptive fields: 18 (quarter), 32 (half), 78 (whole) points to one side",
    )
    parser.add_argument("--seeds", type=int, default=Grid.seeds, metavar="INT", help="training seeds per cell")


def grid_from(arguments: argparse.Namespace) -> Grid:
    """The cells that were asked for.

    Raises:
        UserError: a name that does not exist, or no seed.
    """
    return Grid(arguments.norms, arguments.paddings, arguments.fields, arguments.seeds)
