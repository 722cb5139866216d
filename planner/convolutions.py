"""Convolutions of sequences that compute in the layout of their input.

Norms over a step's channels are cheapest where these lie side by side in memory, and torch's convolutions of images can
compute there: a sequence is an image of height 1. Its own of sequences would copy the input first.

Shapes: B batch, C channels, T time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_last(x_BCT: Tensor) -> Tensor:
    """The same tensor, its channels side by side in memory."""
    return x_BCT.transpose(1, 2).contiguous().transpose(1, 2)


def are_channels_last(x_BCT: Tensor) -> bool:
    """Whether a tensor's channels lie side by side, and not its time steps too."""
    return x_BCT.stride(1) == 1 and not x_BCT.is_contiguous()


def joined(x_BCT: Tensor, other_BCT: Tensor) -> Tensor:
    """The channels of both, in the layout of the first."""
    if not are_channels_last(x_BCT):
        return torch.cat((x_BCT, other_BCT), dim=1)
    return torch.cat((x_BCT.transpose(1, 2), other_BCT.transpose(1, 2)), dim=2).transpose(1, 2)


class Convolution(nn.Conv1d):
    """A convolution of sequences."""

    def _conv_forward(self, x_BCT: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not are_channels_last(x_BCT) or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(x_BCT, weight, bias)
        stride, padding, dilation = (1, *self.stride), (0, *self.padding), (1, *self.dilation)
        how: tuple[Any, ...] = (bias, stride, padding, dilation, self.groups)
        return F.conv2d(x_BCT.unsqueeze(2), weight.unsqueeze(2), *how).squeeze(2)


class TransposedConvolution(nn.ConvTranspose1d):
    """A transposed convolution of sequences."""

    def forward(self, x_BCT: Tensor, output_size: Any = None) -> Tensor:
        """The longer sequence, of that size where one is asked for."""
        if not are_channels_last(x_BCT) or output_size is not None:
            return super().forward(x_BCT, output_size)
        stride, padding, more = (1, *self.stride), (0, *self.padding), (0, *self.output_padding)
        how: tuple[Any, ...] = (self.bias, stride, padding, more, self.groups, (1, *self.dilation))
        return F.conv_transpose2d(x_BCT.unsqueeze(2), self.weight.unsqueeze(2), *how).squeeze(2)
