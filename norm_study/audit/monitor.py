"""The leak monitor of any training loop: see :class:`planner.training.leak_monitor.LeakMonitor`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from norm_study.audit.leakage import audit
from planner.training import leak_monitor


class LeakMonitor(leak_monitor.LeakMonitor):
    """The same without a receptive field given: it is found by an audit, once, before the first measurement.

        monitor = LeakMonitor(network, writer, every=500)
        for batch in batches:
            ...  # as ever
            monitor.step()

    Args:
        network: what is trained; sequences are its first positional argument.
        writer: of TensorBoard events.
        receptive_field: steps of the input that an output may hear to its left and right, where they are known.
        settings: as of :class:`planner.training.leak_monitor.LeakMonitor`.
    """

    def __init__(
        self, network: nn.Module, writer: Any, *, receptive_field: tuple[int, int] | None = None, **settings: Any
    ):
        super().__init__(network, writer, receptive_field=receptive_field or (0, 0), **settings)
        self._known = receptive_field is not None

    def measure(self) -> Any:
        """The leakage now; the first time the receptive field is found before."""
        if not self._known:
            assert self._given is not None, "the network was not run yet"
            args, kwargs = self._given
            self.receptive_field = audit(
                _Bound(self.network, kwargs),
                args,
                time_dims=self.time_dim,
                training=False,
                attribution=False,
                times=4,
                projections=1,
                redraws=1,
                dtype=None,
            ).receptive_field
            self._known = True
        return super().measure()


class _Bound(nn.Module):
    """A network with its named arguments filled in."""

    def __init__(self, network: nn.Module, kwargs: dict[str, Any]):
        super().__init__()
        self.network, self.kwargs = network, kwargs

    def forward(self, *args: Any) -> torch.Tensor:
        return self.network(*args, **self.kwargs)
