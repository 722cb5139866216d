"""Fit, apply and invert the map from data units to the network's [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from groundwork.errors import UserError

FIXED_SHARE = 1e-4
"""A dimension whose range is below this share of its size is a constant with noise on it."""
FARTHEST = 10.0
"""Normalized values beyond this are far from anything that a network was trained on."""


@dataclass(frozen=True)
class LimitsNormalizer:
    """Maps each dimension's range in the training data to [−1, 1] (Janner et al. 2022).

    A dimension that never varies, or by less than a ten-thousandth of its size, maps to 0 and back to its constant:
    stretched to [−1, 1], the noise of a sensor would drown the other dimensions.

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

    @cached_property
    def _varies(self) -> Tensor:
        return self.high - self.low > FIXED_SHARE * torch.maximum(self.low.abs(), self.high.abs())

    @cached_property
    def _all_vary(self) -> bool:
        return bool(self._varies.all())

    @cached_property
    def _divisor(self) -> Tensor:
        return torch.where(self._varies, self.high - self.low, 1.0)

    def normalize(self, values: Tensor) -> Tensor:
        """(…, d) of the first d dimensions in data units → (…, d); the limits land exactly on the ends of [−1, 1]."""
        first = slice(values.shape[-1])
        inside = (values - self.low[first]) / self._divisor[first] * 2 - 1
        return inside if self._all_vary else torch.where(self._varies[first], inside, 0.0)

    def require_near(self, values: np.ndarray, name: str) -> None:
        """Refuses values (N, d) of the first d dimensions that lie far outside the limits.

        Raises:
            UserError: the first of them, as a number of ``name``.
        """
        far = self.normalize(torch.as_tensor(values, device=self.low.device)).abs() > FARTHEST
        if far.any():
            row, column = far.nonzero()[0].tolist()
            raise UserError(
                f"{name}: its number {column + 1}, {values[row, column]:g}, is far from the data's, which are from "
                f"{self.low[column]:g} to {self.high[column]:g}"
            )

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
