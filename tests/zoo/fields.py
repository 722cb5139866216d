"""Receptive fields by formula: a layer is the map from an output's index to the first and last input it hears.

Indices run over all whole numbers; what lies past the ends is padding. Maps of layers in a row are composed, maps of
branches are hulled, so the reach of a network is arithmetic on its kernels, strides and windows.
"""

from __future__ import annotations

from collections.abc import Callable

Field = Callable[[int], tuple[int, int]]


def here(o: int) -> tuple[int, int]:
    """A layer that acts on every step by itself."""
    return o, o


def conv(kernel: int, dilation: int = 1, stride: int = 1, left: int | None = None) -> Field:
    """A convolution with ``left`` padded steps, by default half of what the kernel spans."""
    span = dilation * (kernel - 1)
    padded = span // 2 if left is None else left
    return lambda o: (o * stride - padded, o * stride - padded + span)


def causal(kernel: int, dilation: int = 1, stride: int = 1) -> Field:
    """A convolution padded on the left alone, such that its last tap is the newest step of the stride."""
    return conv(kernel, dilation, stride, dilation * (kernel - 1) - (stride - 1))


def transposed(kernel: int, stride: int, padding: int) -> Field:
    """A transposed convolution: input i goes to the outputs i·stride − padding + j for j < kernel."""
    return lambda o: (-((kernel - 1 - o - padding) // stride), (o + padding) // stride)


def nearest(factor: int) -> Field:
    """Every step repeated."""
    return lambda o: (o // factor, o // factor)


def window(size: int, shift: int = 0) -> Field:
    """Each output hears the whole of its window; windows begin at multiples of the size, moved left by the shift."""

    def heard(o: int) -> tuple[int, int]:
        first = (o + shift) // size * size - shift
        return first, first + size - 1

    return heard


def chain(*fields: Field) -> Field:
    """Layers in a row, the first one next to the input."""

    def heard(o: int) -> tuple[int, int]:
        low = high = o
        for field in reversed(fields):
            low, high = field(low)[0], field(high)[1]
        return low, high

    return heard


def beside(*fields: Field) -> Field:
    """Branches that are joined: the hull."""

    def heard(o: int) -> tuple[int, int]:
        ends = [field(o) for field in fields]
        return min(low for low, _ in ends), max(high for _, high in ends)

    return heard


def position(o: int, outputs: int, inputs: int) -> int:
    """The input index beside which an output lies: whole ratios of lengths, and what is left over cut at both ends."""
    if inputs >= outputs:
        ratio = round(inputs / outputs)
        return o * ratio + int((inputs - ratio * outputs) / 2)
    ratio = round(outputs / inputs)
    return (o - int((outputs - ratio * inputs) / 2)) // ratio


def reach(field: Field, outputs: int, inputs: int) -> tuple[int, int]:
    """How far to the left and right of their own positions outputs hear, at most, inside the input."""
    left = right = 0
    for o in range(outputs):
        low, high = field(o)
        at = position(o, outputs, inputs)
        left, right = max(left, at - max(low, 0)), max(right, min(high, inputs - 1) - at)
    return left, right
