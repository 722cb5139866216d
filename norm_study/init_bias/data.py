"""What untrained and young classifiers are shown: Gaussian blobs and scikit-learn's digits.

Letters: N data points, D dimensions, K classes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# Streams of random numbers beside those of the networks, which start at the seed itself.
BLOB_STREAM, DIGIT_STREAM = 7 * 1_000_003, 8 * 1_000_003


def blobs(points: int, dimensions: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit-variance Gaussians around centres of norm 1.

    The first two centres have all coordinates at +1/sqrt(D) and at -1/sqrt(D); each further one has signs
    of its own, the same for every seed.

    Returns:
        (N, D) points and (N,) labels, the classes as equal in number as ``points`` allows.
    """
    signs = torch.randint(0, 2, (classes, dimensions), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    signs[0], signs[1] = 1, -1
    generator = torch.Generator().manual_seed(seed + BLOB_STREAM)
    labels = torch.arange(points) % classes
    return signs[labels] / math.sqrt(dimensions) + torch.randn(points, dimensions, generator=generator), labels


@lru_cache(maxsize=1)
def all_digits() -> tuple[Tensor, Tensor]:
    """(1797, 64) images of 8 by 8 pixels, mean 0 and variance 1 over all pixels together, and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float()
    return (pixels - pixels.mean()) / pixels.std(), torch.from_numpy(labels).long()


def digits(points: int | None, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Digits below ``classes`` in an order that depends on the seed, the first ``points`` of them."""
    images, labels = all_digits()
    chosen = torch.nonzero(labels < classes)[:, 0]
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed + DIGIT_STREAM))
    chosen = chosen[order][:points]
    return images[chosen], labels[chosen]
