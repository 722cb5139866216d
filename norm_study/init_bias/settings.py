"""The sizes of the initial-prejudice experiments, whose fields are the command line's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundwork.errors import UserError
from groundwork.options import Settings, option
from planner.norms import WHOLE_KINDS, NormKind, norm_facts

Place = Literal["pre", "post"]
Activation = Literal["relu", "tanh", "gelu", "mish"]
Data = Literal["blobs", "digits"]
MLP_NORMS: tuple[NormKind, ...] = ("none", "batch", "layer")
SHOWN_DEPTHS = (1, 2, 5, 10)
NORM = "The network normalizes with this kind of layer."
DIGITS = 1797
"""So many of scikit-learn's digits there are."""


@dataclass(frozen=True)
class NetworkSizes(Settings):
    """A classifier of equal hidden layers; Kaiming-normal weights, zero biases."""

    norm: NormKind = option("none", f"{NORM} An mlp has {', '.join(MLP_NORMS)}.", choices=WHOLE_KINDS)
    place: Place = option(
        "pre",
        "The norm stands before (pre) or after (post) the activation.",
        old_values={"before": "pre", "after": "post"},
    )
    depth: int = option(20, "The network has this many hidden layers.", low=1)
    width: int = option(100, "A hidden layer has this many units (mlp) or channels (cnn).", low=1)
    activation: Activation = option("relu", "The network's nonlinearity.")
    classes: int = option(2, "The network has this many outputs; of the digits these are the first.", low=2)
    data: Data = option("blobs", "The data are Gaussian blobs, or scikit-learn's 8 by 8 digits.")
    dimensions: int = option(1000, "A blob's points have this many dimensions.", low=1)


@dataclass(frozen=True)
class InitBiasConfig(NetworkSizes):
    """What untrained classifiers guess: the share f0 of the data in class 0, over initialisations."""

    network: Literal["mlp", "cnn"] = option("mlp", "The network's architecture.")
    kernel: int = option(3, "The cnn's convolutions have this kernel size, an odd number.", low=1)
    groups: int = option(4, "The cnn's group norm has this many groups of channels.", low=1)
    inits: int = option(2000, "This many networks are initialised per seed.", low=2)
    points: int = option(1000, "Each network classifies this many data points; f0 is a multiple of 1/points.", low=2)
    suite: Literal["one", "paper"] = option(
        "one", "Measure this norm and place, or the paper's norms and places at depths 1, 2, 5, 10 and --depth."
    )

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths whose outputs are read, ascending; ``depth`` is the last."""
        return (*(depth for depth in SHOWN_DEPTHS if depth < self.depth), self.depth)

    def check(self) -> None:
        """The kernel has a middle, groups divide the width, the data suffice."""
        if self.network == "mlp" and self.norm not in MLP_NORMS:
            raise UserError(f"norm = {self.norm} needs network = cnn; an mlp has {', '.join(MLP_NORMS)}")
        if self.suite == "paper" and self.network == "cnn":
            raise UserError("suite = paper needs network = mlp")
        facts = norm_facts(self.norm)
        if (self.network, self.place, facts.over, facts.channels) == ("cnn", "post", ("time",), "each"):
            raise UserError(f"norm = {self.norm} with place = post takes away the mean over time that outputs read")
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")
        if not facts.fits(self.width, self.groups):
            raise UserError(f"groups = {self.groups} must divide width = {self.width}")
        if self.data == "digits" and self.points > DIGITS:
            raise UserError(f"points = {self.points} must be at most {DIGITS}, the digits that there are")


@dataclass(frozen=True)
class InitBiasBenchConfig(InitBiasConfig, defaults={"inits": 256}, hidden=("kernel", "groups")):
    """Speed of the batched initialisations: at few points against one by one, at many against the matmul rate."""

    norm: NormKind = option("batch", NORM, choices=MLP_NORMS)
    network: Literal["mlp"] = "mlp"
    suite: Literal["one"] = "one"
    few_points: int = option(16, "At this many data points one network leaves the machine idle.", low=2)
    repeats: int = option(3, "Each is timed this many times, and the fastest counts.", low=1)


@dataclass(frozen=True)
class InitBiasTrainingConfig(NetworkSizes, defaults={"classes": 10, "data": "digits", "dimensions": 100}):
    """How long the initial prejudice lasts: many classifiers trained at once from one placement of the norm."""

    norm: NormKind = option("none", NORM, choices=MLP_NORMS)
    networks: int = option(4, "This many networks are trained per seed.", low=1)
    batch: int = option(64, "A training step sees this many data points.", low=2)
    steps: int = option(300, "The networks learn for this many training steps.", low=1)
    learning_rate: float = option(1e-3, "Adam's learning rate, which is constant.", low=1e-9)
    held_out: int = option(400, "This many data points are kept from training and judged on.", low=2)
    even_within: float = option(
        0.2, "Predicted class shares no farther than this from the true ones count as no bias.", low=0, high=1
    )
    learned_at: float = option(0.8, "This accuracy counts as learned.", low=0, high=1)

    def check(self) -> None:
        """Ten digits, and something to train on."""
        if self.data == "digits" and self.classes > 10:
            raise UserError(f"classes = {self.classes} must be at most 10, the digits that there are")
        if self.data == "digits" and self.held_out > 150 * self.classes:
            raise UserError(f"held_out = {self.held_out} must be at most {150 * self.classes} of these digits")


@dataclass(frozen=True)
class InitBiasUNetConfig(Settings):
    """The planner's U-Net: what it predicts before training, and its first losses, by norm and placement."""

    preset: str = option("hash-short", "The planner's settings come from this preset, a shipped name or a YAML file.")
    dataset: str = option("mazes/hash-tasks-v0", "The windows come from the dataset of this id.", metavar="ID")
    norms: tuple[NormKind, ...] = option(
        ("group", "channel", "batch"),
        "Each of these norms stands before and after the activation; none is always measured.",
        choices=tuple(kind for kind in WHOLE_KINDS if kind != "none"),
    )
    inits: int = option(100, "This many untrained networks predict per seed.", low=2)
    windows: int = option(64, "Each of them predicts this many windows.", low=2)
    loss_steps: int = option(500, "The loss of this many training steps is recorded.", low=1)
