"""Exchanging norms: everything or nothing, weights carried over, and a network that leaks no more."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet1DModel
from torch import nn

from groundwork.errors import UserError
from norm_study.audit import audit
from norm_study.audit.surgery import replace_norms
from planner.norm_layers import ChannelNorm, ChannelRMSNorm, PackNorm
from planner.norms import WHOLE_KINDS, make_norm
from planner.unet import TemporalUNet


def temporal_unet1d(widths=(8, 16)):
    """diffusers' own network in its temporal configuration, small."""
    torch.manual_seed(0)
    return TemporalUNet(3, dim=widths[0], dim_mults=[w // widths[0] for w in widths]).to_diffusers()


def randomized(module):
    """Norm weights and biases that a mix-up would show in."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return module


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_diffusers_unet_leaks_no_more():
    unet = temporal_unet1d()
    assert isinstance(unet, UNet1DModel)
    inputs = torch.randn(1, 3, 192), torch.tensor([4])
    before = audit(unet, inputs, times=6, attribution=False, redraws=1)
    assert before.leakage.value > 1e-3
    count = parameters(unet)
    surgery = replace_norms(unet, "channel")
    after = audit(unet, inputs, times=6, attribution=False, redraws=1)
    assert after.leakage.value <= 1e-12
    assert after.receptive_field == before.receptive_field == (61, 60)
    assert len(surgery.exchanges) == len(before.leaking_modules) == 17
    assert {exchange.type for exchange in surgery.exchanges} == {"GroupNorm"}
    assert (surgery.parameters_before, surgery.parameters_after) == (count, parameters(unet))
    unet.train()(*inputs).sample.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in unet.parameters() if p.grad is not None)


@pytest.mark.parametrize("to", WHOLE_KINDS)
def test_every_kind_runs_forward_and_backward_in_4d(to):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.BatchNorm2d(8))
    surgery = replace_norms(network, to, groups=2)
    output = network(torch.randn(2, 3, 1, 16))
    output.square().sum().backward()
    assert output.shape == (2, 8, 1, 16)
    assert surgery.parameters_after == parameters(network)


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 8),
        nn.InstanceNorm1d(8, affine=True),
        nn.BatchNorm1d(8),
        make_norm("batch", 8),
        make_norm("rms", 8),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_weights_eps_precision_and_mode_are_carried_over(norm):
    norm.eps = 0.25
    network = randomized(nn.Sequential(norm, nn.Linear(2, 2))).double().eval()
    norm.weight.requires_grad_(False)
    [exchange] = replace_norms(network, "channel").exchanges
    new = network[0]
    assert isinstance(new, ChannelNorm)
    assert torch.equal(new.weight, norm.weight)
    assert (new.eps, new.training, new.weight.dtype) == (0.25, False, torch.float64)
    assert not new.weight.requires_grad
    assert exchange.carried == tuple(name for name, _ in norm.named_parameters())
    if norm.bias is not None:
        assert torch.equal(new.bias, norm.bias)


def test_parameters_without_a_place_are_named_as_dropped():
    network = nn.Sequential(nn.GroupNorm(2, 8), nn.LayerNorm((8, 16)))
    group, layer = replace_norms(network, "rms").exchanges
    assert (group.carried, group.dropped) == (("weight",), ("bias",))
    assert (layer.channels, layer.dropped) == (8, ("weight", "bias"))
    assert isinstance(network[1], ChannelRMSNorm)


def test_a_dry_run_lists_the_same_and_changes_nothing():
    network = nn.Sequential(nn.Conv1d(8, 8, 3), nn.GroupNorm(2, 8), nn.Sequential(nn.InstanceNorm1d(8)))
    before = list(network.modules())
    planned = replace_norms(network, "channel", dry_run=True)
    assert all(a is b for a, b in zip(before, network.modules(), strict=True))
    assert "1: GroupNorm(8) -> channel" in str(planned)
    assert planned == replace_norms(network, "channel")
    assert planned.parameters_after == parameters(network)


def test_per_time_step_norms_of_channels_last_layouts_are_kept():
    network = nn.Sequential(nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(2, 8))
    surgery = replace_norms(network, "channel")
    assert surgery.kept == ["0", "1"]
    assert [exchange.name for exchange in surgery.exchanges] == ["2"]


def test_a_shared_norm_stays_shared():
    norm = nn.GroupNorm(2, 8)
    network = nn.Sequential(norm, nn.Conv1d(8, 8, 1), norm)
    assert len(replace_norms(network).exchanges) == 1
    assert network[0] is network[2]
    assert isinstance(network[0], ChannelNorm)


def test_packnorm_is_exchanged_as_a_whole():
    network = nn.Sequential(randomized(PackNorm(8, 2)))
    weight = network[0].instance.weight.clone()
    [exchange] = replace_norms(network).exchanges
    assert exchange.type == "PackNorm"
    assert exchange.dropped == ()
    assert torch.equal(network[0].weight, weight)


class StrangeNorm(nn.Module):
    def forward(self, x):
        return x / x.std()


class AdaptiveGroupNorm(nn.GroupNorm):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_cannot_be_exchanged_is_listed_and_nothing_is_changed():
    network = nn.Sequential(nn.GroupNorm(2, 8), StrangeNorm(), AdaptiveGroupNorm(2, 8), nn.LazyBatchNorm1d())
    with pytest.raises(UserError) as refusal:
        replace_norms(network)
    assert all(f"{name} (" in str(refusal.value) for name in ("1", "2", "3"))
    assert type(network[0]) is nn.GroupNorm
    surgery = replace_norms(network, leave=["1", "2", "3"])
    assert [exchange.name for exchange in surgery.exchanges] == ["0"]


@pytest.mark.parametrize(
    ("module", "settings", "named"),
    [
        (nn.GroupNorm(2, 8), {}, "the network itself"),
        (nn.Sequential(nn.GroupNorm(2, 6)), {"to": "group"}, "groups = 8"),
        (nn.Sequential(), {"to": "packnorm_isolated"}, "packnorm_isolated"),
        (nn.Sequential(), {"to": "nothing"}, "nothing"),
        (nn.Sequential(), {"leave": ["5"]}, "leave = '5'"),
    ],
)
def test_mistakes_are_named(module, settings, named):
    with pytest.raises(UserError, match=named):
        replace_norms(module, **settings)
