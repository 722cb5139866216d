"""Every setting of a training run, in one place: frozen dataclasses, YAML presets and command-line options."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import cattrs
import yaml

from groundwork.errors import UserError
from planner.norms import NormKind
from planner.sampler import SamplerKind
from planner.unet import PaddingMode, Placement, check_architecture, check_horizon


def _option(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high})


class _Checked:
    """Checks the ranges that the fields state, naming field, value and bound."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value, low, high = getattr(self, item.name), item.metadata.get("low"), item.metadata.get("high")
            if low is not None and value < low:
                raise UserError(f"{item.name} = {value} must be at least {low}")
            if high is not None and value > high:
                raise UserError(f"{item.name} = {value} must be at most {high}")


@dataclass(frozen=True)
class DataConfig(_Checked):
    """Which windows of which dataset."""

    dataset: str = _option("mazes/hash-tasks-v0", "Minari dataset id")
    horizon: int = _option(64, "planned points per trajectory", low=2, high=2**16)
    stride: int = _option(4, "environment steps between planned points", low=1, high=2**16)
    actions: bool = _option(False, "plan the actions too, behind the state")
    hold_end: bool = _option(False, "windows may run past an episode's end, where the ball is held at rest (mazes)")
    validation_share: float = _option(0.05, "share of episodes held out from training", low=0, high=0.9)


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """The temporal U-Net; see :class:`planner.unet.TemporalUNet`."""

    dim: int = _option(32, "base width in channels", low=1, high=2**14)
    dim_mults: tuple[int, ...] = _option((1, 4, 8), "width multipliers, one per level")
    kernel_size: int = _option(5, "kernel of every block's convolutions, odd", low=1, high=2**16)
    padding_mode: PaddingMode = _option("zeros", "what convolutions see beyond the ends")
    norm: NormKind = _option("group", "normalization kind")
    norm_groups: int = _option(8, "groups of the group norm", low=1)
    norm_placement: Placement = _option("pre", "norm before (pre) or after (post) the activation")
    num_packs: int = _option(1, "packs that the horizon is cut into (isolated norms: 2 or more)", low=1)


@dataclass(frozen=True)
class DiffusionConfig(_Checked):
    """The noise process and how plans are sampled from it."""

    train_steps: int = _option(64, "noise levels of the diffusion process", low=2, high=10**5)
    prediction: Literal["sample", "noise"] = _option("sample", "what the network predicts")
    sampler: SamplerKind = _option("ddpm", "default sampler")
    sampling_steps: int = _option(64, "default number of sampling steps", low=1)


@dataclass(frozen=True)
class Config(_Checked):
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    seed: int = _option(0, "seed of weights, batches and noise", low=0, high=2**31 - 1)
    init_from: str = _option(
        "", "run folder, or shipped planner, whose moving average this run begins with; empty: random weights"
    )
    steps: int = _option(10_000, "optimizer steps", low=1)
    batch_size: int = _option(32, "windows per step", low=1, high=2**20)
    optimizer: Literal["adam", "adamw"] = _option("adam", "optimizer")
    learning_rate: float = _option(1e-3, "peak learning rate", low=0)
    warmup_steps: int = _option(100, "steps of linear warm-up", low=0)
    decay: Literal["none", "cosine"] = _option("cosine", "learning rate after the warm-up")
    weight_decay: float = _option(0.0, "weight decay (adamw: decoupled)", low=0)
    gradient_clip: float = _option(1.0, "largest gradient norm; 0 switches clipping off", low=0)
    ema_decay: float = _option(0.995, "decay of the exponential moving average per step", low=0, high=1)
    precision: Literal["float32", "bfloat16"] = _option("float32", "arithmetic of the forward pass")
    compile: bool = _option(False, "compile the network with torch.compile")
    log_every: int = _option(50, "steps between rows of metrics", low=1)
    evaluate_every: int = _option(2000, "steps between validations, figures and short rollouts; 0: never", low=0)
    evaluate_episodes: int = _option(2, "episodes per demonstrated task in a short rollout", low=1)
    checkpoint_every: int = _option(1000, "steps between checkpoints", low=1)
    keep_checkpoints: int = _option(3, "newest checkpoints to keep; 0 keeps all", low=0)

    def __post_init__(self) -> None:
        """Refuses what cannot be built, naming the numbers.

        Raises:
            UserError: a value out of its range, or two values that do not go together.
        """
        super().__post_init__()
        check_architecture(transition_dim=1, **dataclasses.asdict(self.model))
        check_horizon(self.data.horizon, self.model.dim_mults, self.model.num_packs)
        if self.diffusion.sampling_steps > self.diffusion.train_steps:
            raise UserError(
                f"diffusion.sampling_steps = {self.diffusion.sampling_steps} must be at most "
                f"diffusion.train_steps = {self.diffusion.train_steps}"
            )


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a string; scientists mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _whole(value: Any, _: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _truth(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not true or false")
    return value


def _text(value: Any, _: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is not a text")
    return value


def _choice(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if type(value) is not str or value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


def _whole_numbers(value: Any, _: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{value!r} is not a list of whole numbers such as 1,2")
    return tuple(_whole(item, int) for item in value)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, hook in ((int, _whole), (float, _number), (bool, _truth), (str, _text)):
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _choice)
    converter.register_structure_hook_func(lambda kind: kind == tuple[int, ...], _whole_numbers)
    return converter


_CONVERTER = _converter()


def _first_problem(error: BaseException, path: str) -> str:
    """The innermost first cause of cattrs' tree of errors, with the path to its field."""
    if isinstance(error, cattrs.ClassValidationError):
        grouped, _ = error.group_exceptions()
        if grouped:
            cause, note = grouped[0]
            return _first_problem(cause, f"{path}.{note.name}" if path else note.name)
        return _first_problem(error.exceptions[0], path)
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = ", ".join(item.name for item in dataclasses.fields(error.cl))
        unknown = ", ".join(sorted(f"{path}.{key}" if path else str(key) for key in error.extra_fields))
        return f"unknown key {unknown}; known are {known}"
    return str(error) if isinstance(error, UserError) else f"{path}: {error}"


def from_dict(values: Mapping[str, Any]) -> Config:
    """A config from nested plain values.

    Raises:
        UserError: an unknown key, a value of the wrong type or range; one line that names the field.
    """
    try:
        return _CONVERTER.structure(values, Config)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        raise UserError(_first_problem(error, "").replace("\n", " ")) from error


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested plain values; ``from_dict(to_dict(c)) == c``."""
    values = dataclasses.asdict(config)
    values["model"]["dim_mults"] = list(config.model.dim_mults)
    return values


def to_yaml(config: Config) -> str:
    """The config as YAML, itself a preset."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


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
    shipped = _preset_folder() / f"{name_or_path}.yaml"
    if path.suffix not in (".yaml", ".yml") and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise UserError(f"preset {str(name_or_path)!r} is no file; shipped are {', '.join(preset_names())}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # an impossible date or number is a plain ValueError
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping of settings")
    return values


def _leaves(kind: type = Config, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _leaves(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", hints[item.name], item


def _describe(kind: Any) -> str:
    match get_origin(kind):
        case origin if origin is Literal:
            return "{" + ",".join(get_args(kind)) + "}"
        case origin if origin in (Union, UnionType):
            return "|".join(_describe(part) for part in get_args(kind))
        case origin if origin is tuple:
            return "INT,INT,…"
        case _:
            return kind.__name__.upper()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds one option per setting, ``--model.norm`` and so on, with type, meaning and default."""
    group = parser.add_argument_group("settings (override the preset's)")
    for name, kind, item in _leaves():
        default = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
        group.add_argument(
            f"--{name}",
            metavar=_describe(kind),
            help=f"{item.metadata['help']} (default without preset: {default})",
            default=argparse.SUPPRESS,
        )


def parse_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line, as nested plain values."""
    values: dict[str, Any] = {}
    for name, kind, _ in _leaves():
        if not hasattr(arguments, name):
            continue
        text = getattr(arguments, name)
        target = values
        *rooms, last = name.split(".")
        for room in rooms:
            target = target.setdefault(room, {})
        target[last] = _parse(text, kind)
    return values


def _parse(text: str, kind: Any) -> Any:
    if kind is str or get_origin(kind) is Literal:
        return text
    parts: Sequence[str] = text.strip("[]()").split(",") if get_origin(kind) is tuple else (text,)
    try:
        parsed = [yaml.load(part, Loader=_Loader) for part in parts]  # a SafeLoader
    except (yaml.YAMLError, ValueError):
        return text
    return parsed if get_origin(kind) is tuple else parsed[0]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over`` written over its own."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged
