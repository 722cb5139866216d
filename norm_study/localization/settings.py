"""The sizes of every experiment: frozen dataclasses whose fields are the command line's options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from groundwork.errors import UserError
from planner.norms import NormKind

Inputs = Literal["noise", "constant"]
RATE = "Adam's peak learning rate (100 steps warm-up, then cosine)"


def option(default: Any, help: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """A field with its ``--help`` text and the range that is allowed, both ends included."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, **more})


@dataclass(frozen=True)
class Checked:
    """Checks types and ranges on construction and names the field, the value and what is allowed."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, limits = getattr(self, item.name), item.metadata
            for one in value if isinstance(value, tuple) else (value,):
                self._check(item.name, one, limits.get("low"), limits.get("high"))
        self.check_sizes()

    @staticmethod
    def _check(name: str, value: Any, low: float | None, high: float | None) -> None:
        if isinstance(value, bool | str):
            return
        if not math.isfinite(value):
            raise UserError(f"{name} = {value} must be a finite number")
        if low is not None and value < low:
            raise UserError(f"{name} = {value} must be at least {low}")
        if high is not None and value > high:
            raise UserError(f"{name} = {value} must be at most {high}")

    def check_sizes(self) -> None:
        """What fields demand of each other."""


@dataclass(frozen=True)
class Training(Checked):
    """How long and how fast a network learns."""

    batch: int = option(64, "sequences per step", low=1)
    steps: int = option(4000, "training steps", low=1)
    learning_rate: float = option(2e-3, RATE, low=1e-9)


@dataclass(frozen=True)
class Testing(Checked):
    """Definition 2.3's parameters."""

    predictions: int = option(10_000, "predictions per index for Welch's test", low=2)
    alpha: float = option(0.01, "level of each test", low=1e-12, high=0.5)


@dataclass(frozen=True)
class ConvolutionSizes(Checked):
    """Equation (1)."""

    length: int = option(64, "sequence length L", low=2)
    depth: int = option(8, "convolutions D", low=2)
    kernel: int = option(5, "kernel size k, odd", low=1)
    width: int = option(32, "hidden channels h", low=1)

    @property
    def reach(self) -> int:
        """r, the one-sided immediate receptive field."""
        return self.depth * (self.kernel - 1) // 2

    def check_sizes(self) -> None:
        """The kernel has a middle."""
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")


@dataclass(frozen=True)
class LocalizationConfig(Testing, Training, ConvolutionSizes):
    """One run of problem 2.1."""

    norm: NormKind = option("instance", "normalization kind", choices=get_args(NormKind))
    groups: int = option(8, "groups of the group norm", low=1)
    minibatch: int = option(2, "sequences that share the statistics of the batch norm", low=2)
    inputs: Inputs = option("noise", "N(0, 1) noise, or one such number per sequence", choices=get_args(Inputs))

    def check_sizes(self) -> None:
        """Groups divide the width, minibatches the batch."""
        super().check_sizes()
        if self.norm == "group" and self.width % self.groups:
            raise UserError(f"groups = {self.groups} must divide width = {self.width}")
        if self.norm == "batch" and (self.batch % self.minibatch or self.predictions % self.minibatch):
            raise UserError(
                f"minibatch = {self.minibatch} must divide batch = {self.batch} and predictions = {self.predictions}"
            )
        if self.norm in ("packnorm_isolated", "instance_isolated"):
            raise UserError(f"norm = {self.norm} needs packs: see norm-study packnorm")


@dataclass(frozen=True)
class MultihopConfig(LocalizationConfig):
    """A sequence longer than a single hop can cross: 3r < L/2."""

    length: int = option(56, "sequence length L", low=2)
    kernel: int = option(3, "kernel size k, odd", low=1)
    width: int = option(64, "hidden channels h", low=1)
    batch: int = option(32, "sequences per step", low=1)
    steps: int = option(11_000, "training steps", low=1)
    learning_rate: float = option(3e-3, RATE, low=1e-9)

    def check_sizes(self) -> None:
        """One hop must not reach the middle."""
        super().check_sizes()
        if 3 * self.reach >= self.length / 2:
            raise UserError(f"length = {self.length} must exceed 6 r = {6 * self.reach}, with r = D (k - 1) / 2")


@dataclass(frozen=True)
class BatchNormConfig(LocalizationConfig):
    """Figures 5 and 6: a short sequence and a small minibatch, accumulated to ``batch``."""

    norm: NormKind = option("batch", "normalization kind", choices=("batch",))
    length: int = option(40, "sequence length L", low=2)
    depth: int = option(6, "convolutions D", low=2)
    width: int = option(64, "hidden channels h", low=1)
    batch: int = option(32, "sequences per step, a whole number of minibatches", low=1)
    steps: int = option(5000, "training steps", low=1)
    learning_rate: float = option(3e-3, RATE, low=1e-9)
    calibration: int = option(1000, "minibatches averaged into the running statistics", low=1)


@dataclass(frozen=True)
class ProbeSizes(Checked):
    """The probes: MLPs of two hidden layers, applied index by index."""

    probe_width: int = option(64, "width of the probe's two hidden layers", low=1)
    probe_steps: int = option(1500, "training steps of the probes", low=1)
    probe_batch: int = option(32, "sequences per step of the probes", low=1)
    probe_learning_rate: float = option(2e-3, "Adam's peak learning rate of the probes", low=1e-9)


@dataclass(frozen=True)
class ProbeConfig(ProbeSizes, LocalizationConfig):
    """Figure 1b: one probe per hidden layer of one network."""


@dataclass(frozen=True)
class GroupsConfig(ProbeSizes, LocalizationConfig):
    """Figure 4: the group sweep, the best learning rate of each group count."""

    norm: NormKind = option("group", "normalization kind", choices=("group",))
    group_counts: tuple[int, ...] = option((1, 2, 8, 32), "group counts, one network each", low=1)
    learning_rates: tuple[float, ...] = option((2e-3, 4e-3), "learning rates tried for each", low=1e-9)
    length: int = option(80, "sequence length L", low=2)
    width: int = option(32, "hidden channels h", low=1)
    batch: int = option(32, "sequences per step", low=1)
    steps: int = option(3000, "training steps", low=1)
    probe_steps: int = option(400, "training steps of the probes", low=1)

    def check_sizes(self) -> None:
        """Every count divides the width."""
        for count in self.group_counts:
            if self.width % count:
                raise UserError(f"group_counts = {count} must divide width = {self.width}")


@dataclass(frozen=True)
class PackNormConfig(Training, ConvolutionSizes):
    """Section 3.2: two sequences of which a part is common, joined by nothing but PackNorm."""

    overlap: int = option(16, "common entries of the two sequences", low=0)
    coupled: bool = option(True, "join the two in the norm layers; otherwise each is normalized alone")
    length: int = option(33, "sequence length L", low=1)
    depth: int = option(6, "convolutions D", low=2)
    batch: int = option(32, "pairs of sequences per step", low=1)
    steps: int = option(5000, "training steps", low=1)
    learning_rate: float = option(3e-3, RATE, low=1e-9)
    predictions: int = option(4000, "fresh pairs that the error is taken over", low=2)

    def check_sizes(self) -> None:
        """The convolutions leave something, and the overlap fits."""
        super().check_sizes()
        if self.overlap > self.length:
            raise UserError(f"overlap = {self.overlap} must be at most length = {self.length}")
        if self.length <= 2 * self.reach:
            raise UserError(f"length = {self.length} must exceed D (k - 1) = {2 * self.reach}: no padding here")


@dataclass(frozen=True)
class UNetConfig(Testing, Training):
    """The paper's case study: the planner's U-Net on problem 2.1."""

    norm: NormKind = option("group", "normalization kind", choices=get_args(NormKind))
    groups: int = option(8, "groups of the group norm", low=1)
    length: int = option(64, "sequence length L", low=2)
    dim: int = option(32, "base width in channels", low=2)
    dim_mults: tuple[int, ...] = option((1,), "width multipliers, one per level", low=1)
    kernel: int = option(5, "kernel size, odd", low=1)
    batch: int = option(32, "sequences per step", low=1)
    steps: int = option(2000, "training steps", low=1)
    learning_rate: float = option(3e-3, RATE, low=1e-9)

    @property
    def total_stride(self) -> int:
        """A norm-free U-Net is equivariant only to shifts by this many indices."""
        return 2 ** (len(self.dim_mults) - 1)

    def check_sizes(self) -> None:
        """The kernel has a middle, the length halves as often as there are levels, groups divide widths."""
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")
        if self.length % self.total_stride:
            raise UserError(f"length = {self.length} must be divisible by {self.total_stride}")
        if self.norm == "group" and self.dim % self.groups:
            raise UserError(f"groups = {self.groups} must divide dim = {self.dim}")
        if self.norm in ("packnorm_isolated", "instance_isolated"):
            raise UserError(f"norm = {self.norm} needs packs: see norm-study packnorm")
