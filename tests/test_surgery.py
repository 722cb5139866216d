"""Exchanging norms: everything or nothing, weights carried over, and a network that leaks no more."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet1DModel
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from groundwork.errors import UserError
from norm_study.audit import assert_local, audit
from norm_study.audit.surgery import replace_norms, restore_norms
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


@pytest.mark.parametrize("kind", [kind for kind in WHOLE_KINDS if kind != "none"])
def test_every_kind_gives_way_to_another_and_returns(kind):
    network = nn.Sequential(nn.Conv1d(3, 8, 1), randomized(make_norm(kind, 8, groups=2))).eval()
    inputs = torch.randn(2, 3, 16)
    before = network(inputs)
    surgery = replace_norms(network, "channel")
    assert isinstance(network[1], ChannelNorm)
    assert [exchange.name for exchange in surgery.exchanges] == ["1"]
    restore_norms(network, surgery)
    assert torch.equal(network(inputs), before)


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
    assert list(surgery.kept) == ["0", "1"]
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


def around(norm, wrap=lambda conv: conv):
    torch.manual_seed(0)
    return nn.Sequential(wrap(nn.Conv1d(3, 8, 3, padding=1)), norm, nn.Conv1d(8, 3, 3, padding=1))


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
def test_norms_of_weights_are_left_alone(wrap):
    network = around(nn.GroupNorm(2, 8), wrap)
    before = type(network[0]), network[0].weight.clone()
    assert [exchange.name for exchange in replace_norms(network).exchanges] == ["1"]
    assert type(network[0]) is before[0]
    assert torch.equal(network.eval()[0].weight, before[1]) or wrap is spectral_norm
    assert parametrize.is_parametrized(network[0], "weight")


def test_hooks_come_along_and_their_handles_still_remove_them():
    network, seen = around(nn.GroupNorm(2, 8)), []
    handle = network[1].register_forward_hook(lambda module, given, output: output.relu())
    network[1].register_forward_pre_hook(lambda module, args, kwargs: seen.append(type(module)), with_kwargs=True)
    [exchange] = replace_norms(network, "channel").exchanges
    assert "hooks" in exchange.carried
    x = torch.randn(1, 3, 16)
    assert (network[:2](x) >= 0).all()
    assert seen == [ChannelNorm]
    handle.remove()
    assert (network[:2](x) < 0).any()


class Positive(nn.Module):
    def forward(self, raw):
        return raw.exp()


def test_a_parametrized_weight_comes_along_or_is_listed():
    network = around(nn.GroupNorm(2, 8))
    parametrize.register_parametrization(network[1], "weight", Positive())
    network[1].parametrizations.weight.original.data.normal_()
    weight = network[1].weight.clone()
    [exchange] = replace_norms(network, "channel").exchanges
    assert exchange.type == "GroupNorm"
    assert set(exchange.carried) == {"weight", "bias"}
    assert torch.equal(network[1].weight, weight)
    network(torch.randn(2, 3, 16)).square().sum().backward()
    assert network[1].parametrizations.weight.original.grad.any()
    network = around(nn.GroupNorm(2, 8))
    parametrize.register_parametrization(network[1], "bias", Positive())
    assert replace_norms(network, "rms").exchanges[0].dropped == ("bias",)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8, momentum=0.3), nn.SyncBatchNorm(8)], ids=["batch", "sync"])
def test_running_statistics_come_along_or_are_listed(norm):
    network = around(norm)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network.eval()
    x = torch.randn(1, 3, 32)
    before = network(x) if isinstance(norm, nn.BatchNorm1d) else None
    [exchange] = replace_norms(network, "batch").exchanges
    assert {"running_mean", "running_var", "num_batches_tracked"} <= set(exchange.carried)
    assert exchange.dropped == ()
    assert torch.equal(network[1].running_mean, norm.running_mean)
    assert network[1].momentum == norm.momentum
    if before is not None:
        assert torch.equal(network(x), before)
    [exchange] = replace_norms(network, "channel").exchanges
    assert exchange.dropped == ("running_mean", "running_var", "num_batches_tracked")
    assert "without its running_mean and running_var" in str(replace_norms(around(nn.BatchNorm1d(8)), dry_run=True))


def test_local_response_norm_is_kept_under_its_own_reason():
    surgery = replace_norms(around(nn.LocalResponseNorm(3)))
    assert surgery.kept == {"1": "it is taken over neighboring channels of each time step: local"}
    assert "last axis" not in str(surgery)


def test_what_cannot_be_carried_is_refused_by_its_reason():
    tied = nn.Sequential(nn.GroupNorm(2, 8), nn.GroupNorm(2, 8))
    tied[1].weight = tied[0].weight
    with pytest.raises(UserError, match="shares its weight"):
        replace_norms(tied)
    patched = around(nn.GroupNorm(2, 8))
    patched[1].forward = lambda x: x
    with pytest.raises(UserError, match="forward was replaced"):
        replace_norms(patched)
    old = around(torch.nn.utils.weight_norm(nn.GroupNorm(2, 8), dim=None))
    with pytest.raises(UserError, match="take that off first"):
        replace_norms(old)


def test_an_exchange_is_taken_back_bit_for_bit():
    shared = nn.GroupNorm(2, 8)
    network = nn.Sequential(around(shared), around(nn.BatchNorm1d(8)), nn.Conv1d(3, 3, 1))
    network[1][1].register_forward_hook(lambda module, given, output: output.relu())
    network[0].append(nn.Sequential(nn.Conv1d(3, 8, 1), shared, nn.Conv1d(8, 3, 1)))
    network.eval()
    x = torch.randn(2, 3, 32)
    before, modules = network(x), list(network.modules())
    surgery = replace_norms(network)
    assert not torch.equal(network(x), before)
    nn.init.normal_(network[0][1].weight)
    restore_norms(network.train(), surgery)
    assert all(part.training for part in network.modules())
    assert all(a is b for a, b in zip(modules, network.modules(), strict=True))
    assert torch.equal(network.eval()(x), before)


def test_a_restoration_without_its_exchange_is_refused():
    network = around(nn.GroupNorm(2, 8))
    with pytest.raises(UserError, match="dry run"):
        restore_norms(network, replace_norms(network, dry_run=True))
    surgery = replace_norms(network)
    network[1] = nn.Identity()
    with pytest.raises(UserError, match="'1' is not the norm"):
        restore_norms(network, surgery)


@pytest.mark.parametrize("nothing", [None, torch.relu, torch.zeros(3, 3)])
def test_what_is_no_module_is_refused_in_a_line(nothing):
    inputs = torch.zeros(1, 3, 8)
    for use in (
        lambda: replace_norms(nothing),
        lambda: audit(nothing, inputs),
        lambda: assert_local(nothing, inputs, left=1, right=1),
    ):
        with pytest.raises(UserError, match=r"is no torch\.nn\.Module") as refusal:
            use()
        assert "\n" not in str(refusal.value)
