"""The sizes of every experiment: frozen dataclasses whose fields are the command line's options.

A field that is no option is what its experiment fixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundwork.errors import UserError
from groundwork.options import Settings, option
from planner.norms import WHOLE_KINDS, NormKind, norm_facts

Inputs = Literal["noise", "constant"]
LENGTH = "A sequence has this length L."
KERNEL = "The convolutions have this kernel size k, an odd number."
NORM = "The network normalizes with this kind of layer."
GROUPS = "The group norm has this many groups of channels."


@dataclass(frozen=True)
class Training(Settings):
    """How long and how fast a network learns."""

    batch: int = option(64, "A training step sees this many sequences.", low=1)
    steps: int = option(4000, "The network learns for this many training steps.", low=1)
    learning_rate: float = option(
        2e-3, "Adam's peak learning rate, after 100 warm-up steps, before a cosine decay.", low=1e-9
    )


@dataclass(frozen=True)
class Testing(Settings):
    """Definition 2.3's parameters."""

    predictions: int = option(10_000, "Welch's test takes this many predictions per index.", low=2)
    alpha: float = option(0.01, "The level of each test.", low=1e-12, high=0.5)


@dataclass(frozen=True)
class ConvolutionSizes(Settings):
    """Equation (1)."""

    length: int = option(64, LENGTH, low=2)
    depth: int = option(8, "The network has this depth D in convolutions.", low=2)
    kernel: int = option(5, KERNEL, low=1)
    width: int = option(32, "A hidden layer has this width h in channels.", low=1)

    @property
    def reach(self) -> int:
        """r, the one-sided immediate receptive field."""
        return self.depth * (self.kernel - 1) // 2

    def check(self) -> None:
        """The kernel has a middle."""
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")


@dataclass(frozen=True)
class NormedTraining(Training, ConvolutionSizes):
    """A network with a norm, and how it learns."""

    norm: NormKind = option("instance", NORM, choices=WHOLE_KINDS)
    groups: int = option(8, GROUPS, low=1)
    minibatch: int = option(2, "This many sequences share the statistics of the batch norm.", low=2)

    @property
    def pools_minibatches(self) -> bool:
        """Whether the norm takes statistics over sequences."""
        return "batch" in norm_facts(self.norm).over

    def check(self) -> None:
        """Groups divide the width, minibatches the batch."""
        super().check()
        if not norm_facts(self.norm).fits(self.width, self.groups):
            raise UserError(f"groups = {self.groups} must divide width = {self.width}")
        if self.pools_minibatches and self.batch % self.minibatch:
            raise UserError(f"minibatch = {self.minibatch} must divide batch = {self.batch}")


@dataclass(frozen=True)
class LocalizationConfig(Testing, NormedTraining):
    """One run of problem 2.1."""

    inputs: Inputs = option("noise", "The network sees N(0, 1) noise, or one such number per sequence.")

    def check(self) -> None:
        """Minibatches divide the predictions too."""
        super().check()
        if self.pools_minibatches and self.predictions % self.minibatch:
            raise UserError(f"minibatch = {self.minibatch} must divide predictions = {self.predictions}")


@dataclass(frozen=True)
class MultihopConfig(
    LocalizationConfig,
    defaults={"length": 56, "kernel": 3, "width": 64, "batch": 32, "steps": 11_000, "learning_rate": 3e-3},
):
    """A sequence longer than a single hop can cross: 3r < L/2."""

    def check(self) -> None:
        """One hop must not reach the middle."""
        super().check()
        if 3 * self.reach >= self.length / 2:
            raise UserError(f"length = {self.length} must exceed 6 r = {6 * self.reach}, with r = D (k - 1) / 2")


@dataclass(frozen=True)
class BatchNormConfig(
    LocalizationConfig,
    defaults={"length": 40, "depth": 6, "width": 64, "batch": 32, "steps": 5000, "learning_rate": 3e-3},
    hidden=("groups",),
):
    """Figures 5 and 6: a short sequence and a small minibatch, accumulated to ``batch``."""

    norm: Literal["batch"] = "batch"
    calibration: int = option(1000, "The running statistics are an average over this many minibatches.", low=1)


@dataclass(frozen=True)
class ProbeSizes(Settings):
    """The probes: MLPs of two hidden layers, applied index by index."""

    probe_width: int = option(64, "The probe's two hidden layers have this width.", low=1)
    probe_steps: int = option(1500, "The probes learn for this many training steps.", low=1)
    probe_batch: int = option(32, "A training step of the probes sees this many sequences.", low=1)
    probe_learning_rate: float = option(2e-3, "Adam's peak learning rate of the probes.", low=1e-9)


@dataclass(frozen=True)
class ProbeConfig(ProbeSizes, LocalizationConfig):
    """Figure 1b: one probe per hidden layer of one network."""


@dataclass(frozen=True)
class GroupsConfig(
    ProbeSizes,
    LocalizationConfig,
    defaults={"length": 80, "batch": 32, "steps": 3000, "probe_steps": 400},
    hidden=("groups", "minibatch", "learning_rate"),
):
    """Figure 4: the group sweep, the best learning rate of each group count."""

    norm: Literal["group"] = "group"
    group_counts: tuple[int, ...] = option((1, 2, 8, 32), "The group norm has these numbers of groups in turn.", low=1)
    learning_rates: tuple[float, ...] = option(
        (2e-3, 4e-3), "These peak learning rates are tried for each number of groups.", low=1e-9
    )

    def check(self) -> None:
        """Every count divides the width."""
        for count in self.group_counts:
            if self.width % count:
                raise UserError(f"group_counts = {count} must divide width = {self.width}")
        super().check()


@dataclass(frozen=True)
class PackNormConfig(
    Training, ConvolutionSizes, defaults={"length": 33, "depth": 6, "steps": 5000, "learning_rate": 3e-3}
):
    """Section 3.2: two sequences of which a part is common, joined by nothing but PackNorm."""

    overlap: int = option(16, "The two sequences have this many entries in common.", low=0)
    coupled: bool = option(True, "Join the two in the norm layers; otherwise each is normalized alone.")
    batch: int = option(32, "A training step sees this many pairs of sequences.", low=1)
    predictions: int = option(4000, "The error is taken over this many fresh pairs.", low=2)

    def check(self) -> None:
        """The convolutions leave something, and the overlap fits."""
        super().check()
        if self.overlap > self.length:
            raise UserError(f"overlap = {self.overlap} must be at most length = {self.length}")
        if self.length <= 2 * self.reach:
            raise UserError(f"length = {self.length} must exceed D (k - 1) = {2 * self.reach}: no padding here")


@dataclass(frozen=True)
class UNetConfig(Testing, Training, defaults={"batch": 32, "steps": 2000, "learning_rate": 3e-3}):
    """The paper's case study: the planner's U-Net on problem 2.1."""

    norm: NormKind = option("group", NORM, choices=WHOLE_KINDS)
    groups: int = option(8, GROUPS, low=1)
    length: int = option(64, LENGTH, low=2)
    dim: int = option(32, "The network's base width in channels.", low=2)
    dim_mults: tuple[int, ...] = option(
        (1,), "The widths of the network's levels are these multiples of its base width.", low=1
    )
    kernel: int = option(5, KERNEL, low=1)

    @property
    def total_stride(self) -> int:
        """A norm-free U-Net is equivariant only to shifts by this many indices."""
        return 2 ** (len(self.dim_mults) - 1)

    def check(self) -> None:
        """The kernel has a middle, the length halves as often as there are levels, groups divide widths."""
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")
        if self.length % self.total_stride:
            raise UserError(f"length = {self.length} must be divisible by {self.total_stride}")
        if not norm_facts(self.norm).fits(self.dim, self.groups):
            raise UserError(f"groups = {self.groups} must divide dim = {self.dim}")


@dataclass(frozen=True)
class BenchConfig(
    NormedTraining, defaults={"length": 32, "depth": 6, "kernel": 3, "width": 16, "batch": 16, "steps": 60}
):
    """Networks small enough that a single one leaves the machine idle."""

    networks: int = option(16, "This many networks are trained at once.", low=1)
    repeats: int = option(3, "Either is timed this many times, and the fastest counts.", low=1)
