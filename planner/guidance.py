"""Costs that steer plans while they are sampled: one interface for a region to avoid and for learned values.

Shapes: B plans, T planned points, D transition dimensions, all in data units (metres, metres per second).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from groundwork.errors import UserError

MARGIN_M = 0.2
"""A region begins to push this far outside its border, since the steps that follow pull plans back a little."""
REACH_M = 2.0
"""And so much farther in pure noise, where a plan's way is decided, less in proportion as the noise fades."""
POINTS_PER_STEP = 4
"""A plan pays between its points too, or it would jump across a region."""


class Guide(Protocol):
    """A differentiable cost of plans; lower is better. A learned value guides as its negative."""

    def __call__(self, clean_BTD: Tensor, noise: float) -> Tensor:
        """The costs (B,) of predicted clean plans (B, T, D).

        ``noise`` is the standard deviation of the noise in what they were predicted from, 1 at first and 0 for
        finished plans: where much is left, plans are still undecided and the prediction is a mean of many.
        """


@dataclass(frozen=True)
class AvoidRegion:
    """A disc to stay out of.

    Attributes:
        x_m, y_m: its centre.
        radius_m: its radius.

    Raises:
        UserError: values that are not finite, or a radius that is not positive.
    """

    x_m: float
    y_m: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, (self.x_m, self.y_m, self.radius_m))) and self.radius_m > 0):
            given = f"{self.x_m:g},{self.y_m:g},{self.radius_m:g}"
            raise UserError(f"avoid = {given} must be x,y,radius in metres with a radius above 0")

    def __call__(self, clean_BTD: Tensor, noise: float) -> Tensor:
        """Half the squared depth of every point in the region and its margin, in m², summed along the plan.

        The last point is the goal, which is given, and costs nothing.
        """
        positions = clean_BTD[..., :2]
        shares = torch.arange(POINTS_PER_STEP).to(positions).view(-1, 1, 1, 1) / POINTS_PER_STEP
        between = torch.lerp(positions[:, :-1], positions[:, 1:], shares)
        centre = positions.new_tensor([self.x_m, self.y_m])
        # The small number keeps the gradient finite at the very centre.
        distance = ((between - centre).square().sum(-1) + 1e-12).sqrt()
        depth = (self.radius_m + MARGIN_M + REACH_M * noise - distance).relu()
        return 0.5 * depth.square().mean(0).sum(-1)

    def entered(self, positions_NHX: np.ndarray) -> np.ndarray:
        """Whether any segment of each path (N, H, 2) enters the disc, without its margin; (N,) bool."""
        start = positions_NHX[:, :-1] - np.array([self.x_m, self.y_m])
        along = np.diff(positions_NHX, axis=1)
        length_squared = np.maximum(np.square(along).sum(-1), np.finfo(float).tiny)
        share = np.clip(-(start * along).sum(-1) / length_squared, 0, 1)
        nearest = np.linalg.norm(start + share[..., None] * along, axis=-1)
        return (nearest < self.radius_m).any(1)


def descend(guide: Guide, plans_BTD: Tensor, noise: float, scale: float) -> Tensor:
    """The plans after one step of gradient descent on their costs.

    Steps shrink with the noise, so that the last denoising steps can mend what the push has bent.

    Args:
        guide: the cost.
        plans_BTD: in data units; no gradient flows back to where they came from.
        noise: standard deviation of the noise that is left, from 1 to 0.
        scale: of the step in pure noise, in units² of data per unit of cost. With 1, :class:`AvoidRegion` takes a
            plan that is inside about to its border.

    Raises:
        ValueError: a guide whose costs are not one number per plan.
    """
    with torch.enable_grad():
        plans = plans_BTD.detach().requires_grad_()
        costs = guide(plans, noise)
        if costs.shape != plans.shape[:1]:
            raise ValueError(f"a guide gave costs of shape {tuple(costs.shape)} for {len(plans)} plans")
        (gradient,) = torch.autograd.grad(costs.sum(), plans)
    return (plans - scale * noise * gradient).detach()
