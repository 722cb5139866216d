"""The norms: one table says over what each takes its statistics, and all else follows; no torch is needed to read it.

Shapes: B batch, C channels, T time (or any trailing dimensions), P packs. Formulas: *Spooky Action at a
Distance* (arXiv 2507.04709), appendix A, equations (3) and (4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from groundwork.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NormFacts:
    """What a norm is.

    Attributes:
        statistics: over what it takes them, in words.
        channels: whose statistics are one: ``each`` channel's own, those of a ``group``, or ``all``.
        over: the other axes that they are taken over: ``batch``, ``packs`` of a trajectory, ``time``, or of time a
            ``window`` around each step or the ``past`` up to it.
        color: in figures, told apart by the color-blind.
        marker: in figures, Matplotlib's.
        centered: whether a mean is taken away where there are statistics; with it goes a shift per channel.
        packs: how few packs of a trajectory it works on; 1: it takes trajectories whole.
        pointwise: the function of learned scale that each value goes through, instead of statistics or before they
            divide it.
    """

    statistics: str
    channels: Literal["each", "group", "all"]
    over: tuple[Literal["batch", "packs", "time", "window", "past"], ...]
    color: str
    marker: str
    centered: bool = True
    packs: int = 1
    pointwise: Literal["", "tanh", "erf", "swish"] = ""

    @property
    def mixes_time_training(self) -> bool:
        """Whether one time step's output hears of another's input in training."""
        return not {"time", "window", "past"}.isdisjoint(self.over)

    @property
    def mixes_time_inference(self) -> bool:
        """The same at inference, where statistics over the batch are running ones."""
        return self.mixes_time_training and "batch" not in self.over

    @property
    def over_channels(self) -> bool:
        """Whether its statistics are those of all channels at one time step."""
        return self.channels == "all" and not self.over

    def fits(self, num_channels: int, groups: int) -> bool:
        """Whether so many groups divide the channels, where it needs groups; one value alone has no statistics."""
        if self.channels != "group":
            return True
        return groups >= 1 and num_channels % groups == 0 and (num_channels > groups or bool(self.over))


NORM_TABLE = {
    "group": NormFacts("channels of a group and time, per sample", "group", ("time",), "#D55E00", "s"),
    "none": NormFacts("nothing", "each", (), "#009E73", "D"),
    "channel": NormFacts("channels, per sample and time step", "all", (), "#0072B2", "o"),
    "instance": NormFacts("time, per sample and channel", "each", ("time",), "#CC79A7", "^"),
    "layer": NormFacts("channels and time, per sample", "all", ("time",), "#E69F00", "v"),
    "batch": NormFacts(
        "batch and time, per channel; running statistics at inference", "each", ("batch", "time"), "#56B4E9", "P"
    ),
    "rms": NormFacts("channels, per sample and time step, without a mean", "all", (), "#000000", "*", centered=False),
    "packnorm_isolated": NormFacts(
        "time of all packs joined, per trajectory and channel", "each", ("packs", "time"), "#882255", "X", packs=2
    ),
    "instance_isolated": NormFacts("time of one pack, per channel", "each", ("time",), "#999999", "h", packs=2),
    "group_step": NormFacts("channels of a group, per sample and time step", "group", (), "#332288", "<"),
    "group_window": NormFacts(
        "channels of a group and a sliding window of time, per sample", "group", ("window",), "#B07AA1", ">"
    ),
    "cumulative": NormFacts("channels of a group and time so far, per sample", "group", ("past",), "#661100", "p"),
    "dyt": NormFacts("nothing; tanh of each value, scaled", "each", (), "#117733", "d", pointwise="tanh"),
    "derf": NormFacts("nothing; erf of each value, scaled and moved", "each", (), "#44AA99", "H", pointwise="erf"),
    "evonorm_local": NormFacts(
        *("channels of a group, per sample and time step; swish of each value over them", "group", (), "#AA4499", "8"),
        pointwise="swish",
    ),
}
NORM_KINDS = tuple(NORM_TABLE)
LEGEND = tuple(sorted(NORM_TABLE, key=lambda kind: NORM_TABLE[kind].mixes_time_inference))
"""The norms in the order of every legend, chart and table of results: those that pool over time when they plan stand
together, behind those that do not."""
WHOLE_KINDS = tuple(kind for kind, facts in NORM_TABLE.items() if facts.packs == 1)
"""The kinds that take trajectories whole, not packs of them."""

if TYPE_CHECKING:
    NormKind = str
else:
    NormKind = Literal[NORM_KINDS]


def in_legend_order(labels: Iterable[str]) -> list[str]:
    """Labels that begin with a norm's name, such as ``group, post``, in the order of :data:`LEGEND`; others last."""
    places = {kind: place for place, kind in enumerate(LEGEND)}
    return sorted(labels, key=lambda label: places.get(norm_of(label), len(places)))


def norm_of(label: str) -> str:
    """The norm's name that a label begins with."""
    return re.split(r"\W", label, maxsplit=1)[0]


def norm_facts(kind: NormKind) -> NormFacts:
    """The table's entry.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in NORM_KINDS:
        raise UserError(f"norm = {kind!r} is not one of {', '.join(NORM_KINDS)}")
    return NORM_TABLE[kind]


def mixes_time(kind: NormKind, training: bool) -> bool:
    """Whether a time step's output depends on other time steps' inputs through the norm.

    ``instance_isolated`` mixes the steps of one pack, and nothing between packs.
    """
    facts = norm_facts(kind)
    return facts.mixes_time_training if training else facts.mixes_time_inference


def packs_of(kind: NormKind, num_packs: int = 0) -> int:
    """The number of packs that a norm works on: as asked for, or if that is 0 as few as it can.

    Raises:
        UserError: an unknown kind, packs without an isolated norm or the reverse.
    """
    fewest = norm_facts(kind).packs
    if 0 != num_packs < fewest:
        raise UserError(f"norm = {kind} needs num_packs of at least {fewest}, not {num_packs}")
    if num_packs > 1 == fewest:
        isolated = ", ".join(other for other in NORM_KINDS if other not in WHOLE_KINDS)
        raise UserError(f"num_packs = {num_packs} needs an isolated norm ({isolated}), not {kind}")
    return num_packs or fewest


def make_norm(
    kind: NormKind,
    num_channels: int,
    *,
    groups: int = 8,
    num_packs: int = 0,
    window: int = 8,
    eps: float = 1e-5,
) -> nn.Module:
    """A norm layer for inputs (B, C, …) with one scale per channel and, if the kind is ``centered``, one shift.

    Args:
        kind: see :data:`NORM_TABLE`.
        num_channels: C.
        groups: of kinds with groups; divides C.
        num_packs: P of the isolated kinds, whose batch is ``(b p)``, the packs of a trajectory side by side; 0: as few
            as they can.
        window: time steps of the kinds with a sliding window.
        eps: added to the variance.

    Raises:
        UserError: an unknown kind, groups that do not divide C, packs without an isolated norm or the reverse.
    """
    from torch import nn

    from planner import norm_layers as layers

    facts, num_packs = norm_facts(kind), packs_of(kind, num_packs)
    if not facts.fits(num_channels, groups):
        raise UserError(f"norm_groups = {groups} cannot share out the {num_channels} channels under norm = {kind}")
    groups = {"each": num_channels, "group": groups, "all": 1}[facts.channels]
    match facts.over, facts.channels:
        case ((), "each"):
            pointwise = {"tanh": layers.DynamicTanh, "erf": layers.DynamicErf}
            return pointwise[facts.pointwise](num_channels) if facts.pointwise else nn.Identity()
        case ((), "group"):
            return (layers.EvoNorm if facts.pointwise else layers.ChannelGroupNorm)(groups, num_channels, eps)
        case ((), "all"):
            return (layers.ChannelNorm if facts.centered else layers.ChannelRMSNorm)(num_channels, eps)
        case (("window",) | ("past",), _):
            return layers.WindowedGroupNorm(groups, num_channels, window if "window" in facts.over else None, eps)
        case (("time",), _):  # packs lie in the batch, so that a pack is a sample
            return nn.GroupNorm(groups, num_channels, eps)
        case (("batch", "time"), "each"):
            return layers.BatchNorm(num_channels, eps)
        case (("packs", "time"), "each"):
            return layers.PackNorm(num_channels, num_packs, eps)
    raise AssertionError(f"no layer takes the statistics of {kind}")


def __getattr__(name: str) -> Any:
    """The layers of :mod:`planner.norm_layers`, which load torch, on use."""
    if name in ("ChannelNorm", "ChannelRMSNorm", "PackNorm"):
        from planner import norm_layers

        return getattr(norm_layers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
