"""Three planners of other houses, written from their papers, small: what an exchange of norms is tried on.

Letters: B batch, D transition dimensions, C channels, E embedding, T time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.unet import TemporalUNet

WIDTHS = (32, 64)
GROUPS = 8


class LevelEmbedding(nn.Module):
    """Noise levels (B,) as sines and cosines through an MLP, (B, E)."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.inlet, self.outlet = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, level_B: Tensor) -> Tensor:
        """The embedding."""
        half = self.size // 2
        rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=level_B.device))
        angles = level_B[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], -1).to(self.inlet.weight.dtype)
        return self.outlet(F.mish(self.inlet(waves)))


def conv_block(c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    """Convolution, GroupNorm, Mish: the unit of all three."""
    return nn.Sequential(nn.Conv1d(c_in, c_out, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, c_out), nn.Mish())


class ShiftBlock(nn.Module):
    """Two units with a residual; the level's embedding is added between them (Janner et al. 2022; CleanDiffuser)."""

    def __init__(self, c_in: int, c_out: int, embedding: int, kernel: int):
        super().__init__()
        self.first, self.second = conv_block(c_in, c_out, kernel), conv_block(c_out, c_out, kernel)
        self.shift = nn.Sequential(nn.Mish(), nn.Linear(embedding, c_out))
        self.residual = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x_BCT: Tensor, level_BE: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T)."""
        return self.second(self.first(x_BCT) + self.shift(level_BE)[..., None]) + self.residual(x_BCT)


class FiLMBlock(nn.Module):
    """Two units with a residual; the condition scales and shifts between them (Chi et al. 2023; Perez et al. 2018)."""

    def __init__(self, c_in: int, c_out: int, embedding: int, kernel: int):
        super().__init__()
        self.first, self.second = conv_block(c_in, c_out, kernel), conv_block(c_out, c_out, kernel)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(embedding, 2 * c_out))
        self.residual = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x_BCT: Tensor, condition_BE: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T)."""
        scale, shift = self.film(condition_BE)[..., None].chunk(2, 1)
        return self.second(scale * self.first(x_BCT) + shift) + self.residual(x_BCT)


class ForeignUNet(nn.Module):
    """A U-Net of two blocks per level, strided convolutions down, transposed ones up, and skips.

    Args:
        dimension: D.
        block: of a level, as ``block(C, C', E, kernel)``.
        kernel: of the blocks.
        middle: how many blocks at the bottom.
    """

    def __init__(self, dimension: int, block: Callable[..., nn.Module], kernel: int, middle: int = 2):
        super().__init__()
        wide, low = WIDTHS
        self.embedding = LevelEmbedding(wide)
        self.down = nn.ModuleList([block(dimension, wide, wide, kernel), block(wide, wide, wide, kernel)])
        self.lower = nn.Conv1d(wide, wide, 3, 2, padding=1)
        self.middle = nn.ModuleList(block(wide if i == 0 else low, low, wide, kernel) for i in range(middle))
        self.higher = nn.ConvTranspose1d(low, low, 4, 2, padding=1)
        self.up = nn.ModuleList([block(low + wide, wide, wide, kernel), block(wide, wide, wide, kernel)])
        self.outlet = nn.Sequential(conv_block(wide, wide, kernel), nn.Conv1d(wide, dimension, 1))

    def forward(self, x_BDT: Tensor, level_B: Tensor) -> Tensor:
        """The denoiser's prediction for noisy (B, D, T) at levels (B,)."""
        level = self.embedding(level_B)
        for block in self.down:
            x_BDT = block(x_BDT, level)
        skip, x = x_BDT, self.lower(x_BDT)
        for block in self.middle:
            x = block(x, level)
        x = torch.cat([self.higher(x), skip], 1)
        for block in self.up:
            x = block(x, level)
        return self.outlet(x)


class Sampled(nn.Module):
    """A network of diffusers whose output is the sample itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x_BDT: Tensor, level_B: Tensor) -> Tensor:
        """The denoiser's prediction."""
        return self.network(x_BDT, level_B).sample


FOREIGN: dict[str, Callable[[int], nn.Module]] = {
    "CleanDiffuser's U-Net": lambda dimension: ForeignUNet(dimension, ShiftBlock, 5),
    "diffusion policy's 1D U-Net": lambda dimension: ForeignUNet(dimension, FiLMBlock, 3),
    "diffusers' UNet1DModel": lambda dimension: Sampled(
        TemporalUNet(dimension, dim=WIDTHS[0], dim_mults=(1, 2)).to_diffusers()
    ),
}
"""By name: a denoiser of (B, D, T), given D."""
