"""What the subcommands of ``maze-data`` take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from envs.maps import map_names, world_of
from envs.worlds import OGBENCH
from groundwork.errors import UserError
from groundwork.options import REQUIRED, Settings, option

Recipe = Literal["tasks", "navigate", "stitch"]
PathOrder = Literal["breadth", "depth"]
MAPS = ", ".join(map_names())
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class CollectSettings(Settings):
    """Which walks to record."""

    map: str = option(REQUIRED, f"Walk on this map: {MAPS}, or a text file of # and . cells.", positional=True)
    recipe: Recipe = option(
        "navigate",
        "Walk the demonstrated tasks, between random goals one after the other, or to goals four cells away.",
    )
    env_steps: int | None = option(
        None,
        "Record this many environment steps in all. Default: 1000000 of navigate and of OGBench's maps, 300000 of the "
        "others.",
        low=1,
        old=("--steps",),
    )
    seed: int = option(0, "Draw everything from this seed; the same seed gives the same data.", low=0)
    id: str | None = option(None, "Store the dataset under this id. Default: mazes/MAP-RECIPE-v0.", metavar="ID")
    order: PathOrder = option("breadth", "The expert searches its paths in this order.")
    overwrite: bool = option(False, "Replace a dataset of that id.")

    @property
    def all_steps(self) -> int:
        """Environment steps in all; of navigate as many as D4RL has, of OGBench's maps as many as OGBench."""
        published = self.recipe == "navigate" or world_of(self.map) == OGBENCH
        return self.env_steps or (1_000_000 if published else 300_000)


def usual_id(dataset_id: str) -> str:
    """Today's id of a dataset of the usual size, whose number of steps stood in its id once."""
    return re.sub(r"^(mazes/[a-z]+-(?:tasks|stitch))300000(-v\d+)$", r"\1\2", dataset_id)


def earlier_id(dataset_id: str) -> str:
    """What :func:`usual_id` makes this id of; other ids stay as they are."""
    return re.sub(r"^(mazes/[a-z]+-(?:tasks|stitch))(-v\d+)$", r"\g<1>300000\2", dataset_id)


def collection_of(dataset_id: str) -> CollectSettings | None:
    """What collects the dataset of an id like mazes/hash-tasks-v0 or mazes/hash-tasks6000-v0; ``None`` for others."""
    named = re.fullmatch(rf"mazes/({'|'.join(map_names())})-({'|'.join(get_args(Recipe))})(\d*)-v\d+", dataset_id)
    if named is None:
        return None
    name, recipe, steps = named.groups()
    wanted = {"map": name, "recipe": recipe, "env_steps": int(steps) if steps else None, "id": dataset_id}
    return CollectSettings.from_options(wanted)


def collect_command(settings: CollectSettings) -> str:
    """The same as one types it."""
    order = "" if settings.order == "breadth" else f" --order {settings.order}"
    own = "" if settings.id == f"mazes/{settings.map}-{settings.recipe}-v0" else f" --id {settings.id}"
    size = f" --env-steps {settings.env_steps}" if settings.env_steps else ""
    return f"maze-data collect {settings.map} --recipe {settings.recipe}{size}{order}{own}"


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """Which file of D4RL's or OGBench's becomes which dataset."""

    file: Path = option(
        REQUIRED,
        "Read this file: HDF5 of D4RL's, such as maze2d-umaze-sparse-v1.hdf5, or .npz of OGBench's, such as "
        "pointmaze-medium-stitch-v0.npz.",
        positional=True,
    )
    id: str = option(REQUIRED, "Store the dataset under this id, such as mazes/umaze-d4rl-v1.", metavar="ID")
    map: str | None = option(None, "The data were recorded on this map. Default: the one in the file's name.")
    overwrite: bool = option(False, "Replace a dataset of that id.")


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings(Settings):
    """Whose returns are measured where."""

    maps: tuple[str, ...] = option(REQUIRED, f"Measure on these maps: {MAPS}.", positional=True, metavar="MAP")
    episodes: int = option(500, "Run this many episodes per policy and protocol.", low=1)
    seed: int = option(0, "Draw everything from this seed; the same seed gives the same returns.", low=0)
    json: str = option(
        "-", "Write the returns to this file, whose other maps are kept; - for standard output.", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class ShowSettings(Settings):
    """What is drawn."""

    id: str = option(
        REQUIRED,
        "Draw the dataset of this id; one on Minari's server is downloaded first.",
        positional=True,
    )
    out: Path = option(REQUIRED, "Write the picture to this PNG, PDF or SVG file.", metavar="FILE")

    def check(self) -> None:
        """The picture has a kind that can be drawn."""
        if self.out.suffix.lower() not in PICTURES:
            raise UserError(f"--out: {self.out}; allowed: a file name ending in {', '.join(PICTURES)}")


@dataclass(frozen=True, kw_only=True)
class PushSettings(Settings):
    """What goes where."""

    id: str = option(REQUIRED, "Upload the local dataset of this id.", positional=True)
    to: str = option(REQUIRED, "It goes to this user or organization: hf://USER.", metavar="hf://USER")
