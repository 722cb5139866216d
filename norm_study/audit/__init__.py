"""The leak audit of any network: how much its output hears from beyond its receptive field, and by whom."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norm_study.audit.assertions import assert_causal, assert_independent_batch, assert_local
    from norm_study.audit.axes import audit_axes
    from norm_study.audit.leakage import audit
    from norm_study.audit.monitor import LeakMonitor
    from norm_study.audit.quick import is_local

__all__ = [
    "LeakMonitor",
    "assert_causal",
    "assert_independent_batch",
    "assert_local",
    "audit",
    "audit_axes",
    "is_local",
]
_HOMES = {"LeakMonitor": "monitor", "audit": "leakage", "audit_axes": "axes", "is_local": "quick"}


def __getattr__(name: str) -> Any:
    """Imports the audit when it is asked for: the settings of its command are read without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"norm_study.audit.{_HOMES.get(name, 'assertions')}"), name)
