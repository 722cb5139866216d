"""For test suites: a network is local, causal, or keeps the samples of a batch apart, within a second or two.

    assert_local(network, trajectory, left=9, right=9)

Where a network is not, the error names an output, an input that it hears and should not, and the innermost module that
first passes it on. Gradients find what rounding hides, changed inputs find what passes no gradient: both are asked.
Letters: T time of the output, S time of the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundwork.errors import UserError
from norm_study.audit.offender import first_beyond
from norm_study.audit.preparation import borrowed, draw_zeros, unwrapped
from norm_study.audit.subject import Arguments, Subject, aligned, check_arguments, is_real

CONSECUTIVE, SPREAD, CHANGED = 8, 4, 4
ROUNDING = 64.0  # in units of the precision: what transforms and sums in another order leave


def assert_local(
    network: nn.Module,
    inputs: Any,
    *,
    left: int | None,
    right: int | None,
    time_dims: int | Sequence[int | None] = -1,
    output_time_dim: int | None = None,
    output: str | None = None,
    training: bool | None = None,
    dtype: torch.dtype | None = torch.float64,
    seed: int = 0,
) -> None:
    """Asserts that no output hears an input farther away than it may.

    The sequence is cut in a dozen places, eight of them side by side, for strides: outputs on one side of a cut may not
    hear what lies farther than allowed on its other side.

    Args:
        network: any module; it comes back as it was.
        inputs: its arguments as a tuple, the sequence first, or a lone tensor.
        left: steps of the input before an output's own that it may hear; ``None`` for all.
        right: steps after it.
        time_dims: the time axis of the first argument, or one entry per argument.
        output_time_dim: the time axis of the output; by default that of the first argument.
        output: which of several tensors returned is meant, see :func:`norm_study.audit.audit`.
        training: the mode that is tested; ``None`` keeps the module's own.
        dtype: what the network is converted to meanwhile; ``None`` keeps its own.
        seed: of the changes and of the network's own randomness.

    Raises:
        AssertionError: an output hears more; or outputs do not depend on the input at all, so that nothing is shown.
        UserError: an input too short to have anything beyond; arguments without the time axis they should have.
    """
    _check(network, inputs, time_dims, output_time_dim, output, (left, right), training, dtype, seed, "step")


def assert_causal(network: nn.Module, inputs: Any, **settings: Any) -> None:
    """Asserts that no output hears a later input.

    Args:
        network: any module; it comes back as it was.
        inputs: its arguments as a tuple, the sequence first, or a lone tensor.
        settings: further ones of :func:`assert_local`.

    Raises:
        AssertionError: an output does; or outputs do not depend on the input at all.
    """
    assert_local(network, inputs, left=None, right=0, **settings)


def assert_independent_batch(
    network: nn.Module,
    inputs: Any,
    *,
    batch_dim: int = 0,
    output: str | None = None,
    training: bool | None = None,
    dtype: torch.dtype | None = torch.float64,
    seed: int = 0,
) -> None:
    """Asserts that no sample's output hears another sample's input.

    Args:
        network: any module; it comes back as it was.
        inputs: its arguments as a tuple, or a lone tensor; a batch of at least two.
        batch_dim: the axis of samples in the arguments and in the output.
        output: which of several tensors returned is meant, see :func:`norm_study.audit.audit`.
        training: the mode that is tested; ``None`` keeps the module's own.
        dtype: what the network is converted to meanwhile; ``None`` keeps its own.
        seed: of the changes and of the network's own randomness.

    Raises:
        AssertionError: a sample's output does; or outputs do not depend on the input at all.
        UserError: a batch of one.
    """
    given, _ = check_arguments(inputs, batch_dim, None)
    size = given[0].shape[batch_dim]
    dims = [batch_dim if _has_samples(value, batch_dim, size) else None for value in given]
    # a batch is a sequence none of whose steps may hear another
    _check(network, inputs, dims, batch_dim, output, (0, 0), training, dtype, seed, "sample")


def _has_samples(value: Any, dim: int, size: int) -> bool:
    return is_real(value) and -value.ndim <= dim < value.ndim and value.shape[dim] == size


def _check(
    network: nn.Module,
    inputs: Any,
    time_dims: int | Sequence[int | None],
    output_dim: int | None,
    output: str | None,
    allowed: tuple[int | None, int | None],
    training: bool | None,
    dtype: torch.dtype | None,
    seed: int,
    noun: str,
) -> None:
    """Raises what the assertions raise; a network that fails in another precision is asked in its own."""
    network = unwrapped(network)
    arguments, dims = check_arguments(inputs, time_dims, dtype)
    assert dims[0] is not None
    try:
        with borrowed(network, dtype, training):
            draw_zeros(network, seed)  # what is shut off at first must not leak later either
            subject = Subject(network, dims, dims[0] if output_dim is None else output_dim, seed, output)
            arguments = subject.varied(arguments)
            test = _Test(subject, arguments, allowed)
            violation = test.find()
            words = None if violation is None else test.words(violation, noun)
    except UserError:
        raise
    except Exception:  # whatever a foreign network raises
        if dtype is None:
            raise
        return _check(network, inputs, time_dims, output_dim, output, allowed, training, None, seed, noun)
    if words is not None:
        raise AssertionError(words)
    if not test.depends:
        name = type(network).__name__
        raise AssertionError(f"nothing is shown: no output of {name} depends on the input, by gradients or changes")


@dataclass(frozen=True)
class _Violation:
    """An output and an input that it should not hear, both as indices of their own, and how strongly."""

    output: int
    input: int
    strength: str


class _Test:
    """One network and one input, asked at every cut."""

    def __init__(self, subject: Subject, arguments: Arguments, allowed: tuple[int | None, int | None]):
        self.subject, self.arguments = subject, arguments
        self.left, self.right = (math.inf if steps is None else steps for steps in allowed)
        self.leaves, self.output = subject.with_gradients(arguments)
        self.dim, self.length = subject.output_time_dim, subject.length(arguments)
        count = self.output.shape[self.dim]
        self.at_T = torch.tensor([aligned(t, count, self.length) for t in range(count)])
        self.base = self.output.detach()
        self.generator = torch.Generator().manual_seed(subject.seed)
        self.signs = (2 * torch.randint(0, 2, self.base.shape, generator=self.generator) - 1).to(self.base)
        self.other = subject.redraw(arguments, self.generator)
        self.depends = bool(self._moved(self.other, torch.ones_like(self.at_T, dtype=torch.bool)).any())
        self.epsilon = torch.finfo(self.base.dtype).eps

    def _times(self, argument: int) -> Tensor:
        """(S,) the positions of an argument's own steps on the scale of the first."""
        dim = self.subject.time_dims[argument]
        assert dim is not None
        own = self.arguments[argument].shape[dim]
        return torch.tensor([aligned(s, own, self.length) for s in range(own)])

    def find(self) -> _Violation | None:
        """The first violation, or nothing.

        Raises:
            UserError: nothing lies beyond what is allowed, at any cut.
        """
        asked = 0
        cuts = _cuts(self.length)
        for i, cut in enumerate(cuts):
            for after in (True, False):
                reach = self.right if after else self.left
                outputs = self.at_T <= cut if after else self.at_T >= cut
                edge = cut + reach if after else cut - reach
                if not outputs.any() or not (0 <= edge < self.length) or edge == (self.length - 1 if after else 0):
                    continue
                asked += 1
                beyond = {
                    a: self._times(a) > edge if after else self._times(a) < edge
                    for a in self.subject.timed(self.arguments)
                }
                violation = self._by_gradient(outputs, beyond)
                if violation is None and (i % max(1, len(cuts) // CHANGED) == 0):
                    violation = self._by_change(outputs, beyond)
                if violation is not None:
                    return violation
        if not asked:
            raise UserError(
                f"an input of {self.length} entries on axis {self.dim} has none beyond left = {self.left}, right = "
                f"{self.right} of any cut: take a longer one"
            )
        return None

    def _gradients(self, outputs: Tensor) -> list[Tensor]:
        """Per argument with time (S,), the largest gradient from some outputs to each of its steps."""
        if not self.output.requires_grad:
            return [torch.zeros(len(self._times(a))) for a in self.subject.timed(self.arguments)]
        shape = [1] * self.output.ndim
        shape[self.dim] = -1
        cotangent = self.signs * outputs.view(shape).to(self.signs)
        found = torch.autograd.grad(self.output, self.leaves, cotangent, retain_graph=True, allow_unused=True)
        sizes = []
        for argument, gradient in zip(self.subject.timed(self.arguments), found, strict=True):
            dim = self.subject.time_dims[argument]
            assert dim is not None
            value = torch.zeros_like(self.arguments[argument]) if gradient is None else gradient.abs()
            sizes.append(value.movedim(dim, 0).reshape(value.shape[dim], -1).amax(1).cpu())
        return sizes

    def _by_gradient(self, outputs: Tensor, beyond: dict[int, Tensor]) -> _Violation | None:
        sizes = self._gradients(outputs)
        largest = max(float(size.max()) for size in sizes)
        self.depends |= largest > 0
        for size, (argument, where) in zip(sizes, beyond.items(), strict=True):
            heard = torch.where(where, size, 0.0)
            if float(heard.max()) <= ROUNDING * self.epsilon * largest:
                continue
            s = int(heard.argmax())
            which = list(beyond).index(argument)
            while int(outputs.sum()) > 1:  # the half of the outputs that hears it more
                index = outputs.nonzero()[:, 0]
                halves = [torch.zeros_like(outputs).index_fill(0, part, True) for part in index.tensor_split(2)]
                outputs = max(halves, key=lambda half: float(self._gradients(half)[which][s]))
            return _Violation(
                int(outputs.nonzero()), s, f"by a gradient of {float(heard.max()) / largest:.1e} of the largest"
            )
        return None

    def _mixed(self, changed: dict[int, Tensor]) -> Arguments:
        """The arguments with some steps drawn anew."""
        given = list(self.arguments)
        for argument, where in changed.items():
            dim, index = self.subject.time_dims[argument], where.nonzero()[:, 0].to(given[argument].device)
            assert dim is not None
            given[argument] = given[argument].index_copy(dim, index, self.other[argument].index_select(dim, index))
        return tuple(given)

    def _moved(self, arguments: Arguments, outputs: Tensor) -> Tensor:
        """(T,) how far each of some outputs moves, where that is more than rounding; 0 elsewhere."""
        with torch.no_grad():
            moved = (self.subject(arguments) - self.base).abs().movedim(self.dim, 0).flatten(1).amax(1).cpu()
        floor = torch.finfo(self.base.dtype).eps ** 0.75 * float(self.base.abs().max())
        return torch.where(outputs & (moved > floor), moved, 0.0)

    def _by_change(self, outputs: Tensor, beyond: dict[int, Tensor]) -> _Violation | None:
        moved = self._moved(self._mixed(beyond), outputs)
        if not moved.any():
            return None
        t, deviation = int(moved.argmax()), float(self.base.std(correction=0)) or 1.0
        strength = f"moved by {float(moved.max()) / deviation:.1e} of the output's deviation"
        argument = max(beyond, key=lambda a: float(self._moved(self._mixed({a: beyond[a]}), outputs).max()))
        where = beyond[argument]
        while int(where.sum()) > 1:  # the half of the inputs that moves them more
            halves = [torch.zeros_like(where).index_fill(0, p, True) for p in where.nonzero()[:, 0].tensor_split(2)]
            best = max(halves, key=lambda half: float(self._moved(self._mixed({argument: half}), outputs).max()))
            now = self._moved(self._mixed({argument: best}), outputs)
            if now.any():
                t = int(now.argmax())
            where = best
        return _Violation(t, int(where.nonzero()), strength)

    def words(self, violation: _Violation, noun: str) -> str:
        """The message: output, input, distance, what is allowed, and who passes it on first."""
        t, s = violation.output, violation.input
        at = int(self.at_T[t])
        name = first_beyond(self.subject, self.arguments, self.other, s, (self.left, self.right))
        if noun == "sample":
            return f"the output of sample {t} hears the input of sample {s}, {violation.strength}: passed on by {name}"
        side, limit = ("after", self.right) if s > at else ("before", self.left)
        return (
            f"output {t} hears input {s}, {abs(s - at)} steps {side} its own where {limit} are allowed, "
            f"{violation.strength}: first passed on by {name}"
        )


def _cuts(length: int) -> list[int]:
    """Every step of a short sequence; of a longer one some side by side in the middle, and some spread evenly."""
    if length <= CONSECUTIVE + SPREAD:
        return list(range(length))
    middle = (length - CONSECUTIVE) // 2
    spread = [round((i + 1) * length / (SPREAD + 1)) for i in range(SPREAD)]
    return sorted({*range(middle, middle + CONSECUTIVE), *spread})
