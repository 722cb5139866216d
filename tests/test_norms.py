import copy
import math
import subprocess
import sys

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.func import functional_call, stack_module_state

from groundwork.errors import UserError
from norm_study.audit.surgery import replace_norms
from norm_study.localization.network import ConvNetwork
from norm_study.localization.settings import LocalizationConfig
from norm_study.stitching.cells import Grid
from planner.norms import LEGEND, NORM_KINDS, NORM_TABLE, in_legend_order, make_norm, mixes_time
from planner.unet import TemporalUNet

C, T, EPS = 8, 6, 1e-5
PER_STEP = [kind for kind, facts in NORM_TABLE.items() if not facts.over and facts.channels != "each"]


def norm(kind, **settings):
    """A norm in float64 with random scale and shift; isolated ones with two packs."""
    settings.setdefault("groups", 4)
    torch.manual_seed(1)
    layer = make_norm(kind, C, **settings).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def values(batch=4):
    return torch.randn(batch, C, T, dtype=torch.double, generator=torch.Generator().manual_seed(0)) * 3 + 2


def affine(layer):
    """Scale and shift of any of the layers."""
    found = dict(layer.named_parameters())
    weight = next(value for name, value in found.items() if name.endswith("weight"))
    bias = next((value for name, value in found.items() if name.endswith("bias")), torch.zeros(C).double())
    return weight, bias


def appendix_a(x, over):
    """Equation (3): (x − μ)/σ with μ and σ over the given dimensions, equation (4)."""
    mean = x.mean(over, keepdim=True)
    return (x - mean) / (x.sub(mean).square().mean(over, keepdim=True) + EPS).sqrt()


def grouped(x, groups):
    return appendix_a(x.view(len(x), groups, -1), (2,)).view_as(x)


def joined(x):
    """Packs of a trajectory, side by side in the batch, joined along time; and the way back."""
    packs = x.view(-1, 2, C, T)
    normalized = appendix_a(torch.cat((packs[:, 0], packs[:, 1]), dim=-1), (2,))
    return torch.stack((normalized[..., :T], normalized[..., T:]), dim=1).reshape(x.shape)


def windowed(x, window=8, groups=4, past=False):
    """Each step of each group by the mean and variance of the steps around it that there are, or of those so far."""
    out = torch.empty_like(x)
    for t in range(T):
        span = slice(0, t + 1) if past else slice(max(0, t - window // 2), t + (window + 1) // 2)
        around = x[..., span].reshape(len(x), groups, -1)
        mean, variance = around.mean(2)[..., None], around.var(2, unbiased=False)[..., None]
        out[..., t] = ((x[..., t].view(len(x), groups, -1) - mean) / (variance + EPS).sqrt()).flatten(1)
    return out


def one_by_one(kind, function):
    """Each value of each channel through a function of it and of the layer's own numbers for its channel."""

    def formula(x):
        own = {name: value.tolist() for name, value in norm(kind).named_parameters()}
        values = [
            [[function(value, own, channel) for value in row] for channel, row in enumerate(sample)]
            for sample in x.tolist()
        ]
        return torch.tensor(values, dtype=torch.double)

    return formula


def evonorm(x):
    """Swish of each value over the standard deviation of its step's group, two channels in each of four."""
    gated = one_by_one("evonorm_local", lambda value, own, c: value / (1 + math.exp(-own["v"][c] * value)))(x)
    for channel in range(C):
        pair = x[:, channel // 2 * 2 : channel // 2 * 2 + 2]
        variance = (pair - pair.mean(1, keepdim=True)).square().mean(1)
        gated[:, channel] /= (variance + EPS).sqrt()
    return gated


FORMULAS = {
    "group_window": windowed,
    "none": lambda x: x,
    "group": lambda x: grouped(x, 4),
    "instance": lambda x: appendix_a(x, (2,)),
    "layer": lambda x: appendix_a(x, (1, 2)),
    "batch": lambda x: appendix_a(x, (0, 2)),
    "channel": lambda x: appendix_a(x, (1,)),
    "rms": lambda x: x / (x.square().mean(1, keepdim=True) + EPS).sqrt(),
    "packnorm_isolated": joined,
    "instance_isolated": lambda x: appendix_a(x, (2,)),
    "group_step": lambda x: appendix_a(x.view(len(x), 4, -1, T), (2,)).view_as(x),
    "cumulative": lambda x: windowed(x, past=True),
    "dyt": one_by_one("dyt", lambda value, own, _: math.tanh(own["alpha"][0] * value)),
    "derf": one_by_one("derf", lambda value, own, _: math.erf(own["alpha"][0] * value + own["shift"][0])),
    "evonorm_local": evonorm,
}


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_equals_the_formulas_of_the_papers(kind):
    layer, x = norm(kind), values()
    expected = FORMULAS[kind](x)
    if kind != "none":
        weight, bias = affine(layer)
        expected = expected * weight[:, None] + bias[:, None]
    assert (layer(x) - expected).abs().max() < 1e-10


def torchs(kind, weight, bias):
    """torch's own layer with the same scale and shift, as a function of (B, C, T)."""
    match kind:
        case "group" | "group_step" | "layer":
            layer = nn.GroupNorm(1 if kind == "layer" else 4, C)
        case "instance" | "instance_isolated":
            layer = nn.InstanceNorm1d(C, affine=True)
        case "batch":
            layer = nn.BatchNorm1d(C)
        case "channel":
            layer = nn.LayerNorm(C)
        case "rms":
            layer = nn.RMSNorm(C, eps=EPS)
    layer = layer.double()
    layer.weight.data = weight.data
    if kind != "rms":
        layer.bias.data = bias.data
    return layer


def apply(kind, layer, x):
    """torch's layer on (B, C, T), or where a norm takes each step for itself, on the steps as samples."""
    if kind not in PER_STEP:
        return layer(x)
    return rearrange(layer(rearrange(x, "b c t -> (b t) c")), "(b t) c -> b c t", b=len(x))


NOT_IN_TORCH = ("none", "packnorm_isolated", "group_window", "cumulative", "dyt", "derf", "evonorm_local")


@pytest.mark.parametrize("kind", [kind for kind in NORM_KINDS if kind not in NOT_IN_TORCH])
def test_equals_torchs_layer_and_its_gradients(kind):
    layer = norm(kind)
    theirs = torchs(kind, *affine(layer))
    inputs = [values().requires_grad_() for _ in range(2)]
    outputs = [layer(inputs[0]), apply(kind, theirs, inputs[1])]
    assert (outputs[0] - outputs[1]).abs().max() < 1e-10
    pull = torch.randn_like(outputs[0])
    weight, bias = affine(layer)
    parameters = [weight, bias] if bias.requires_grad else [weight]
    ours = torch.autograd.grad(outputs[0], [inputs[0], *parameters], pull)
    expected = torch.autograd.grad(outputs[1], [inputs[1], *theirs.parameters()][: len(ours)], pull)
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).abs().max() < 1e-10


@pytest.mark.parametrize("kind", [*PER_STEP, "group_window", "cumulative", "dyt", "derf"])
def test_half_precision_inputs_get_full_precision_statistics(kind):
    layer, x = norm(kind).float(), (values() + 20).bfloat16()
    assert torch.allclose(layer(x), layer(x.float()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [*PER_STEP, "group_window", "cumulative", "dyt", "derf"])
def test_a_norm_in_half_precision_answers_in_it(kind, dtype):
    layer, x = norm(kind).to(dtype), values().to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert torch.allclose(y.float(), copy.deepcopy(layer).float()(x.detach().float()), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", PER_STEP)
def test_the_hand_written_gradient_is_the_numerical_one(kind):
    layer = norm(kind)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (values(2).requires_grad_(), *parameters))
    assert torch.autograd.gradgradcheck(run, (values(2).requires_grad_(), *parameters))
    stacked = torch.stack([values(2), values(2) + 1])
    assert torch.allclose(torch.func.vmap(layer)(stacked), torch.stack([layer(part) for part in stacked]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_the_table_says_whether_a_step_hears_of_another(kind, training):
    layer = norm(kind).train(training)
    x = values().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 1].square().sum(), x)
    heard = gradient[0, :, [0, *range(2, T)]].abs().max() > 1e-12
    assert heard.item() == mixes_time(kind, training)
    facts = NORM_TABLE[kind]
    other_samples = gradient[1:].abs().max() > 1e-12
    assert other_samples.item() == ("packs" in facts.over or ("batch" in facts.over and training))


def test_a_window_of_one_step_is_its_groups_and_one_of_twice_the_length_is_groupnorm():
    x = values()
    one, whole = (make_norm("group_window", C, groups=4, window=window).double() for window in (1, 2 * T))
    grouped = x.reshape(len(x), 4, C // 4, T)
    mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, unbiased=False)
    assert (one(x) - ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)).abs().max() < 1e-10
    assert (whole(x) - make_norm("group", C, groups=4).double()(x)).abs().max() < 1e-10


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
def test_a_window_is_heard_from_half_its_length_before_a_step_to_half_its_length_behind(window):
    x = torch.randn(1, C, 24, dtype=torch.float64, requires_grad=True)
    layer = make_norm("group_window", C, groups=4, window=window).double()
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 12].square().sum(), x)
    heard = gradient[0].abs().amax(0) > 1e-12
    assert heard.nonzero()[:, 0].tolist() == list(range(12 - window // 2, 12 + (window + 1) // 2))


def test_packnorm_couples_the_packs_of_one_trajectory_and_no_other():
    layer, x = norm("packnorm_isolated"), values(4).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    assert (gradient[1].abs() > 1e-12).any()
    assert (gradient[2:] == 0).all()


@pytest.mark.parametrize("kind", [kind for kind in NORM_KINDS if kind != "packnorm_isolated"])
def test_other_trailing_dimensions_work(kind):
    layer, x = norm(kind), values()
    assert torch.allclose(layer(x.unsqueeze(2)).squeeze(2), layer(x), atol=1e-12)


def test_every_kind_is_described_and_drawn_in_its_own_way():
    facts = NORM_TABLE.values()
    assert set(NORM_TABLE) == set(NORM_KINDS)
    for names in ([one.statistics for one in facts], [one.color for one in facts], [one.marker for one in facts]):
        assert len(set(names)) == len(NORM_KINDS)


def test_the_table_is_read_without_torch():
    asked = "import sys; from planner.norms import NORM_TABLE; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda: mixes_time("groop", training=True),
        lambda: TemporalUNet(4, norm="groop"),
        lambda: LocalizationConfig(norm="groop"),
        lambda: ConvNetwork(0, "groop", depth=2, kernel=3, width=4),
        lambda: replace_norms(torch.nn.Identity(), "groop"),
        lambda: Grid(norms=("groop",)),
    ],
)
def test_an_unknown_kind_is_an_error_everywhere(use):
    with pytest.raises(UserError, match="groop.* is not one of group, none"):
        use()


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("groop", {}, "groop.*group"),
        ("group", {"groups": 3}, "3.*8"),
        ("packnorm_isolated", {"num_packs": 1}, "2.*1"),
        ("channel", {"num_packs": 2}, "num_packs = 2"),
    ],
)
def test_impossible_settings_are_refused(kind, settings, words):
    with pytest.raises(UserError, match=words):
        make_norm(kind, C, **settings)


def test_a_batch_that_is_no_multiple_of_the_packs_is_refused():
    with pytest.raises(UserError, match=r"3.*2"):
        norm("packnorm_isolated")(values(3))


@pytest.mark.parametrize("kind", PER_STEP)
def test_norms_over_channels_give_the_same_bits_with_and_without_gradients(kind):
    norm = make_norm(kind, 16)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 16, 10)
    expected = norm(x)
    with torch.no_grad():
        assert torch.equal(norm(x), expected)
    assert expected.requires_grad


def test_a_legend_has_every_norm_once_and_those_that_pool_over_time_together():
    assert sorted(LEGEND) == sorted(NORM_KINDS)
    pools = [mixes_time(kind, training=False) for kind in LEGEND]
    assert pools == sorted(pools)
    shown = ["other", "group, post", "channel (a run)", "batch"]
    assert in_legend_order(shown) == ["channel (a run)", "batch", "group, post", "other"]


@pytest.mark.parametrize("kind", ["channel", "rms", "group_step"])
def test_norms_of_many_networks_run_as_one_with_and_without_gradients(kind):
    networks = [make_norm(kind, 8, groups=2) for _ in range(3)]
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, 5)
    parameters, buffers = stack_module_state(networks)
    many = torch.vmap(lambda own, kept: functional_call(networks[0], (own, kept), (x,)))
    expected = torch.stack([network(x) for network in networks])
    torch.testing.assert_close(many(parameters, buffers), expected)
    with torch.no_grad():
        torch.testing.assert_close(many(parameters, buffers), expected)
