"""Every setting of a training run, in one place: frozen dataclasses, YAML presets and command-line options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from envs.settings import usual_id
from groundwork import options
from groundwork.errors import UserError
from groundwork.options import Settings, merge, option, to_dict
from groundwork.yaml_files import load_yaml, to_yaml
from planner.norms import NormKind, norm_facts, packs_of
from planner.sampling import MOST_TIMES, RESAMPLE, RESAMPLE_LEVELS, TEMPERATURE, SamplerKind, Sampling, find_sampler

__all__ = ["Config", "DataConfig", "DiffusionConfig", "ModelConfig", "from_dict", "load_preset", "merge"]
__all__ += ["preset_names", "to_dict", "to_yaml", "what_trains"]

PaddingMode = Literal["zeros", "replicate"]
Placement = Literal["pre", "post"]
Weights = Literal["plain", "standardized", "magnitude_preserving"]
TAUGHT_WINDOWS, TEACHER_STEPS = 2**14, 8
"""How many windows a teacher plans anew, at most, and in how many steps of its own each."""


def check_horizon(horizon: int, dim_mults: Sequence[int], num_packs: int = 1) -> None:
    """Refuses a horizon that the levels cannot halve, the packs cannot share, or that leaves a norm one point.

    Raises:
        UserError: naming both numbers.
    """
    for name, value in (("horizon", horizon), ("num_packs", num_packs)):
        if type(value) is not int or value < 1:
            raise UserError(f"{name} = {value!r} must be a whole number of at least 1")
    halvings = 2 ** (len(dim_mults) - 1)
    if horizon % num_packs:
        raise UserError(f"horizon = {horizon} is not divisible by num_packs = {num_packs}")
    if (horizon // num_packs) % halvings:
        what = f"horizon = {horizon}" if num_packs == 1 else f"horizon = {horizon} in {num_packs} packs"
        raise UserError(
            f"{what} cannot be halved {len(dim_mults) - 1} times: it must be a multiple of {halvings * num_packs}"
        )
    if horizon // num_packs < 2 * halvings:
        raise UserError(
            f"horizon = {horizon} leaves one point at the coarsest of {len(dim_mults)} levels, where a norm over time "
            f"needs two: at least {2 * halvings * num_packs}"
        )


@dataclass(frozen=True)
class DataConfig(Settings):
    """Which windows of which dataset."""

    dataset: str = option("mazes/hash-tasks-v0", "Minari's id of the dataset to train on.", metavar="ID")
    horizon: int = option(64, "A plan has this many points.", low=2, high=2**16)
    stride: int = option(4, "Two planned points are this many environment steps apart.", low=1, high=2**16)
    actions: bool = option(False, "Plan the actions too, behind the state.")
    hold_end: bool = option(
        False, "Windows may run past an episode's end, where the ball is held at rest (mazes only)."
    )
    cut_waiting: float = option(
        0.0,
        "An episode ends where the ball comes within this many meters of the place that it then stays at; 0 keeps the "
        "waiting (mazes only).",
        low=0,
    )
    validation_share: float = option(0.05, "This share of the episodes is held out from training.", low=0, high=0.9)


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The architecture of :class:`planner.unet.TemporalUNet`, but for the dimensions of its data.

    The norm ``post`` the activation is conv → Mish → norm; ``pre`` is conv → norm → Mish, as in Janner et al. Packs are
    folded into the batch, so that no convolution crosses their boundary.
    """

    dim: int = option(32, "The network's base width in channels.", low=1, high=2**14)
    dim_mults: tuple[int, ...] = option(
        (1, 4, 8), "The widths of the network's levels are these multiples of its base width.", low=1
    )
    kernel_size: int = option(5, "Every block's convolutions have this kernel size, an odd number.", low=1, high=2**16)
    padding_mode: PaddingMode = option(
        "zeros", "Beyond a plan's ends convolutions see zeros, or the end point again (replicate)."
    )
    norm: NormKind = option("group", "The network normalizes with this kind of layer.")
    norm_groups: int = option(8, "Norms with groups have this many groups of channels.", low=1)
    norm_placement: Placement = option("pre", "The norm stands before (pre) or after (post) the activation.")
    num_packs: int = option(
        0,
        "The horizon is cut into this many packs. Isolated norms need two or more; 0 takes as few as the norm needs.",
        low=0,
    )
    norm_window: int = option(
        8, "Norms with a sliding window take their statistics over this many planned points, on every level.", low=1
    )
    weights: Weights = option(
        "plain",
        "Weights are used as they are (plain), or normalized per output channel: zero mean and unit norm in the "
        "convolutions (standardized), or unit norm everywhere, forced at each step, with balanced sums as in EDM2 "
        "(magnitude_preserving).",
    )
    norm_conditioned: bool = option(
        False, "Every norm's scale and shift follow the noise level too (FiLM, adaptive norm); it begins as without."
    )
    tell_known: bool = option(
        False, "The network is told which entries of a plan are known, by a channel for each of its dimensions."
    )
    fourier_features: int = option(
        0,
        "The network sees, beside each value of a plan, its sine and cosine at this many frequencies, each twice the "
        "one before; the first has one period over the data's range.",
        low=0,
        high=16,
    )
    overlap: int = option(
        0,
        "At an end that is not given the network sees this many points of a neighbouring chunk, as noisy as its own; "
        "plans longer than the training's are composed of chunks that overlap by as many at least (CompDiffuser). 0: "
        "a plan is one piece.",
        low=0,
        high=2**15,
    )

    def check(self) -> None:
        """Refuses what cannot be built, and says how many packs the norm needs where none were asked for."""
        if self.dim % 2 or self.dim < 4:
            raise UserError(f"dim = {self.dim} must be even and at least 4, for the embedding of the noise level")
        if self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size = {self.kernel_size} must be odd")
        for width in (self.dim * mult for mult in (1, *self.dim_mults)):
            if not norm_facts(self.norm).fits(width, self.norm_groups):
                raise UserError(
                    f"norm_groups = {self.norm_groups} cannot share out the {width} channels of a level "
                    f"under norm = {self.norm}"
                )
        object.__setattr__(self, "num_packs", packs_of(self.norm, self.num_packs))


@dataclass(frozen=True)
class DiffusionConfig(Settings):
    """The noise process and how plans are sampled from it."""

    train_steps: int = option(
        64,
        "The diffusion process has this many noise levels; of 1 level the network learns to make a plan in one "
        "evaluation, without noise, out of what is known of it.",
        low=1,
        high=10**5,
    )
    prediction: Literal["sample", "noise"] = option(
        "sample", "The network predicts the clean sample, or the noise in it."
    )
    sampler: SamplerKind = option("ddpm", "Plans are drawn with this sampler unless a command says otherwise.")
    sampling_steps: int = option(
        64, "A plan is drawn in this many steps, each a network evaluation, unless a command says otherwise.", low=1
    )
    resample: int = option(0, f"{RESAMPLE} Unless a command says otherwise.", low=0, high=MOST_TIMES)
    resample_levels: tuple[float, float] = option((0.25, 0.5), RESAMPLE_LEVELS, low=0, high=1, metavar="LOW,HIGH")
    temperature: float = option(1.0, f"{TEMPERATURE} Unless a command says otherwise.", low=0, high=1)
    snr_cap: float = option(
        0.0,
        "In training and validation a noise level's errors of the clean sample count as much as its signal-to-noise "
        "ratio, up to this number, and 0.05 at least; errors of the noise by that ratio less (min-SNR). 0: errors of "
        "all levels count the same.",
        low=0,
    )
    drop_ends: float = option(
        0.0,
        "In training each end of a plan, its start and its goal, is left unknown with this probability.",
        low=0,
        high=1,
    )
    teacher: str = option(
        "",
        f"Train on at most {TAUGHT_WINDOWS:,} windows that keep their starts and goals; what lies between is what this "
        "run folder or shipped planner of the same stride plans for them without noise, in "
        f"{TEACHER_STEPS} steps of DPM-Solver++.",
        metavar="RUN",
    )

    def check(self) -> None:
        """Refuses what a process of one noise level, where a plan is made at once, cannot mean."""
        alone = {"sampling_steps": 1, "temperature": 0.0, "prediction": "sample"}
        alone |= {"resample": 0, "snr_cap": 0.0, "drop_ends": 0.0}
        others = {name: value for name, value in alone.items() if getattr(self, name) != value}
        if self.train_steps == 1 and others:
            has = ", ".join(f"{name} = {getattr(self, name)}" for name in others)
            needs = ", ".join(map(str, others.values()))
            raise UserError(
                f"{has} must be {needs} with diffusion.train_steps = 1, where a plan is made at once, without noise, "
                "between two ends"
            )

    def drawn_as(self, asked: Sampling) -> DiffusionConfig:
        """These settings, but for what is asked otherwise.

        A run that takes its steps again does so with samplers of which a step can be taken again.

        Raises:
            UserError: what a run of one noise level cannot do, such as to begin with a plan.
        """
        if asked.replan_warm and self.train_steps == 1:
            raise UserError(
                f"replan_warm = {asked.replan_warm:g} must be 0 with diffusion.train_steps = 1, where nothing of an "
                "earlier plan is left"
            )
        names = ("sampler", "sampling_steps", "resample", "resample_levels", "temperature")
        over = {name: value for name in names if (value := getattr(asked, name)) is not None}
        if find_sampler(over.get("sampler", self.sampler)).remembers:
            over.setdefault("resample", 0)
        return replace(self, **over)


@dataclass(frozen=True)
class Config(Settings):
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    seed: int = option(0, "Weights, batches and noise are drawn from this seed.", low=0, high=2**31 - 1)
    init_from: str = option(
        "",
        "Begin with the moving average of this run folder or shipped planner instead of random weights.",
        metavar="RUN",
    )
    steps: int = option(10_000, "The optimizer takes this many training steps.", low=1)
    batch_size: int = option(32, "A training step sees this many windows.", low=1, high=2**20)
    optimizer: Literal["adam", "adamw"] = option("adam", "The weights are trained with this optimizer.")
    learning_rate: float = option(1e-3, "The learning rate at its peak, after the warm-up.", low=0)
    warmup_steps: int = option(
        100, "The learning rate rises linearly over this many training steps.", low=0, high=10**12
    )
    decay: Literal["none", "cosine"] = option(
        "cosine", "After the warm-up the learning rate stays (none), or falls to zero along half a cosine."
    )
    weight_decay: float = option(0.0, "The weights decay at this rate; adamw decouples it from the gradient.", low=0)
    gradient_clip: float = option(
        1.0, "Gradients are scaled down to at most this norm; 0 leaves them as they are.", low=0
    )
    ema_decay: float = option(
        0.995, "The exponential moving average of the weights keeps this share of itself per step.", low=0, high=1
    )
    precision: Literal["float32", "bfloat16"] = option("float32", "The forward pass computes in this arithmetic.")
    compile: bool = option(
        False,
        "Compile network, clipping and optimizer with torch.compile; on a GPU their kernels are captured in graphs.",
        metavar="true|false",
    )
    log_every: int = option(50, "Metrics are written whenever this many training steps are done.", low=1)
    evaluate_every: int = option(
        2000,
        "Validation, figures and short rollouts come whenever this many training steps are done; 0 means never.",
        low=0,
    )
    evaluate_episodes: int = option(2, "A short rollout has this many episodes per demonstrated task.", low=1)
    checkpoint_every: int = option(1000, "A checkpoint is written whenever this many training steps are done.", low=1)
    keep_checkpoints: int = option(3, "This many of the newest checkpoints are kept; 0 keeps all.", low=0)

    def check(self) -> None:
        """Refuses what cannot be built, naming the numbers.

        Raises:
            UserError: a value out of its range, or two values that do not go together.
        """
        check_horizon(self.data.horizon, self.model.dim_mults, self.model.num_packs)
        if self.diffusion.sampling_steps > self.diffusion.train_steps:
            raise UserError(
                f"diffusion.sampling_steps = {self.diffusion.sampling_steps} must be at most "
                f"diffusion.train_steps = {self.diffusion.train_steps}"
            )
        if self.diffusion.resample and find_sampler(self.diffusion.sampler).remembers:
            raise UserError(
                f"diffusion.resample = {self.diffusion.resample} needs diffusion.sampler = ddpm, not "
                f"{self.diffusion.sampler}, which remembers its last steps"
            )
        low, high = self.diffusion.resample_levels
        if low > high:
            raise UserError(f"diffusion.resample_levels = {low:g},{high:g} must be the least share and the largest")
        if 2 * self.model.overlap > self.data.horizon:
            raise UserError(
                f"model.overlap = {self.model.overlap} must be at most half of data.horizon = {self.data.horizon}"
            )
        if self.model.overlap and not self.diffusion.drop_ends:
            raise UserError(
                f"model.overlap = {self.model.overlap} needs diffusion.drop_ends above 0: neighbours are seen at ends "
                "that are not given"
            )
        if self.weight_decay and self.model.weights == "magnitude_preserving":
            raise UserError(
                f"weight_decay = {self.weight_decay} must be 0 with model.weights = magnitude_preserving, which forces "
                "the norms that it would shrink"
            )


def what_trains(config: Config) -> Config:
    """The config without what changes no weight: how a training is watched and kept stands at its defaults."""
    names = ("log_every", "evaluate_every", "evaluate_episodes", "checkpoint_every", "keep_checkpoints")
    return replace(config, **{name: getattr(Config, name) for name in names})


def from_dict(values: Mapping[str, Any]) -> Config:
    """A config from nested plain values.

    Raises:
        UserError: an unknown key, a value of the wrong type or range; one line that names the field.
    """
    config = options.from_dict(Config, values)
    return replace(config, data=replace(config.data, dataset=usual_id(config.data.dataset)))


ALIASES = {"stitch": "hash", "stitch-cells": "medium-cells", "stitch-walls": "serpentine"}
"""Earlier names of presets, which stored commands tell."""


def preset_names() -> list[str]:
    """The names of the planner presets that ship with the package."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def _preset_folder() -> Path:
    here = Path(__file__).resolve().parent
    installed = here / "configs" / "planner"
    return installed if installed.is_dir() else here.parent / "configs" / "planner"


def load_preset(name_or_path: str | Path) -> dict[str, Any]:
    """The values of a shipped preset or of a YAML file.

    Raises:
        UserError: no such preset, or a file that is not a YAML mapping.
    """
    path = Path(name_or_path)
    shipped = _preset_folder() / f"{ALIASES.get(str(name_or_path), name_or_path)}.yaml"
    if path.suffix not in (".yaml", ".yml") and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise UserError(f"preset {str(name_or_path)!r} is no file; shipped are {', '.join(preset_names())}")
    values = load_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping of settings")
    return values
