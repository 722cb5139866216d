"""The leak audit of any network: how much its output hears from beyond its receptive field, and by whom."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norm_study.audit.leakage import audit

__all__ = ["audit"]


def __getattr__(name: str) -> Any:
    """Imports the audit when it is asked for: the settings of its command are read without torch."""
    if name != "audit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from norm_study.audit.leakage import audit

    return audit
