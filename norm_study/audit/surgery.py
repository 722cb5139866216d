"""Exchange the norms inside any network, its own or somebody else's, and take the exchange back.

    surgery = replace_norms(UNet1DModel(...), "channel")
    restore_norms(network, surgery)

Letters: B batch, C channels, T time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from groundwork.errors import UserError
from norm_study.audit.preparation import require_module
from norm_study.audit.transplant import exchanged, is_known, kept_because, name_of_class, num_channels, refusal
from planner.norms import WHOLE_KINDS, NormKind


@dataclass(frozen=True)
class Exchange:
    """One norm that is, or would be, exchanged.

    Attributes:
        name: of the module.
        type: its class before.
        channels: C.
        to: the new kind.
        carried: what the new norm took over: parameters, running statistics, hooks.
        dropped: what it has no place for.
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
        kept: norms that need no exchange, by name, with the reason.
        parameters_before: number of parameters of the network as it came.
        parameters_after: number of parameters with the new norms.
        replaced: the old norm and the new one for every place; empty after a dry run.
    """

    exchanges: list[Exchange]
    kept: dict[str, str]
    parameters_before: int
    parameters_after: int
    replaced: Mapping[str, tuple[nn.Module, nn.Module]] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"{e.name}: {e.type}({e.channels}) -> {e.to}" + _words(e) for e in self.exchanges]
        lines += [f"{name}: kept, {reason}" for name, reason in self.kept.items()]
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

    GroupNorm, InstanceNorm, BatchNorm (synchronized too), LayerNorm over (C, T) and this project's norms give way to a
    norm of :mod:`planner.norms`, which takes inputs (B, C, T), (B, C, 1, T), or of any more trailing dimensions.
    Weights of one number per channel are carried over, with what parametrizes them, and so are running statistics where
    the new norm keeps some, hooks, device, precision and mode; what is lost is listed. LayerNorm and RMSNorm over a
    last axis of channels, and LocalResponseNorm, act on each time step and stay. Weight and spectral norm are no norms
    of this kind.

    Args:
        module: the network, in a layout with channels on axis 1 of its norms' inputs.
        to: the new kind, see :data:`planner.norms.NORM_TABLE`.
        groups: of kinds with groups.
        leave: names of modules to leave alone, with what is inside them.
        dry_run: only list what would change.

    Raises:
        UserError: no module, an unknown kind, a name in ``leave`` that does not exist, or norms that cannot be
            exchanged, all of them by name; the network is then unchanged.
    """
    require_module(module)
    if to not in WHOLE_KINDS:
        raise UserError(f"to = {to!r} is not one of {', '.join(WHOLE_KINDS)}")
    names = {name for name, _ in module.named_modules()}
    for name in leave:
        if name not in names:
            raise UserError(f"leave = {name!r} names no module of {type(module).__name__}")
    before = _count(module)
    owners = Counter(id(p) for part in module.modules() for p in part._parameters.values() if p is not None)
    exchanges: list[Exchange] = []
    kept: dict[str, str] = {}
    refused: list[str] = []
    made: dict[int, tuple[nn.Module, nn.Module]] = {}
    for name, norm in _norms(module, "", set(leave)):
        if why := kept_because(norm):
            kept[name] = why
            continue
        channels = num_channels(norm)
        reason = refusal(name, norm, channels, to, groups, owners)
        if reason or channels is None:
            refused.append(f"{name or 'the network itself'} ({name_of_class(norm)}: {reason})")
            continue
        new, carried, dropped = exchanged(norm, channels, to, groups)
        exchanges.append(Exchange(name, name_of_class(norm), channels, to, carried, dropped))
        made[id(norm)] = norm, new
    if refused:
        raise UserError(f"cannot exchange {len(refused)} of the norms; nothing was changed: " + "; ".join(refused))
    change = sum(_count(new) - _count(old) for old, new in made.values())
    return Surgery(exchanges, kept, before, before + change, {} if dry_run else _put(module, made))


def restore_norms(module: nn.Module, surgery: Surgery) -> None:
    """Takes an exchange back: the old norms return to their places, with the values that they had.

    They come in the device, precision and mode that the new ones have by now. What was learned since stays in the rest
    of the network.

    Args:
        module: the network that was given to :func:`replace_norms`.
        surgery: what that returned.

    Raises:
        UserError: no module, a dry run, or a place where there is another module by now; the network is then unchanged.
    """
    require_module(module)
    if surgery.exchanges and not surgery.replaced:
        raise UserError("this exchange was a dry run: there is nothing to restore")
    names = dict(module.named_modules(remove_duplicate=False))
    for name, (_, new) in surgery.replaced.items():
        if names.get(name) is not new:
            raise UserError(f"{name!r} is not the norm that the exchange put there; nothing was changed")
    for name, (old, new) in surgery.replaced.items():
        reference = next((t for t in [*new.parameters(), *new.buffers()] if t.is_floating_point()), None)
        if reference is not None:
            old.to(device=reference.device, dtype=reference.dtype)
        parent, _, own = name.rpartition(".")
        names[parent]._modules[own] = old.train(new.training)


def _count(module: nn.Module) -> int:
    """Parameters that have a size already; a lazy module's have none."""
    return sum(p.numel() for p in module.parameters() if not isinstance(p, nn.parameter.UninitializedParameter))


def _put(module: nn.Module, made: Mapping[int, tuple[nn.Module, nn.Module]]) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Puts the new norms in every place of the old ones, so that a shared norm stays shared; returns the places."""
    replaced = {}
    for path, parent in list(module.named_modules()):
        for own, child in list(parent._modules.items()):
            if child is not None and id(child) in made:
                parent._modules[own] = made[id(child)][1]
                replaced[f"{path}.{own}" if path else own] = made[id(child)]
    return replaced


def _norms(
    module: nn.Module, name: str, leave: set[str], seen: set[int] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Every module that is a norm: the known ones, and those whose class says so and that contain none."""
    seen = set() if seen is None else seen
    if name in leave or id(module) in seen:
        return
    seen.add(id(module))
    if is_known(module) or kept_because(module):
        yield name, module
        return
    found = [
        pair
        for own, child in module.named_children()
        if own != "parametrizations"  # weight and spectral norm make weights, not activations
        for pair in _norms(child, f"{name}.{own}" if name else own, leave, seen)
    ]
    if not found and "norm" in type(module).__name__.lower() and not any(module.children()):
        yield name, module
    yield from found
