"""Each mixing module's own part in the leakage, out of few passes.

With J the Jacobian of the network as it is, and J_local that with every mixing module local, module i contributes
Δ = L N R: what R brings from an output to the module; what N, the difference of the module's own Jacobian and of its
local form, makes of it; and what L takes from there to the inputs. J − Δ is the network with it alone made local if L
and R are taken from the network as it is; J_local + Δ the network with it alone active if they are from the local one.
R is one backward pass for all modules. A statistic has few numbers, so N has a low rank: L is taken only of a basis of
what N made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

MOST_NUMBERS = 2**24


@dataclass
class Site:
    """Where one module stands in a graph, and what its Jacobian's difference made of the cotangents so far.

    Attributes:
        form: of the module.
        inputs: the tensors that it was given, in the graph.
        outputs: the tensors that it returned, in the graph.
        own_inputs: copies of the inputs, outside the graph.
        own_outputs: what the module returns for these in its other form: local if it is not in the graph, else native.
        basis: orthonormal rows that span what the difference made.
        coefficients: per cotangent those of the basis.
    """

    form: LocalForm
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    own_inputs: list[Tensor] = field(default_factory=list)
    own_outputs: list[Tensor] = field(default_factory=list)
    basis: list[Tensor] = field(default_factory=list)
    coefficients: list[Tensor] = field(default_factory=list)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Takes in the gradients of the outputs for one more cotangent."""
        made = self._difference(gradients)
        size = made.norm()
        found: list[Tensor] = []
        for _ in range(2):  # twice is enough (Kahan)
            for i, one in enumerate(self.basis):
                share = one @ made
                made = made - share * one
                if i < len(found):
                    found[i] = found[i] + share
                else:
                    found.append(share)
        rest = made.norm()
        if rest > torch.finfo(made.dtype).eps ** 0.75 * size:
            self.basis.append(made / rest)
            found.append(rest)
        self.coefficients.append(torch.stack(found) if found else made.new_zeros(0))

    def _difference(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """The module's Jacobian in this graph's form less that in its other form, applied to the gradients."""
        totals = [torch.zeros_like(value) for value in self.inputs]
        for sign, outputs, inputs in ((1, self.outputs, self.inputs), (-1, self.own_outputs, self.own_inputs)):
            given = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
            if not given:
                continue
            found = torch.autograd.grad(
                [o for o, _ in given], inputs, [g for _, g in given], retain_graph=True, allow_unused=True
            )
            for total, one in zip(totals, found, strict=True):
                if one is not None:
                    total += sign * one
        return torch.cat([total.flatten() for total in totals])

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

    def site(self, local: Sequence[LocalForm]) -> Site | None:
        """The site, if the module was called once and gradients pass it; run again in its other form."""
        if self.calls != 1:
            return None
        site = Site(self.form, [leaf for leaf in self.leaves if is_real(leaf) and leaf.requires_grad], self.outputs)
        if not site.inputs or not any(output.requires_grad for output in site.outputs):
            return None
        torch.set_rng_state(self.random)
        copies = []
        for leaf in self.leaves:
            if is_real(leaf) and leaf.requires_grad:
                site.own_inputs.append(leaf.detach().clone().requires_grad_())
                copies.append(site.own_inputs[-1].clone())
            else:
                copies.append(leaf.clone() if isinstance(leaf, Tensor) else leaf)
        args, kwargs = tree_unflatten(copies, self.spec)
        rest = [form for form in local if form is not self.form]
        with made_local(rest if self.form in local else [*rest, self.form]):
            returned = tree_flatten(self.form.module(*args, **kwargs))[0]
        site.own_outputs = [leaf for leaf in returned if is_real(leaf)]
        return site


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
    sites = {i: site for i, watch in enumerate(watches) if (site := watch.site(local)) is not None}
    tensors = [tensor for site in sites.values() for tensor in site.outputs if tensor.requires_grad]
    dim, rows = subject.output_time_dim, []
    found: dict[int, list[np.ndarray]] = {i: [] for i in sites}
    pending: list[list[Tensor]] = []
    for time in times:
        part = output.select(dim, time)
        for cotangent in cotangents(part, projections, exact, generator):
            gradients = products([part], [*leaves, *tensors], [cotangent])
            rest = gradients[len(leaves) :]
            pending.append(gradients[: len(leaves)])
            for site in sites.values():
                site.add([rest.pop(0) if tensor.requires_grad else None for tensor in site.outputs])
            if sum(one.numel() for site in sites.values() for one in site.basis) > MOST_NUMBERS:
                _settle(subject, arguments, leaves, sites, pending, found)
            rows.append(time)
    _settle(subject, arguments, leaves, sites, pending, found)
    total, per_time = output.shape[dim], len(rows) // len(times)
    result = {}
    for i, energies in found.items():
        squares = np.array(energies).reshape(len(times), per_time, -1)
        squares = squares.sum(1, keepdims=True) if exact else squares
        result[i] = Rows(np.array(times), squares, squares, squares, total, total, exact)
    return result


def _settle(
    subject: Subject,
    arguments: Arguments,
    leaves: Sequence[Tensor],
    sites: dict[int, Site],
    pending: list[list[Tensor]],
    found: dict[int, list[np.ndarray]],
) -> None:
    """Takes every basis to the inputs, notes the energies of the cotangents so far, and begins anew."""
    length = subject.length(arguments)
    for i, site in sites.items():
        pushed = site.pushed(leaves)
        for row, coefficients in zip(pending, site.coefficients, strict=True):
            changed = [leaf.clone() for leaf in row]
            for share, one in zip(coefficients, pushed, strict=False):
                for leaf, gradient in zip(changed, one, strict=True):
                    leaf.sub_(share * gradient)
            found[i].append(energy(subject, arguments, changed, length))
        site.basis.clear()
        site.coefficients.clear()
    pending.clear()
