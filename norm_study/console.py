"""An earlier place of :func:`norm_study.main.main`, which scripts of installed versions still call."""

from norm_study.main import main

__all__ = ["main"]
