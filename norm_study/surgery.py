"""The exchange of norms under the name by which it was first known: see :mod:`norm_study.audit.surgery`."""

from norm_study.audit.surgery import *  # noqa: F403
