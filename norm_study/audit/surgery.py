"""Exchange the norms inside any network, its own or somebody else's.

    replace_norms(UNet1DModel(...), "channel")

Letters: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from groundwork.errors import UserError
from planner.norm_layers import ChannelNorm, PackNorm
from planner.norms import WHOLE_KINDS, NormKind, make_norm, norm_facts


@dataclass(frozen=True)
class Exchange:
    """One norm that is, or would be, exchanged.

    Attributes:
        name: of the module.
        type: its class before.
        channels: C.
        to: the new kind.
        carried: which of its parameters the new norm took over.
        dropped: which the new norm has no place of the same shape for.
    """

    name: str
    type: str
    channels: int
    to: NormKind
    carried: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Surgery:
    """What was, or would be, done.

    Attributes:
        exchanges: one per norm, in the network's order.
        kept: norms over the channels of each time step in a channels-last layout, which need no exchange.
        parameters_before: number of parameters of the network as it came.
        parameters_after: number of parameters with the new norms.
    """

    exchanges: list[Exchange]
    kept: list[str]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        lines = [f"{e.name}: {e.type}({e.channels}) -> {e.to}" + _words(e) for e in self.exchanges]
        lines += [
            f"{name}: kept, it is taken over the last axis alone: local if that axis is channels; audit it"
            for name in self.kept
        ]
        return "\n".join([*lines, f"parameters: {self.parameters_before} -> {self.parameters_after}"])


def _words(exchange: Exchange) -> str:
    return f" without its {' and '.join(exchange.dropped)}" if exchange.dropped else ""


def replace_norms(
    module: nn.Module,
    to: NormKind = "channel",
    *,
    groups: int = 8,
    leave: Sequence[str] = (),
    dry_run: bool = False,
) -> Surgery:
    """Exchanges every norm of a network in place, all of them or none.

    GroupNorm, InstanceNorm, BatchNorm, LayerNorm over (C, T) and this project's norms give way to a norm of
    :mod:`planner.norms`, which takes inputs (B, C, T), (B, C, 1, T), or of any more trailing dimensions. Weights of
    one number per channel are carried over; device, precision and mode stay. LayerNorm and RMSNorm over a last axis
    of channels are per-time-step norms already and stay too.

    Args:
        module: the network, in a layout with channels on axis 1 of its norms' inputs.
        to: the new kind, see :data:`planner.norms.NORM_TABLE`.
        groups: of kinds with groups.
        leave: names of modules to leave alone, with what is inside them.
        dry_run: only list what would change.

    Raises:
        UserError: an unknown kind, a name in ``leave`` that does not exist, or norms that cannot be exchanged, all of
            them by name; the network is then unchanged.
    """
    if to not in WHOLE_KINDS:
        raise UserError(f"to = {to!r} is not one of {', '.join(WHOLE_KINDS)}")
    names = {name for name, _ in module.named_modules()}
    for name in leave:
        if name not in names:
            raise UserError(f"leave = {name!r} names no module of {type(module).__name__}")
    before = _count(module)
    exchanges: list[Exchange] = []
    kept: list[str] = []
    refused: list[str] = []
    made: list[tuple[nn.Module, nn.Module]] = []
    for name, norm in _norms(module, "", set(leave)):
        if _per_time_step(norm):
            kept.append(name)
            continue
        channels = _channels(norm)
        reason = _refusal(name, norm, channels, to, groups)
        if reason or channels is None:
            refused.append(f"{name or 'the network itself'} ({type(norm).__name__}: {reason})")
            continue
        new, carried, dropped = _exchanged(norm, channels, to, groups)
        exchanges.append(Exchange(name, type(norm).__name__, channels, to, carried, dropped))
        made.append((norm, new))
    if refused:
        raise UserError(f"cannot exchange {len(refused)} of the norms; nothing was changed: " + "; ".join(refused))
    change = sum(_count(new) - _count(old) for old, new in made)
    if not dry_run:
        _put(module, {id(old): new for old, new in made})
    return Surgery(exchanges, kept, before, before + change)


def _count(module: nn.Module) -> int:
    """Parameters that have a size already; a lazy module's have none."""
    return sum(p.numel() for p in module.parameters() if not isinstance(p, nn.parameter.UninitializedParameter))


def _put(module: nn.Module, replaced: dict[int, nn.Module]) -> None:
    """Puts the new norms in every place of the old ones: a shared norm stays shared."""
    for parent in list(module.modules()):
        for own, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                parent._modules[own] = replaced[id(child)]


_KNOWN = (ChannelNorm, PackNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, _InstanceNorm, _BatchNorm)
_FORWARDS = {kind.forward for kind in _KNOWN}


def _known(module: nn.Module) -> bool:
    return type(module).forward in _FORWARDS


def _norms(
    module: nn.Module, name: str, leave: set[str], seen: set[int] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Every module that is a norm: the known ones, and those whose class says so and that contain none."""
    seen = set() if seen is None else seen
    if name in leave or id(module) in seen:
        return
    seen.add(id(module))
    if _known(module):
        yield name, module
        return
    found = [
        pair
        for own, child in module.named_children()
        for pair in _norms(child, f"{name}.{own}" if name else own, leave, seen)
    ]
    if not found and "norm" in type(module).__name__.lower() and not any(module.children()):
        yield name, module
    yield from found


def _per_time_step(norm: nn.Module) -> bool:
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm) or not _known(norm):
        return False
    shape: tuple[int, ...] = norm.normalized_shape
    return len(shape) == 1


def _channels(norm: nn.Module) -> int | None:
    match norm:
        case ChannelNorm() | PackNorm() | nn.GroupNorm():
            return norm.num_channels
        case nn.LayerNorm() | nn.RMSNorm():
            return int(norm.normalized_shape[0])
        case _BatchNorm() | _InstanceNorm():
            return int(norm.num_features)
        case _:
            return None


def _refusal(name: str, norm: nn.Module, channels: int | None, to: NormKind, groups: int) -> str | None:
    """Why a norm cannot be exchanged."""
    if not _known(norm):
        return "an unknown class; exchange it by hand, or leave it"
    if name == "":
        return "it has no place inside another module"
    if not channels:
        return "its number of channels is not known yet; run the network once"
    if not norm_facts(to).fits(channels, groups):
        return f"groups = {groups} cannot share out its {channels} channels"
    return None


def _exchanged(
    norm: nn.Module, channels: int, to: NormKind, groups: int
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """The new norm, and which parameters were carried over and which were dropped."""
    source = norm.instance if isinstance(norm, PackNorm) else norm
    eps = getattr(source, "eps", None)
    new = make_norm(to, channels, groups=groups, **({} if eps is None else {"eps": eps}))
    reference = next((t for t in [*norm.parameters(), *norm.buffers()] if t.is_floating_point()), torch.empty(0))
    new.to(device=reference.device, dtype=reference.dtype).train(norm.training)
    carried, dropped = [], []
    for own, old in source.named_parameters(recurse=False):
        place = getattr(new, own, None)
        if isinstance(place, Tensor) and place.shape == old.shape:
            place.data.copy_(old.data)
            place.requires_grad_(old.requires_grad)
            carried.append(own)
        else:
            dropped.append(own)
    return new, tuple(carried), tuple(dropped)
