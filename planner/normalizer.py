"""Fit, apply and invert the map from data units to the network's [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LimitsNormalizer:
    """Maps each dimension's range in the training data to [−1, 1] (Janner et al. 2022).

    A dimension that never varies maps to 0 and back to its constant.

    Attributes:
        low: (D,) smallest values.
        high: (D,) largest values.
    """

    low: Tensor
    high: Tensor

    @staticmethod
    def fit(values: Tensor) -> LimitsNormalizer:
        """From values (N, D)."""
        return LimitsNormalizer(values.amin(0), values.amax(0))

    def normalize(self, values: Tensor) -> Tensor:
        """(…, D) in data units → (…, D); values inside the limits land in [−1, 1], the limits exactly on its ends."""
        span = self.high - self.low
        inside = (values - self.low) / torch.where(span > 0, span, 1.0) * 2 - 1
        return torch.where(span > 0, inside, 0.0)

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return self.low + (values + 1) / 2 * (self.high - self.low)

    def to(self, device: torch.device | str) -> LimitsNormalizer:
        """The same limits on another device."""
        return LimitsNormalizer(self.low.to(device), self.high.to(device))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain values for JSON."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @staticmethod
    def from_dict(values: dict[str, list[float]]) -> LimitsNormalizer:
        """From :meth:`to_dict`."""
        return LimitsNormalizer(torch.tensor(values["low"]), torch.tensor(values["high"]))
