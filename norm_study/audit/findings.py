"""What an audit found, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from norm_study.audit.influence import Estimate, Rows, by_distance


@dataclass(frozen=True)
class ModuleReport:
    """One module of the audited network.

    Attributes:
        name: its name in the network; the network itself has none.
        type: its class.
        verdict: ``local``, ``mixes time`` or ``mixes the batch``: what it does itself, not what modules inside it do.
        mixes_batch: whether one sample's output hears of another's input.
        leakage_alone: leakage when it alone is active and all others that mix are made local; ``None`` inside
            another module that mixes, which cannot be made local without what is inside it.
        leakage_without: leakage that remains when it alone is made local.
        by_design: whether it mixes by weighing times against each other, as attention or a recurrence does, rather than
            by a statistic that all times share.
    """

    name: str
    type: str
    verdict: str
    mixes_batch: bool
    leakage_alone: float | None
    leakage_without: float | None
    by_design: bool = False


@dataclass(frozen=True)
class Movement:
    """The finite test on one input: how far outputs move when everything outside their receptive field is redrawn.

    Attributes:
        input: which of the inputs.
        value: root mean square movement, in standard deviations of the output; ``None`` where nothing lies outside.
        standard_error: over output times.
    """

    input: int
    value: float | None
    standard_error: float | None


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        verdict: ``local``, ``leaks``, ``global`` or ``not measured``, see :func:`norm_study.audit.verdict.decide`.
        reason: why, in one sentence.
        leakage: ``None`` where the input is too short for anything to lie outside the receptive field, or the Jacobian
            is zero.
        jacobian_change: ‖J − J_local‖² / ‖J‖², what making every mixing module local changes, inside the receptive
            field too. No share: where the two maps differ in sign or size it is above 1.
        receptive_field: steps (left, right) of the input, largest over inputs and phases of the strides.
        modules: every single layer with time or batch in its input, and whatever else mixes; in the network's order.
        finite: the finite test, one entry per input.
        maps: squared influences on the sampled output times.
        notes: what the reader must know to trust the numbers.
        cost: seconds of each part, and the share of the full Jacobian's rows that were computed.
        settings: what the audit was asked for.
    """

    verdict: str
    reason: str
    leakage: Estimate | None
    jacobian_change: Estimate
    receptive_field: tuple[int, int]
    modules: list[ModuleReport]
    finite: list[Movement]
    maps: Rows
    notes: list[str]
    cost: dict[str, float]
    settings: dict[str, Any]

    @property
    def leaking_modules(self) -> list[ModuleReport]:
        """The modules that mix time."""
        return [module for module in self.modules if module.verdict == "mixes time"]

    def leakage_beyond(self, left: int, right: int) -> Estimate | None:
        """Leakage against another receptive field, one computed by hand for instance."""
        return self.maps.leakage(left, right)

    def by_distance(self) -> list[dict[str, float]]:
        """Share of the energy from farther than each distance, full and frozen."""
        return by_distance(self.maps)

    def to_dict(self) -> dict[str, Any]:
        """``config``, ``rows`` (the modules) and ``summary``, as the command's JSON has them."""
        return {
            "config": self.settings,
            "rows": [asdict(module) for module in self.modules],
            "summary": {
                "verdict": self.verdict,
                "reason": self.reason,
                "leakage": None if self.leakage is None else asdict(self.leakage),
                "jacobian_change": asdict(self.jacobian_change),
                "receptive_field": list(self.receptive_field),
                "leaking_modules": len(self.leaking_modules),
                "finite": [asdict(movement) for movement in self.finite],
                "leakage_by_distance": self.by_distance(),
                "notes": self.notes,
                "cost": self.cost,
            },
        }


RENAMED = {"norm_borne": "jacobian_change"}
"""Names in JSON of earlier days, and today's."""


def with_todays_names(stored: Any) -> Any:
    """What an audit wrote, on whatever day, with the names of today."""
    if isinstance(stored, dict):
        return {RENAMED.get(key, key): with_todays_names(value) for key, value in stored.items()}
    return [with_todays_names(value) for value in stored] if isinstance(stored, list) else stored
