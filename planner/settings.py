"""What the subcommands of ``planner`` take, beside a training's own settings in :mod:`planner.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from groundwork.errors import UserError
from groundwork.options import REQUIRED, Settings, option, part_of
from planner.config import Config, NormKind, Placement, from_dict, load_preset, merge, preset_names
from planner.sampling import SAMPLERS, SamplerKind, Sampling

Part = Literal["training", "norms", "planning", "rollout"]
TASKS = "The splits, families or names of tasks to roll out."
OUT = "The folder that page, tables and figures are written to."


@dataclass(frozen=True)
class RolloutSettings(Sampling):
    """How plans are drawn and executed.

    Attributes:
        episodes: per task.
        seed: of starts, goals and plans.
        horizon: planned points; ``None``: the training's.
        replan_every: environment steps after which the rest is planned anew, with the points that are left; 0:
            plan once.
    """

    episodes: int = option(10, "How many episodes of each task are executed.", low=1)
    seed: int = option(0, "The seed of starts, goals and plans.", low=0, high=2**31 - 1)
    horizon: int | None = option(None, "How many points a plan has.", low=1, default_text="the training's")
    replan_every: int = option(0, "Plan the rest anew after this many environment steps; 0 plans once.", low=0)

    def check(self) -> None:
        """A warm start needs plans to begin from."""
        if self.replan_warm and not self.replan_every:
            raise UserError(f"replan_warm = {self.replan_warm} needs replan_every")

    def plan_seed(self, first: int, step: int = 0) -> int:
        """Of the plans that the episodes from the ``first`` on draw at an environment step."""
        return self.seed * 1_000_003 + first + 7919 * step


STEPS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of network evaluations that the ablation of samplers tries."""


@dataclass(frozen=True)
class AblationSettings(Settings):
    """What is tried.

    Attributes:
        samplers: each with every number of steps.
        steps: network evaluations per plan; ``None``: those of :data:`STEPS` up to the training's noise levels.
        tasks: splits, families or names.
        episodes: per task.
        seed: of starts, goals and plans, the same for every setting, so that episodes pair.
    """

    samplers: tuple[SamplerKind, ...] = option(tuple(SAMPLERS), "The samplers to try.")
    steps: tuple[int, ...] | None = option(
        None,
        "The numbers of network evaluations per plan to try.",
        low=1,
        default_text=f"{','.join(map(str, STEPS))}, up to the training's noise levels",
        flag="sampling-steps",
        old=("--steps",),
    )
    tasks: tuple[str, ...] = option(("multi_task",), "The splits, families or names of tasks to roll out.")
    episodes: int = option(1000, "How many episodes of each task are executed.", low=1)
    seed: int = option(0, "The seed of starts, goals and plans.", low=0, high=2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class DenoiseSettings(Settings):
    """Whose denoising is measured, on what, and where it goes."""

    runs: tuple[str, ...] = option(
        REQUIRED, "Run folders of mazes, trained with diffusion.drop_ends.", positional=True, metavar="RUN"
    )
    out: Path = option(REQUIRED, OUT, metavar="FOLDER")
    windows: int = option(256, "This many validation windows are noised, and as many are drawn.", low=2)
    levels: tuple[float, ...] = option(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7), "They are noised to these shares of the noise levels.", low=0.001, high=1
    )
    seed: int = option(0, "The seed of windows and noise.", low=0)


@dataclass(frozen=True, kw_only=True)
class TrainedRun(Settings):
    """A trained planner."""

    run: str = option(REQUIRED, "The run folder, or the name of a shipped planner.", positional=True)


@dataclass(frozen=True)
class Weights(Settings):
    """Which of a run's weights."""

    weights: Literal["ema", "model"] = option("ema", "Take the moving average of the weights, or the last weights.")
    checkpoint: int | None = option(
        None, "Take the kept checkpoint of this training step.", low=1, default_text="the last"
    )


@dataclass(frozen=True)
class Tasks(Settings):
    """Which tasks."""

    tasks: tuple[str, ...] = option(("demonstrated", "held_out"), TASKS)


@dataclass(frozen=True, kw_only=True)
class Problem(Settings):
    """Where plans begin and end."""

    start: tuple[float, ...] = option(
        REQUIRED, "Begin here, in meters and meters per second; in a maze x,y or x,y,vx,vy.", metavar="X,Y"
    )
    goal: tuple[float, ...] = option(REQUIRED, "End here, in meters; in a maze x,y.", metavar="X,Y")
    seed: int = option(0, "The seed of the plans.", low=0, high=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class AnimatedRuns(Settings):
    """Whose plans are shown, and where."""

    runs: tuple[str, ...] = option(
        REQUIRED, "Run folders, or names of shipped planners, on one maze.", positional=True, metavar="RUN"
    )
    out: Path = option(REQUIRED, "Write this GIF.", metavar="FILE")

    def check(self) -> None:
        """The file has a kind that can be written."""
        if self.out.suffix.lower() != ".gif":
            raise UserError(f"--out {self.out} must end in .gif")


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Sampling, hidden=("replan_warm",)):
    """How plans are drawn, and where they go."""

    out: Path = option(
        REQUIRED, "Write a PNG (the plans), a GIF (one plan executed) or JSON (the numbers).", metavar="FILE"
    )
    num_plans: int = option(6, "Draw this many plans.", low=1)
    horizon: int | None = option(None, "A plan has this many points.", low=1, default_text="the training's")

    def check(self) -> None:
        """The file has a kind that can be written."""
        if self.out.suffix.lower() not in (".png", ".gif", ".json"):
            raise UserError(f"--out {self.out} must end in .png, .gif or .json")


@dataclass(frozen=True, kw_only=True)
class ComparedRuns(Settings):
    """Which runs are compared, and where the page goes."""

    runs: tuple[str, ...] = option(
        REQUIRED, "Run folders, or names of shipped planners, on one maze.", positional=True, metavar="RUN"
    )
    out: Path = option(REQUIRED, OUT, metavar="FOLDER")
    horizons: tuple[int, ...] = option(
        (1, 2), "Roll out at these multiples of the training horizon.", low=1, old=("--multiples",)
    )


@dataclass(frozen=True)
class ComparedRollouts(RolloutSettings, hidden=("horizon",)):
    """Rollouts at horizons that are compared, and therefore no setting."""


@dataclass(frozen=True, kw_only=True)
class AblationOutput(Settings):
    """Where the ablation goes."""

    out: Path = option(REQUIRED, OUT, metavar="FOLDER")


@dataclass(frozen=True, kw_only=True)
class FromPreset(Config):
    """A training's settings, out of a preset and what the command line says over it."""

    preset: str = option(REQUIRED, f"A YAML file, or a shipped name: {', '.join(preset_names())}.", positional=True)
    collect: bool = option(False, "If the dataset is missing and is one of this project's own, collect it first.")

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> FromPreset:
        """The preset's settings, those of the command line over them, and the command's own."""
        own = {item.name for item in fields(cls)} - {item.name for item in fields(Config)}
        over = {name: value for name, value in given.items() if name not in own}
        config = from_dict(merge(load_preset(given["preset"]), over))
        return cls(**vars(config), **{name: value for name, value in given.items() if name in own})

    @property
    def config(self) -> Config:
        """The training's settings alone."""
        return part_of(Config, self)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(FromPreset):
    """What is trained, and where."""

    run: str | None = option(
        None,
        "The run folder; the same command again continues what is there. Default: runs/PRESET-NORM-seedSEED.",
        metavar="FOLDER",
    )
    leakage_every: int = option(
        0,
        "Leakage is measured for TensorBoard whenever this many steps are done; 0 means never, 500 costs little.",
        low=0,
    )
    log: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = option(
        ("tensorboard",),
        "Show the metrics with these: tensorboard, wandb, trackio; the last two are extras to install.",
    )


@dataclass(frozen=True, kw_only=True)
class SweepSettings(FromPreset):
    """Which planners are trained and compared: what they share, and what they differ in."""

    norms: tuple[NormKind, ...] = option(REQUIRED, "Train a planner with each of these norms.", metavar="A,B")
    placements: tuple[Placement, ...] = option(
        ("pre",), "Put each norm before the activation (pre), after it (post), or pre,post.", metavar="A,B"
    )
    vary: tuple[str, ...] | None = option(
        None,
        "Train them with this one setting changed as well, and compare them with those where nothing is; once per "
        "change.",
        repeated=True,
        metavar="SETTING=VALUE",
    )
    seeds: int | None = option(
        None,
        "Train each with this many seeds, counted up from --seed. Default: that seed alone, and runs are named by "
        "their norm alone.",
        low=1,
        default_text="",
    )
    out: Path = option(REQUIRED, OUT, metavar="FOLDER")
    runs_folder: Path | None = option(
        None, "The folder of the run folders.", metavar="FOLDER", default_text="that of --out"
    )
    episodes: int = option(10, "How many episodes of each task are executed.", low=1)
    horizons: tuple[int, ...] = option((1, 2), "Roll out at these multiples of the training horizon.", low=1)
    tasks: tuple[str, ...] = option(("demonstrated", "held_out"), TASKS)
    stack: int = option(1, "Train this many networks that differ only in their seed as one computation.", low=1)


@dataclass(frozen=True)
class ShowSettings(Settings):
    """How a run is shown."""

    open: bool = option(False, "Write a page into the run folder and open it in the browser instead.")


@dataclass(frozen=True, kw_only=True)
class PushSettings(Settings):
    """Where a planner is uploaded to."""

    repo: str = option(
        REQUIRED,
        "Upload it to this repository of the Hugging Face Hub, USER/NAME; it is made if need be.",
        positional=True,
    )
    checkpoint: int | None = option(
        None, "Take the kept checkpoint of this training step.", low=1, default_text="the last"
    )
    overwrite: bool = option(False, "Replace files that are there already.")
    public: bool = option(False, "Everybody may see the repository.")


@dataclass(frozen=True, kw_only=True)
class BenchSettings(
    FromPreset,
    hidden=(
        *("init_from", "steps", "log_every", "evaluate_every", "evaluate_episodes"),
        *("checkpoint_every", "keep_checkpoints"),
    ),
):
    """What is timed, how often; how long a training is and what it writes are no settings of it."""

    parts: tuple[Part, ...] = option(("training", "planning", "rollout"), "Time these parts.")
    repeats: int = option(5, "The median of this many timings is reported.", low=1)
    bench_steps: int = option(50, "A timing takes this many training steps.", low=1)
    warm_level: float = option(
        0.25, "Replanning begins with the last plan, noised again to this share of the noise levels.", low=0, high=1
    )
    episodes: int = option(100, "This many episodes are rolled out.", low=1)
    stack: int = option(8, "Train this many networks as one.", low=2)
    norms: tuple[NormKind, ...] = option(
        ("group", "channel", "rms", "group_step", "none"),
        "Part norms times a training step with each of these norms in turn, as a ratio to the first one's.",
    )
