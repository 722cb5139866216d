"""One word for what an audit found, and why."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from norm_study.audit.findings import ModuleReport, Movement
from norm_study.audit.influence import Estimate

LOCAL, LEAKS, GLOBAL, NOT_MEASURED = "local", "leaks", "global", "not measured"


def rounding(dtype: torch.dtype) -> float:
    """The largest movement, in standard deviations of an output, that rounding may cause: 1.8e-12 in float64."""
    return float(torch.finfo(dtype).eps ** 0.75)


def decide(
    leakage: Estimate | None,
    finite: Sequence[Movement],
    modules: Sequence[ModuleReport],
    *,
    depends: bool,
    hears_everything: bool,
    timeless: bool,
    untested: bool,
    threshold: float,
) -> tuple[str, str]:
    """The verdict and its reason.

    ``local`` needs a Jacobian that is not zero, a finite test that agrees, no module that mixes, and an input longer
    than the receptive field; ``global`` that the output still hears the whole input with every statistic held constant;
    ``leaks`` that an output moves, or its Jacobian is not zero, beyond its receptive field. All else is ``not
    measured``.

    Args:
        leakage: as the report has it.
        finite: the finite test.
        modules: what each module does.
        depends: whether the Jacobian is not zero.
        hears_everything: whether the output hears the whole input with statistics constant.
        timeless: whether the output's axis does not grow with the input, and so may not be time.
        untested: whether the network as a whole could not be tested for what its modules do not tell.
        threshold: movements up to here, and leakage up to its square, are rounding.
    """
    mixing = [module for module in modules if module.verdict == "mixes time"]
    names = _names(mixing)
    moved = max((movement.value for movement in finite if movement.value is not None), default=0.0)
    leaks = leakage is not None and leakage.value > threshold**2
    if timeless:
        return NOT_MEASURED, "the output's axis does not grow with the input: is it time?"
    if hears_everything:
        design = _names([module for module in mixing if module.by_design])
        return GLOBAL, f"with statistics held constant every output still hears the whole input, through {design}"
    if moved > threshold and not leaks:
        return LEAKS, (
            f"finite test and Jacobian disagree: outputs move by {moved:.2g} standard deviations when all beyond their "
            f"receptive field is redrawn, without a gradient that says so; {names or 'no module'} mixes time"
        )
    if leaks:
        assert leakage is not None
        return (
            LEAKS,
            f"{100 * leakage.value:.2g} % of the Jacobian's energy lies beyond the receptive field, through {names}",
        )
    if not depends:
        return NOT_MEASURED, "the output does not depend on the input, as far as gradients tell"
    if leakage is None:
        also = f"; {names} mixes time and would leak in a longer one" if mixing else ""
        return NOT_MEASURED, f"the input lies within the receptive field of every output: take a longer one{also}"
    if mixing:
        return NOT_MEASURED, f"{names} mixes time, but at these weights nothing of it reaches the output"
    if untested:
        return NOT_MEASURED, "nothing was found to leak, but the network as a whole could not be tested"
    return LOCAL, "nothing beyond the receptive field moves an output, and no module mixes time"


def _names(modules: Sequence[ModuleReport]) -> str:
    shown = [f"{module.name or 'the network itself'} ({module.type})" for module in modules]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
