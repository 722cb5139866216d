"""Convolutions and norms compute the same in either layout, and keep it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planner.unet
from planner.convolutions import Convolution, TransposedConvolution, are_channels_last, channels_last, joined
from planner.norms import NORM_TABLE, make_norm
from planner.unet import TemporalUNet

SEQUENCES = torch.randn(3, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LAYERS = {
    "kernel of 5": Convolution(8, 4, 5, padding=2),
    "kernel of 1": Convolution(8, 4, 1),
    "halving": Convolution(8, 8, 3, 2, padding=1),
    "replicated ends": Convolution(8, 4, 3, padding=1, padding_mode="replicate"),
    "doubling": TransposedConvolution(8, 8, 4, stride=2, padding=1),
    "dilated, in groups": Convolution(8, 4, 3, dilation=2, groups=2),
    "doubling to an odd length": TransposedConvolution(8, 4, 4, stride=2, padding=1, output_padding=1, groups=2),
    "as long as the input": Convolution(8, 4, 5, padding="same"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_is_torchs_in_either_layout_with_its_gradients(name):
    layer = LAYERS[name].double()
    theirs = (nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.ConvTranspose1d).forward

    def results(forward, x):
        x = x.detach().requires_grad_()
        output = forward(x)
        return output, *torch.autograd.grad(output.square().sum(), (x, layer.weight, layer.bias))

    expected = results(lambda x: theirs(layer, x), SEQUENCES.contiguous())
    for x in (SEQUENCES, channels_last(SEQUENCES)):
        found = results(layer, x)
        kept = name not in ("replicated ends", "as long as the input")
        assert are_channels_last(found[0]) == (are_channels_last(x) and kept)
        for ours, other in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=0, atol=1e-10)


def test_a_size_that_is_asked_for_is_given_in_either_layout():
    layer = TransposedConvolution(8, 4, 4, stride=2, padding=1).double()
    assert {layer(x, output_size=[33]).shape[-1] for x in (SEQUENCES, channels_last(SEQUENCES))} == {33}


@pytest.mark.parametrize("kind", ["channel", "rms", "group_step"])
def test_gradients_of_norms_lose_no_digits_inside_autocast(kind):
    norm = make_norm(kind, 8, groups=2)
    x = SEQUENCES.float().requires_grad_()

    def gradient():
        return torch.autograd.grad(norm(x).pow(3).sum(), x)[0]

    expected = gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gradient(), expected, rtol=0, atol=1e-5)


def test_joined_channels_keep_the_layout_of_the_first():
    other = 2 * SEQUENCES
    for first in (SEQUENCES, channels_last(SEQUENCES)):
        both = joined(first, other)
        assert torch.equal(both, torch.cat((SEQUENCES, other), 1))
        assert are_channels_last(both) == are_channels_last(first)


@pytest.mark.parametrize("kind", [kind for kind, facts in NORM_TABLE.items() if not facts.over])
def test_norms_of_one_step_give_the_same_in_either_layout(kind):
    norm = make_norm(kind, 8, groups=2).double()
    expected = norm(SEQUENCES)
    assert expected.is_contiguous()
    torch.testing.assert_close(norm(channels_last(SEQUENCES)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("kind", ["channel", "rms"])
def test_a_network_with_norms_over_channels_lies_by_channels_and_computes_the_same(kind, padding_mode, monkeypatch):
    network = TemporalUNet(4, dim=8, dim_mults=(1, 2), kernel_size=3, norm=kind, padding_mode=padding_mode).double()
    sample, levels, layouts = SEQUENCES[:, :4], torch.arange(3), []
    for part in network.modules():
        if isinstance(part, Convolution):
            part.register_forward_hook(lambda part, inputs, output: layouts.append(are_channels_last(inputs[0])))

    def results():
        network.zero_grad()
        network(sample, levels).square().sum().backward()
        return [network(sample, levels), *(each.grad.clone() for each in network.parameters())]

    found = results()
    assert set(layouts) == {padding_mode == "zeros"}
    monkeypatch.setattr(planner.unet, "channels_last", lambda x: x)
    layouts.clear()
    for ours, other in zip(found, results(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)
    assert not any(layouts)


def test_networks_with_other_norms_keep_their_layout():
    for kind in ("group", "none", "dyt", "group_step"):
        network = TemporalUNet(4, dim=8, dim_mults=(1, 2), kernel_size=3, norm=kind, norm_groups=2)
        assert network(SEQUENCES[:, :4].float(), 0).is_contiguous()
