"""The leak audit of any network: how much its output hears from beyond its receptive field, and by whom."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norm_study.audit.assertions import assert_causal, assert_independent_batch, assert_local
    from norm_study.audit.leakage import audit
    from norm_study.audit.monitor import LeakMonitor

__all__ = ["LeakMonitor", "assert_causal", "assert_independent_batch", "assert_local", "audit"]
_HOMES = dict.fromkeys(__all__, "assertions") | {"LeakMonitor": "monitor", "audit": "leakage"}


def __getattr__(name: str) -> Any:
    """Imports the audit when it is asked for: the settings of its command are read without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"norm_study.audit.{_HOMES[name]}"), name)
