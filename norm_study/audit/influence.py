"""Influence maps and what is read off them: receptive field, leakage, and what making modules local changes.

J(t, s) is the Frobenius norm of the block of the Jacobian from inputs at time s to outputs at time t, over channels
and batch. For a random cotangent v with entries ±1 at time t, the squared gradient at time s has J(t, s)² as its
mean, so a few vector-Jacobian products per output time serve. J_conv is the same with every mixing module local.

Letters: N output times, P projections, S input times, T output times of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from norm_study.audit.local_forms import LocalForm, made_local
from norm_study.audit.subject import Arguments, Subject, aligned

WINDOW = 16


@dataclass(frozen=True)
class Estimate:
    """A ratio and its standard error.

    Attributes:
        value: the ratio.
        standard_error: over output times and projections; ``None`` when a single product leaves it unknown.
    """

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class Rows:
    """Squared influences on a sample of output times.

    Attributes:
        times: (N,) output times; those of several inputs one after the other.
        full: (N, P, S) of the network as it is.
        frozen: (N, 1, S) of the network with its mixing modules local, by the first projection.
        difference: (N, 1, S) of the difference of the two Jacobians.
        length: T.
        population: how many (input, output time) pairs the sample stands for.
        exact: whether the sum over channels is complete rather than projected.
    """

    times: np.ndarray
    full: np.ndarray
    frozen: np.ndarray
    difference: np.ndarray
    length: int
    population: int
    exact: bool

    @property
    def positions(self) -> np.ndarray:
        """(N,) the input times at which the output times lie."""
        return np.array([aligned(int(t), self.length, self.full.shape[-1]) for t in self.times])

    def offsets(self) -> np.ndarray:
        """(N, S) input time minus output time, in input steps."""
        return np.arange(self.full.shape[-1]) - self.positions[:, None]

    def outside(self, left: int, right: int) -> np.ndarray:
        """(N, S) whether an input lies outside the receptive field of an output."""
        offsets = self.offsets()
        return (offsets < -left) | (offsets > right)

    def leakage(self, left: int, right: int) -> Estimate | None:
        """Energy of J_full outside the interval over its whole energy; ``None`` where nothing is there to be shared."""
        outside = self.outside(left, right)
        if not outside.any() or not self.full.any():
            return None
        return self._ratio((self.full * outside[:, None]).sum(-1), self.full.sum(-1))

    def jacobian_change(self) -> Estimate:
        """‖J_full − J_conv‖² / ‖J_full‖², inside the receptive field too."""
        return self._ratio(self.difference.sum(-1), self.full[:, : self.difference.shape[1]].sum(-1))

    def _ratio(self, numerator: np.ndarray, whole: np.ndarray) -> Estimate:
        """A ratio of sums of (N, P) energies, with the error of sampling in two stages: times, then projections."""
        total = float(whole.sum())
        if total == 0:
            return Estimate(0.0, 0.0)
        value = float(numerator.sum()) / total
        residual = (numerator - value * whole) * whole.size / total
        count, projections = residual.shape
        within = 0.0 if self.exact else None
        if not self.exact and projections > 1:
            within = float(residual.var(1, ddof=1).mean()) / projections
        # with one projection its own variance is unknown: all of it is then counted as variance between times
        sampled = 0.0 if within is None else min(1.0, count / self.population)
        if count == 1 and sampled < 1:
            return Estimate(value, None)
        between = float(residual.mean(1).var(ddof=1)) if count > 1 else 0.0
        return Estimate(value, float(np.sqrt(((1 - sampled) * between + sampled * (within or 0.0)) / count)))


def reach_of(rows: Rows, tolerance: float) -> tuple[int, int]:
    """How far left and right of an output the frozen network hears inputs, the largest over the rows.

    Args:
        rows: influences.
        tolerance: an influence counts when it is above this share of the largest on its output.
    """
    influences = rows.frozen.max(1)
    heard = influences > tolerance**2 * influences.max(-1, keepdims=True)
    offsets = rows.offsets()[heard]
    return (max(0, int(-offsets.min())), max(0, int(offsets.max()))) if offsets.size else (0, 0)


def cotangents(value: Tensor, projections: int, exact: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """Random signs, or every unit vector, of the shape of ``value``."""
    for which in range(value.numel() if exact else projections):
        if exact:
            unit = torch.zeros(value.numel(), dtype=value.dtype, device=value.device)
            unit[which] = 1
            yield unit.view(value.shape)
        else:
            signs = torch.randint(0, 2, value.shape, generator=generator, dtype=torch.int8)
            yield (2 * signs - 1).to(value)


def influence_rows(
    subject: Subject,
    arguments: Arguments,
    times: Sequence[int],
    generator: torch.Generator,
    *,
    active: Sequence[LocalForm] = (),
    local: Sequence[LocalForm] = (),
    projections: int = 2,
    exact: bool = False,
    compare: bool = True,
    pattern: bool = False,
) -> Rows:
    """Squared influences on some output times.

    Args:
        subject: the network.
        arguments: one input.
        times: output times.
        generator: of the projections.
        active: mixing modules that are local in the frozen map only.
        local: mixing modules that are local in both maps.
        projections: P, random sign vectors per output time.
        exact: all channels one by one instead.
        compare: whether both maps are wanted; otherwise all three arrays are those of ``local``.
        pattern: see :func:`norm_study.audit.local_forms.made_local`.
    """
    with made_local(local, pattern):
        graphs = [subject.with_gradients(arguments)]
    if compare:
        with made_local([*local, *active]):
            graphs.append(subject.with_gradients(arguments))
    length, dim = subject.length(arguments), subject.output_time_dim

    found: list[list[list[np.ndarray]]] = [[], [], []]
    for time in times:
        slices = [output.select(dim, time) for _, output in graphs]
        here: list[list[np.ndarray]] = [[], [], []]
        for i, cotangent in enumerate(cotangents(slices[0], projections, exact, generator)):
            # the frozen map only says where influence ends and how much changes in all: one projection will do
            wanted = slices if exact or i == 0 else slices[:1]
            pulled = [products([part], leaves, [cotangent]) for part, (leaves, _) in zip(wanted, graphs, strict=False)]
            if len(pulled) == 2:
                pulled.append([a - b for a, b in zip(*pulled, strict=True)])
            for energies, gradients in zip(here, pulled, strict=False):
                energies.append(energy(subject, arguments, gradients, length))
        for energies, rows in zip(here, found, strict=True):
            rows.append([np.sum(energies, 0)] if exact and energies else energies)
    full, frozen, difference = (np.array(rows) for rows in (found if compare else [found[0]] * 3))
    total = graphs[0][1].shape[dim]
    return Rows(np.array(times), full, frozen, difference, total, total, exact)


def products(outputs: Sequence[Tensor], leaves: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the leaves, zero where there is none."""
    given = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not given:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(
        [o for o, _ in given], leaves, [c for _, c in given], retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def energy(subject: Subject, arguments: Arguments, gradients: Sequence[Tensor], length: int) -> np.ndarray:
    """(S,) squared gradients summed over all but time, those of every input on the first input's times."""
    total = np.zeros(length)
    for i, gradient in zip(subject.timed(arguments), gradients, strict=True):
        dim = subject.time_dims[i]
        assert dim is not None
        moved = gradient.movedim(dim, 0).flatten(1) if gradient.ndim > 1 else gradient[:, None]
        own = moved.double().square().sum(1).cpu().numpy()
        np.add.at(total, _places(len(own), length), own)
    return total


@cache
def _places(own: int, length: int) -> np.ndarray:
    """(own,) where each time of an argument lies on the first argument's axis."""
    return np.array([min(length - 1, max(0, aligned(s, own, length))) for s in range(own)])


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several inputs as one sample."""
    first = parts[0]
    stacked = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("times", "full", "frozen", "difference")
    }
    return Rows(**stacked, length=first.length, population=sum(p.population for p in parts), exact=first.exact)


def sampled_times(length: int, count: int, generator: torch.Generator) -> list[int]:
    """One random output time in each of ``count`` equal stretches, or all: an even grid would miss phases."""
    if count >= length:
        return list(range(length))
    edges = np.linspace(0, length, count + 1).astype(int)
    draws = torch.rand(count, generator=generator).tolist()
    return [int(low + u * (high - low)) for low, high, u in zip(edges[:-1], edges[1:], draws, strict=True)]


def phase_times(length: int, phases: int) -> list[int]:
    """Runs of consecutive output times at both ends, where the whole reach of one side shows, and in the middle.

    The middle one is long enough for windows of attention too, of which no stride tells.
    """
    middle = max(phases, WINDOW)
    runs = ((0, phases), ((length - middle) // 2, middle), (length - phases, phases))
    return sorted({t for start, size in runs for t in range(max(0, start), min(length, start + size))})


def by_distance(rows: Rows) -> list[dict[str, float]]:
    """Share of the energy that comes from farther than d input steps, for every d, full and frozen."""
    distance = np.abs(rows.offsets())
    tails: list[np.ndarray] = []
    for energies in (rows.full, rows.frozen):
        at = np.bincount(distance.ravel(), weights=energies.mean(1).ravel())
        beyond: np.ndarray = np.append(at[::-1].cumsum()[::-1], 0.0)
        tails.append(beyond / beyond[0] if beyond[0] > 0 else beyond)
    return [
        {"distance": d, "full": float(full), "frozen": float(frozen)}
        for d, (full, frozen) in enumerate(zip(tails[0][1:], tails[1][1:], strict=True))
    ]
