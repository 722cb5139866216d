"""The audit of networks of images and videos, one axis at a time.

    found = audit_axes(unet, (images, level), {"height": -2, "width": -1})
    found.verdict, found.reports["height"].receptive_field

Along one axis everything else counts as channels, so what one axis's audit calls a leak crosses that axis from beyond
its reach, wherever it comes from on the others. Axes that are not named may mix: of a video whose frames must not see
each other, name time alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from groundwork.errors import UserError
from norm_study.audit.findings import AuditReport
from norm_study.audit.leakage import audit
from norm_study.audit.verdict import GLOBAL, LEAKS, LOCAL, NOT_MEASURED


@dataclass(frozen=True)
class AxesReport:
    """What was found along each axis.

    Attributes:
        reports: by the axis's name.
    """

    reports: dict[str, AuditReport]

    @property
    def verdict(self) -> str:
        """``local`` if all are; otherwise the gravest: ``leaks``, then ``not measured``, then ``global``."""
        found = {report.verdict for report in self.reports.values()}
        return next(verdict for verdict in (LEAKS, NOT_MEASURED, GLOBAL, LOCAL) if verdict in found)

    @property
    def receptive_field(self) -> dict[str, tuple[int, int]]:
        """Steps (before, after) along each axis."""
        return {axis: report.receptive_field for axis, report in self.reports.items()}

    def __str__(self) -> str:
        lines = [f"{axis}: {report.verdict}: {report.reason}" for axis, report in self.reports.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The verdict, and each axis's report as :meth:`AuditReport.to_dict` has it."""
        reports = {axis: report.to_dict() for axis, report in self.reports.items()}
        return {"verdict": self.verdict, "axes": reports}


def audit_axes(
    module: nn.Module,
    inputs: Any,
    axes: Mapping[str, int | Sequence[int | None]],
    *,
    output_axes: Mapping[str, int] | None = None,
    **settings: Any,
) -> AxesReport:
    """Audits every axis that must be local.

    Args:
        module: any network.
        inputs: see :func:`norm_study.audit.audit`.
        axes: by name, the axis of the first argument; or one entry per argument, ``None`` where there is none.
        output_axes: by name, the axis of the output, where it differs.
        settings: of :func:`norm_study.audit.audit`.

    Raises:
        UserError: no axis, or what :func:`norm_study.audit.audit` raises.
    """
    if not axes:
        raise UserError("axes is empty: name those that must be local, as in {'height': -2, 'width': -1}")
    outputs = output_axes or {}
    return AxesReport(
        {
            name: audit(module, inputs, time_dims=dims, output_time_dim=outputs.get(name), **settings)
            for name, dims in axes.items()
        }
    )
