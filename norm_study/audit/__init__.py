"""The leak audit of any network: how much its output hears from beyond its receptive field, and by whom."""

from norm_study.audit.leakage import audit

__all__ = ["audit"]
