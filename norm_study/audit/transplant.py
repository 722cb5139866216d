"""One norm for another: what is known about norms, and what is carried from the old one to the new.

Letters: C channels, T time.
"""

from __future__ import annotations

import copy
from collections import Counter

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize

from planner.norm_layers import LAYERS, PackNorm
from planner.norms import NormKind, make_norm, norm_facts

_KNOWN = (
    *LAYERS,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.SyncBatchNorm,
    _InstanceNorm,
    _BatchNorm,
)
_FORWARDS = {kind.forward for kind in _KNOWN}
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def is_known(module: nn.Module) -> bool:
    """Whether a module is a norm whose forward is torch's own or this project's."""
    return "forward" not in module.__dict__ and type(module).forward in _FORWARDS  # it may be replaced on one module


def name_of_class(norm: nn.Module) -> str:
    """Its class, without what a parametrization adds to the name."""
    return parametrize.type_before_parametrizations(norm).__name__


def kept_because(norm: nn.Module) -> str | None:
    """Why a norm needs no exchange, if it does not."""
    if isinstance(norm, nn.LocalResponseNorm | nn.CrossMapLRN2d):
        return "it is taken over neighboring channels of each time step: local"
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm) and is_known(norm) and len(tuple(norm.normalized_shape)) == 1:
        return "it is taken over the last axis alone: local if that axis is channels; audit it"
    return None


def num_channels(norm: nn.Module) -> int | None:
    """C, if the norm is known and knows it by now."""
    match norm:
        case nn.Module(num_channels=int(channels)):
            return channels
        case nn.LayerNorm() | nn.RMSNorm():
            return int(norm.normalized_shape[0])
        case _BatchNorm() | _InstanceNorm():
            return int(norm.num_features)
        case _:
            return None


def refusal(
    name: str, norm: nn.Module, channels: int | None, to: NormKind, groups: int, owners: Counter[int]
) -> str | None:
    """Why a norm cannot be exchanged.

    Args:
        name: where it is.
        norm: which.
        channels: C.
        to: the new kind.
        groups: of kinds with groups.
        owners: how many modules of the network hold a parameter, by its id.
    """
    if "forward" in norm.__dict__:
        return "its forward was replaced on this module; exchange it by hand, or leave it"
    if not is_known(norm):
        return "an unknown class; exchange it by hand, or leave it"
    if name == "":
        return "it has no place inside another module"
    if not channels:
        return "its number of channels is not known yet; run the network once"
    if any(type(hook).__module__.startswith("torch.nn.utils.") for hook in norm._forward_pre_hooks.values()):
        return "a hook of torch.nn.utils makes its weight; take that off first"
    if any(owners[id(parameter)] > 1 for parameter in norm.parameters()):
        return "another module shares its weight; exchange both by hand, or leave them"
    if not norm_facts(to).fits(channels, groups):
        return f"groups = {groups} cannot share out its {channels} channels under norm = {to}"
    return None


def exchanged(
    norm: nn.Module, channels: int, to: NormKind, groups: int
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """The new norm, what of the old one it carries on, and what was dropped.

    Args:
        norm: the old one, which stays as it is.
        channels: C.
        to: the new kind.
        groups: of kinds with groups.
    """
    source = norm.instance if isinstance(norm, PackNorm) else norm
    eps = getattr(source, "eps", None)
    new = make_norm(to, channels, groups=groups, **({} if eps is None else {"eps": eps}))
    reference = next((t for t in [*norm.parameters(), *norm.buffers()] if t.is_floating_point()), None)
    if reference is not None:
        new.to(device=reference.device, dtype=reference.dtype)
    new.train(norm.training)
    carried: list[str] = []
    dropped: list[str] = []
    parametrized = list(getattr(source, "parametrizations", {}))
    plain = [name for name, value in source._parameters.items() if value is not None]
    for name in [*plain, *parametrized]:
        taken = _take_parametrization(source, new, name) if name in parametrized else _take_parameter(source, new, name)
        (carried if taken else dropped).append(name)
    for name, value in source._buffers.items():
        if value is not None:
            (carried if _take_buffer(value, new, name) else dropped).append(name)
    if isinstance(new, _BatchNorm) and isinstance(source, _BatchNorm):
        new.momentum = source.momentum
    if _take_hooks(norm, new):
        carried.append("hooks")
    return new, tuple(carried), tuple(dropped)


def _take_parameter(source: nn.Module, new: nn.Module, name: str) -> bool:
    old, place = source._parameters[name], new._parameters.get(name)
    if old is None or place is None or place.shape != old.shape:
        return False
    place.data.copy_(old.data)
    place.requires_grad_(old.requires_grad)
    return True


def _take_parametrization(source: nn.Module, new: nn.Module, name: str) -> bool:
    """The same parametrized tensor on the new norm, from copies of its originals."""
    place = new._parameters.get(name)
    if place is None or place.shape != getattr(source, name).shape:
        return False
    parametrize.register_parametrization(
        new, name, nn.Identity()
    )  # makes the place, which a copy of the old list then fills
    assert isinstance(new.parametrizations, nn.ModuleDict)
    assert isinstance(source.parametrizations, nn.ModuleDict)
    new.parametrizations[name] = copy.deepcopy(source.parametrizations[name])
    return True


def _take_buffer(value: Tensor, new: nn.Module, name: str) -> bool:
    place = new._buffers.get(name)
    if place is None or place.shape != value.shape:
        return False
    place.copy_(value)
    return True


def _take_hooks(norm: nn.Module, new: nn.Module) -> bool:
    """The very dictionaries, so that a handle that was given out still removes its hook."""
    found = any(norm.__dict__.get(name) for name in _HOOKS if isinstance(norm.__dict__.get(name), dict))
    if found:
        for name in _HOOKS:
            new.__dict__[name] = norm.__dict__[name]
    return found
