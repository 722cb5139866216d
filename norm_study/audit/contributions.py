"""Each mixing module's own part in the leakage, out of few passes.

With J the Jacobian of the network as it is, and J_local that with every mixing module local, module i contributes
Δ = L N R: what R brings from an output to the module; what N, the difference of the module's own Jacobian and of its
local form, makes of it; and what L takes from there to the inputs. J − Δ is the network with it alone made local if L
and R are taken from the network as it is; J_local + Δ the network with it alone active if they are from the local one.
R is one backward pass for all modules. A statistic has few numbers, so N has a low rank: L is taken only of a basis of
what N made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from norm_study.audit.influence import Rows, cotangents, energy, products
from norm_study.audit.local_forms import LocalForm, made_local
from norm_study.audit.subject import Arguments, Subject, is_real

MOST_NUMBERS = 2**20
EXPECTED_ROWS = 16  # of a statistic of eight groups: their means and deviations


@dataclass
class Site:
    """Where one module stands in a graph, and what its Jacobian's difference made of the cotangents so far.

    Attributes:
        inputs: the tensors that it was given, in the graph.
        outputs: the tensors that it returned, in the graph.
        own_inputs: copies of the inputs, outside the graph.
        differences: what the module returns for these less what its local form does: zeros with N as their Jacobian.
        basis: (R, D) orthonormal rows that span what N made.
        coefficients: per cotangent (R,) those of the basis.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    own_inputs: list[Tensor]
    differences: list[Tensor]
    basis: Tensor = field(init=False)
    coefficients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets the cotangents so far."""
        self.basis = self.inputs[0].new_zeros(0, sum(value.numel() for value in self.inputs))
        self.coefficients.clear()

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Takes in the gradients of the outputs for one more cotangent."""
        pulled = products(self.differences, self.own_inputs, gradients)
        made = torch.cat([value.flatten() for value in pulled])
        size, found = made.norm(), made.new_zeros(len(self.basis))
        for _ in range(2):  # twice is enough (Kahan)
            shares = self.basis @ made
            made = made - shares @ self.basis
            found = found + shares
        rest = made.norm()
        if rest > torch.finfo(made.dtype).eps ** 0.6 * size:
            self.basis = torch.cat([self.basis, made[None] / rest])
            found = torch.cat([found, rest[None]])
        self.coefficients.append(found)

    def pushed(self, leaves: Sequence[Tensor]) -> list[list[Tensor]]:
        """Per row of the basis its gradients of the leaves."""
        rows = []
        for one in self.basis:
            parts = one.split([value.numel() for value in self.inputs])
            shaped = [part.view_as(value) for part, value in zip(parts, self.inputs, strict=True)]
            rows.append(products(self.inputs, leaves, shaped))
        return rows


class _Watch:
    """Hooks that note what modules are given and return, each once."""

    def __init__(self, form: LocalForm):
        self.form, self.calls = form, 0

    def before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Notes copies of the arguments, since one may be given twice, and hands on others, to be written into."""
        self.calls += 1
        leaves, self.spec = tree_flatten((args, kwargs))
        self.leaves = [leaf.clone() if is_real(leaf) else leaf for leaf in leaves]
        self.random = torch.get_rng_state()
        copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        given: tuple[tuple, dict[str, Any]] = tree_unflatten(copies, self.spec)
        return given

    def after(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], returned: Any) -> Any:
        """Notes the tensors returned and hands on copies, since what follows may write into them."""
        leaves, spec = tree_flatten(returned)
        self.outputs = [leaf for leaf in leaves if is_real(leaf)]
        return tree_unflatten([leaf.clone() if is_real(leaf) else leaf for leaf in leaves], spec)

    @property
    def numbers(self) -> int:
        """How many numbers the module was given, if once, that gradients pass."""
        if self.calls != 1:
            return 0
        return sum(leaf.numel() for leaf in self.leaves if is_real(leaf) and leaf.requires_grad)

    def site(self, local: Sequence[LocalForm]) -> Site | None:
        """The site, if the module was called once and gradients pass it."""
        if self.calls != 1:
            return None
        passed = [i for i, leaf in enumerate(self.leaves) if is_real(leaf) and leaf.requires_grad]
        if not passed or not any(output.requires_grad for output in self.outputs):
            return None
        own = {i: self.leaves[i].detach().clone().requires_grad_() for i in passed}
        rest = [form for form in local if form is not self.form]
        native, localized = (self._again(own, forms) for forms in (rest, [*rest, self.form]))
        differences = [a - b for a, b in zip(native, localized, strict=True)]
        return Site([self.leaves[i] for i in passed], self.outputs, list(own.values()), differences)

    def _again(self, own: dict[int, Tensor], forms: Sequence[LocalForm]) -> list[Tensor]:
        """What the module returns for the same arguments with some forms local."""
        torch.set_rng_state(self.random)
        given = [own.get(i, leaf) for i, leaf in enumerate(self.leaves)]
        copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in given]
        args, kwargs = tree_unflatten(copies, self.spec)
        with made_local(forms):
            returned = tree_flatten(self.form.module(*args, **kwargs))[0]
        return [leaf for leaf in returned if is_real(leaf)]


@contextmanager
def _watched(forms: Sequence[LocalForm]) -> Iterator[list[_Watch]]:
    watches, handles = [_Watch(form) for form in forms], []
    try:
        for watch in watches:
            handles.append(watch.form.module.register_forward_pre_hook(watch.before, with_kwargs=True))
            handles.append(watch.form.module.register_forward_hook(watch.after, with_kwargs=True))
        yield watches
    finally:
        for handle in handles:
            handle.remove()


def contributions(
    subject: Subject,
    arguments: Arguments,
    times: Sequence[int],
    generator: torch.Generator,
    *,
    forms: Sequence[LocalForm],
    local: Sequence[LocalForm],
    projections: int,
    exact: bool,
) -> dict[int, Rows]:
    """Squared influences with each module alone exchanged for its other form, by the module's index in ``forms``.

    Args:
        subject: the network.
        arguments: one input.
        times: output times.
        generator: of the projections.
        forms: of the modules asked for.
        local: which are local but for the one in question: none, to leave each out alone; all, to have each alone
            active.
        projections: P, random sign vectors per output time.
        exact: all channels one by one instead.

    Returns:
        Rows whose three arrays agree. A module that was called several times, or that no gradient passes, has none.
    """
    with made_local(local), _watched(forms) as watches:
        leaves, output = subject.with_gradients(arguments)
    state, dim, total = generator.get_state(), subject.output_time_dim, output.shape[subject.output_time_dim]
    result: dict[int, Rows] = {}
    rows: list[list[Tensor]] = []
    for some in _groups(watches):
        generator.set_state(state)
        sites = {i: site for i in some if (site := watches[i].site(local)) is not None}
        parts = ((time, output.select(dim, time)) for time in times)
        signs = ((part, one) for _, part in parts for one in cotangents(part, projections, exact, generator))
        found = _energies(subject, arguments, leaves, sites, signs, rows, 1 if local else -1)
        for i, energies in found.items():
            squares = np.array(energies).reshape(len(times), -1, len(energies[0]))
            squares = squares.sum(1, keepdims=True) if exact else squares
            result[i] = Rows(np.array(times), squares, squares, squares, total, total, exact)
    return result


def _groups(watches: Sequence[_Watch]) -> Iterator[list[int]]:
    """Modules to take at once, so that what their statistics make of the cotangents is held in memory."""
    some: list[int] = []
    size = 0
    for i, watch in enumerate(watches):
        own = EXPECTED_ROWS * watch.numbers
        if some and size + own > MOST_NUMBERS:
            yield some
            some, size = [], 0
        some.append(i)
        size += own
    if some:
        yield some


def _energies(
    subject: Subject,
    arguments: Arguments,
    leaves: Sequence[Tensor],
    sites: dict[int, Site],
    signs: Iterable[tuple[Tensor, Tensor]],
    rows: list[list[Tensor]],
    sign: int,
) -> dict[int, list[np.ndarray]]:
    """Per module and cotangent the energies of the inputs with the module's contribution added.

    Args:
        subject: the network.
        arguments: one input.
        leaves: its sequences, in the graph.
        sites: of the modules.
        signs: parts of the output and their cotangents.
        rows: per cotangent the gradients of the leaves; added where they are not there.
        sign: with which a contribution is added.
    """
    tensors = [tensor for site in sites.values() for tensor in site.outputs if tensor.requires_grad]
    found: dict[int, list[np.ndarray]] = {i: [] for i in sites}
    settled = 0
    for i, (part, cotangent) in enumerate(signs):
        wanted = [*leaves, *tensors] if i == len(rows) else tensors
        rest = products([part], wanted, [cotangent])
        if i == len(rows):
            rows.append(rest[: len(leaves)])
            rest = rest[len(leaves) :]
        for site in sites.values():
            site.add([rest.pop(0) if tensor.requires_grad else torch.zeros_like(tensor) for tensor in site.outputs])
        if sum(site.basis.numel() for site in sites.values()) > 2 * MOST_NUMBERS:
            _settle(subject, arguments, leaves, sites, rows[settled : i + 1], found, sign)
            settled = i + 1
    _settle(subject, arguments, leaves, sites, rows[settled:], found, sign)
    return found


def _settle(
    subject: Subject,
    arguments: Arguments,
    leaves: Sequence[Tensor],
    sites: dict[int, Site],
    rows: Sequence[Sequence[Tensor]],
    found: dict[int, list[np.ndarray]],
    sign: int,
) -> None:
    """Takes every basis to the inputs, notes the energies of the cotangents so far, and begins anew.

    Args:
        subject: the network.
        arguments: one input.
        leaves: its sequences, in the graph.
        sites: of the modules.
        rows: per cotangent since the last time the gradients of the leaves.
        found: per module the energies, to be added to.
        sign: with which a module's contribution is added.
    """
    length = subject.length(arguments)
    for i, site in sites.items():
        pushed = site.pushed(leaves)
        for row, coefficients in zip(rows, site.coefficients, strict=True):
            changed = [leaf.clone() for leaf in row]
            for share, one in zip(coefficients, pushed, strict=False):
                for leaf, gradient in zip(changed, one, strict=True):
                    leaf.add_(sign * share * gradient)
            found[i].append(energy(subject, arguments, changed, length))
        site.clear()
