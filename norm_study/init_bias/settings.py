"""The sizes of the initial-prejudice experiments, whose fields are the command line's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from groundwork.errors import UserError
from norm_study.localization.settings import Checked, option
from planner.norms import ISOLATED, NORM_KINDS, NormKind

Place = Literal["before", "after"]
Activation = Literal["relu", "tanh", "gelu", "mish"]
Data = Literal["blobs", "digits"]
MLP_NORMS: tuple[NormKind, ...] = ("none", "batch", "layer")
SHOWN_DEPTHS = (1, 2, 5, 10)


@dataclass(frozen=True)
class NetworkSizes(Checked):
    """A classifier of equal hidden layers; Kaiming-normal weights, zero biases."""

    norm: NormKind = option("none", "normalization kind; an mlp has none, batch and layer", choices=get_args(NormKind))
    place: Place = option("before", "norm before or after the activation", choices=get_args(Place))
    depth: int = option(20, "hidden layers", low=1)
    width: int = option(100, "units (mlp) or channels (cnn) of a hidden layer", low=1)
    activation: Activation = option("relu", "nonlinearity", choices=get_args(Activation))
    classes: int = option(2, "outputs", low=2)
    data: Data = option("blobs", "Gaussian blobs, or scikit-learn's 8 by 8 digits", choices=get_args(Data))
    dimensions: int = option(1000, "of a blob's points", low=1)

    def check_sizes(self) -> None:
        """Norms that a layer can have."""
        if self.norm in ISOLATED:
            raise UserError(f"norm = {self.norm} needs packs: see norm-study packnorm")


@dataclass(frozen=True)
class InitBiasConfig(NetworkSizes):
    """What untrained classifiers guess: the share f0 of the data in class 0, over initialisations."""

    network: Literal["mlp", "cnn"] = option("mlp", "architecture", choices=("mlp", "cnn"))
    kernel: int = option(3, "kernel size of the cnn, odd", low=1)
    groups: int = option(4, "groups of the cnn's group norm", low=1)
    inits: int = option(2000, "initialisations per seed", low=2)
    points: int = option(1000, "data points that each network classifies; f0 is a multiple of 1/points", low=2)
    suite: Literal["one", "paper"] = option(
        "one", "paper: all norms and places at depths 1, 2, 5, 10 and --depth", choices=("one", "paper")
    )

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths whose outputs are read, ascending; ``depth`` is the last."""
        return (*(depth for depth in SHOWN_DEPTHS if depth < self.depth), self.depth)

    def check_sizes(self) -> None:
        """The kernel has a middle, groups divide the width, the data suffice."""
        super().check_sizes()
        if self.network == "mlp" and self.norm not in MLP_NORMS:
            raise UserError(f"norm = {self.norm} needs network = cnn; an mlp has {', '.join(MLP_NORMS)}")
        if self.suite == "paper" and self.network == "cnn":
            raise UserError("suite = paper needs network = mlp")
        if (self.network, self.norm, self.place) == ("cnn", "instance", "after"):
            raise UserError("norm = instance with place = after takes away the mean over time that the outputs read")
        if self.kernel % 2 == 0:
            raise UserError(f"kernel = {self.kernel} must be odd")
        if self.norm == "group" and self.width % self.groups:
            raise UserError(f"groups = {self.groups} must divide width = {self.width}")
        if self.data == "digits" and self.points > 1797:
            raise UserError(f"points = {self.points} must be at most 1797, the digits that there are")


@dataclass(frozen=True)
class InitBiasTrainingConfig(NetworkSizes):
    """How long the initial prejudice lasts: many classifiers trained at once from one placement of the norm."""

    norm: NormKind = option("none", "normalization kind", choices=MLP_NORMS)
    classes: int = option(10, "outputs; of the digits the first so many", low=2)
    data: Data = option("digits", "scikit-learn's 8 by 8 digits, or Gaussian blobs", choices=get_args(Data))
    dimensions: int = option(100, "of a blob's points", low=1)
    networks: int = option(4, "networks per seed", low=1)
    batch: int = option(64, "data points per step", low=2)
    steps: int = option(300, "training steps", low=1)
    learning_rate: float = option(1e-3, "Adam's learning rate, constant", low=1e-9)
    held_out: int = option(400, "data points that are kept from training and judged on", low=2)
    even_within: float = option(
        0.2, "largest distance of predicted from true class shares that counts as no bias", low=0, high=1
    )
    learned_at: float = option(0.8, "accuracy that counts as learned", low=0, high=1)

    def check_sizes(self) -> None:
        """Ten digits, and something to train on."""
        super().check_sizes()
        if self.data == "digits" and self.classes > 10:
            raise UserError(f"classes = {self.classes} must be at most 10, the digits that there are")
        if self.data == "digits" and self.held_out > 150 * self.classes:
            raise UserError(f"held_out = {self.held_out} must be at most {150 * self.classes} of these digits")


@dataclass(frozen=True)
class InitBiasUNetConfig(Checked):
    """The planner's U-Net: what it predicts before training, and its first losses, by norm and placement."""

    preset: str = option("hash", "the planner's settings: a shipped name or a YAML file")
    dataset: str = option("mazes/hash-tasks-v0", "Minari dataset id")
    norms: tuple[str, ...] = option(("group", "channel", "batch"), "norms, each before and after the activation")
    inits: int = option(100, "untrained networks per seed", low=2)
    windows: int = option(64, "windows that each of them predicts", low=2)
    loss_steps: int = option(500, "training steps whose loss is recorded", low=1)

    def check_sizes(self) -> None:
        """Norms that the U-Net has without packs."""
        for norm in self.norms:
            if norm == "none" or norm not in NORM_KINDS or norm in ISOLATED:
                allowed = ", ".join(kind for kind in NORM_KINDS if kind not in (*ISOLATED, "none"))
                raise UserError(f"norms = {norm} is not one of {allowed}; none is always measured")
