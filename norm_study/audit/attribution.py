"""Which module of a network mixes time beyond its kernels.

Blame goes to the innermost module: one that contains mixing modules is tested with those made local, and is blamed
only for what it does itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from norm_study.audit.local_forms import LocalForm
from norm_study.audit.locality import LocalityTest, growth, reach_of_changes
from norm_study.audit.mechanism import mixes_by_design
from norm_study.audit.recording import Axes, Call

Verdict = Literal["local", "mixes time", "mixes the batch"]
LONGEST = 2**16


def longest_tested(size: int, bound: tuple[int, int] = (0, 0)) -> int:
    """Up to which length a module is tested: long enough for kernels that are longer than its input."""
    return min(LONGEST, max(4 * size, 1024, 4 * sum(bound)))


@dataclass(frozen=True)
class Finding:
    """What was found about one module.

    Attributes:
        name: its name in the network.
        type: its class.
        verdict: what it does itself, apart from the modules inside it.
        mixes_batch: whether one sample's output hears of another's input.
        reach: how far left and right it hears at the resolution of its input, when it is local.
        form: how to make it local, when it mixes time.
    """

    name: str
    type: str
    verdict: Verdict
    mixes_batch: bool
    reach: tuple[int, int]
    form: LocalForm | None


class Attribution:
    """Tests every recorded module of a network, those inside before those around them.

    Args:
        network: the network.
        calls: what its modules were given, see :func:`norm_study.audit.recording.record`.
        seed: of the changes.
        tolerance: gradients up to this share of the largest count as zero.

    Attributes:
        findings: by name.
        notes: what could not be tested.
        untested: by name.
    """

    def __init__(self, network: nn.Module, calls: dict[str, Call], seed: int, tolerance: float):
        self.calls, self.seed, self.tolerance = calls, seed, tolerance
        self.modules = dict(network.named_modules())
        self.findings: dict[str, Finding] = {}
        self.notes: list[str] = []
        self.untested: set[str] = set()
        names = [name for name in reversed(self.modules) if name in calls]
        # What the network as a whole does not do along the batch, nothing inside it does.
        self._by_batch = "" not in calls or self._batch(calls[""]) is not False
        self._by_gradients = False
        for name in names:
            self.findings[name] = self._find(name)
        if self._hears_more():
            self._by_gradients = True
            self.notes, self.untested = [], set()
            for name in names:
                self.findings[name] = self._find(name)

    def in_order(self) -> list[Finding]:
        """The findings worth a row, in the network's order: single layers, and whatever mixes."""
        return [
            self.findings[name]
            for name, module in self.modules.items()
            if name in self.findings and (not any(module.children()) or self.findings[name].verdict != "local")
        ]

    def _inside(self, name: str) -> list[Finding]:
        prefix = f"{name}." if name else ""
        return [found for other, found in self.findings.items() if other != name and other.startswith(prefix)]

    def _hears_more(self) -> bool:
        """Whether the network still mixes, by gradients, with every module made local that was found to by changes.

        Only then do the modules need a test by gradients each: a recurrent network forgets, so that its changes sink
        below rounding, and what holds a module that mixes may mix by itself too.
        """
        if "" not in self.calls or not any(self.calls[""].time_axes):
            return True
        call = self.calls[""]
        test, blamed = LocalityTest(call, call.time_axes, self.seed), self._blamed("")
        cap = longest_tested(test.size, self._bound(""))
        try:
            return growth(lambda times: test.heard_inputs(times, blamed, self.tolerance), cap)[0]
        except Exception:  # whatever a foreign network raises when its input is longer
            return True

    def _blamed(self, name: str) -> list[LocalForm]:
        return [found.form for found in self._inside(name) if found.form is not None]

    def _find(self, name: str) -> Finding:
        call, inside, known = self.calls[name], self._inside(name), self.findings.get(name)
        blamed = self._blamed(name)
        if known is not None and known.form is not None and not blamed:  # what was found inside since may be all of it
            return known
        mixes_time, reach, form = self._time(name, call, blamed)
        if known is not None:
            mixes_batch = known.mixes_batch
        else:
            mixes_batch = self._by_batch and not any(found.mixes_batch for found in inside) and bool(self._batch(call))
        verdict: Verdict = "mixes time" if mixes_time else "mixes the batch" if mixes_batch else "local"
        return Finding(name, type(call.module).__name__, verdict, mixes_batch, reach, form)

    def _time(
        self, name: str, call: Call, blamed: Sequence[LocalForm]
    ) -> tuple[bool, tuple[int, int], LocalForm | None]:
        if not any(call.time_axes):
            return False, (0, 0), None
        test, bound = LocalityTest(call, call.time_axes, self.seed), self._bound(name)
        cap = longest_tested(test.size, bound)
        reach, output_dims = bound, []
        try:
            output_dims = [dims[0] if dims else None for dims in test.output_axes]
            mixes = False
            if not blamed and any(test.output_axes):
                mixes, spans, times = growth(test.changed_outputs, cap)
                reach = reach if mixes else reach_of_changes(test, spans, times)
            elif not blamed:
                mixes = test.pools()
            if self._by_gradients and not mixes:
                mixes = growth(lambda times: test.heard_inputs(times, blamed, self.tolerance), cap)[0]
        except Exception:  # whatever a foreign module raises when its input is longer
            mixes, output_dims = self._at_one_length(name, test, blamed)
        if not mixes:
            return False, reach, None
        design = self._by_design(test, blamed, output_dims)
        return True, bound, LocalForm(call.module, call.time_axes, output_dims, *bound, test.size, design)

    def _by_design(self, test: LocalityTest, blamed: Sequence[LocalForm], output_dims: Sequence[int | None]) -> bool:
        axes: Axes = [() if dim is None else (dim,) for dim in output_dims]
        for longest in (max(1, LONGEST // test.size), 1):
            try:
                return mixes_by_design(test, blamed, axes, longest)
            except Exception:
                continue
        return False

    def _at_one_length(
        self, name: str, test: LocalityTest, blamed: Sequence[LocalForm]
    ) -> tuple[bool, list[int | None]]:
        """Whether a module mixes that takes inputs of its own length only, and where its outputs have time."""
        try:
            return not blamed and test.crosses(), [_matching(out, test.size) for out in test.unmoved(1)]
        except Exception as error:  # it may need what its surroundings set up
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            self.untested.add(name)
            self.notes.append(f"{name or 'the network itself'} could not be tested by itself ({reason})")
            return False, []

    def _bound(self, name: str) -> tuple[int, int]:
        """At most how far the modules directly inside hear together, if each were the next one's input."""
        left = right = 0
        for child in self._children(name):
            own, theirs = self.calls[name], self.calls[child]
            if not any(theirs.time_axes):
                continue
            share = _time_steps(own) / _time_steps(theirs) * max(1.0, theirs.calls / own.calls)
            reach = self.findings[child].reach
            left, right = left + math.ceil(reach[0] * share), right + math.ceil(reach[1] * share)
        return left, right

    def _children(self, name: str) -> list[str]:
        """The nearest recorded modules inside one: a list of layers is itself never called."""
        found = []
        for own, _ in self.modules[name].named_children():
            child = f"{name}.{own}" if name else own
            if child in self.findings:
                found.append(child)
            elif child in self.modules:
                found += self._children(child)
        return found

    def _batch(self, call: Call) -> bool | None:
        """Whether a module mixes the batch; ``None`` where that cannot be tested."""
        if not any(call.batch_axes):
            return None
        test = LocalityTest(call, call.batch_axes, self.seed)
        try:
            if any(test.output_axes):
                return growth(test.changed_outputs, 4 * test.size)[0]
            return test.size > 1 and test.pools()
        except Exception:  # whatever a foreign module raises when its batch is larger
            return None


def _matching(output: Tensor, size: int) -> int | None:
    return next((d for d in range(output.ndim) if output.shape[d] == size), None)


def _time_steps(call: Call) -> int:
    return min((leaf.shape[d] for leaf, dims in zip(call.leaves, call.time_axes, strict=True) for d in dims), default=1)
