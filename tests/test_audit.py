"""The leak audit: exact where theory is exact, blame where the leak is, and the network given back untouched."""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from groundwork.errors import UserError
from norm_study.audit import audit, is_local
from norm_study.audit.influence import influence_rows
from norm_study.audit.local_forms import LocalForm
from norm_study.audit.preparation import borrowed
from norm_study.audit.subject import Subject
from planner.norms import NORM_TABLE, make_norm
from planner.unet import TemporalUNet

C, T = 6, 48


def convolution(kernel=3, **settings):
    return nn.Conv1d(C, C, kernel, **({"padding": kernel // 2} | settings))


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Causal(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.conv, self.left = nn.Conv1d(C, C, 3, dilation=dilation), 2 * dilation

    def forward(self, x):
        return self.conv(F.pad(x, (self.left, 0)))


class ChannelsLast(nn.Module):
    """LayerNorm over the last axis of (B, T, C) and a linear layer, between convolutions of (B, C, T)."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = convolution(), nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, x_BTC):
        x = rearrange(self.conv(rearrange(x_BTC, "b t c -> b c t")), "b c t -> b t c")
        return self.linear(self.norm(x))


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def sequences(batch=2, time=T):
    return torch.randn(batch, C, time, generator=torch.Generator().manual_seed(1))


def blamed(report):
    return [module.name for module in report.modules if module.verdict != "local"]


# (left, right) from the kernels, by hand. Transposed: output 2m reads features m-1, m and so inputs 2m-3 .. 2m+1;
# output 2m+1 reads features m, m+1 and so inputs 2m-1 .. 2m+3.
BY_HAND = {
    "two kernels": (lambda: network(convolution(3), nn.ReLU(), convolution(5)), (3, 3)),
    "dilated": (lambda: network(*(convolution(3, padding=d, dilation=d) for d in (1, 2, 4))), (7, 7)),
    "causal": (lambda: network(Causal(1), nn.Tanh(), Causal(4)), (10, 0)),
    "even kernel": (lambda: network(convolution(4, padding="same")), (1, 2)),
    "strided and transposed": (
        lambda: network(convolution(3, stride=2), nn.ReLU(), nn.ConvTranspose1d(C, C, 4, 2, 1)),
        (3, 2),
    ),
    "residual": (lambda: network(Residual(network(convolution(3), nn.ReLU(), convolution(5)))), (3, 3)),
    "replicate padding": (lambda: network(*(convolution(5, padding_mode="replicate") for _ in range(2))), (4, 4)),
    "pooled and repeated": (lambda: network(convolution(3), nn.AvgPool1d(2), nn.Upsample(scale_factor=2)), (2, 2)),
    "norm over channels": (lambda: network(convolution(3), make_norm("channel", C), convolution(3)), (2, 2)),
    "root mean square": (lambda: network(convolution(3), make_norm("rms", C), convolution(3)), (2, 2)),
    "batch in evaluation": (lambda: network(convolution(3), nn.BatchNorm1d(C), convolution(3)).eval(), (2, 2)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_mixes_no_time_leaks_nothing_beyond_the_receptive_field_by_hand(name):
    make, by_hand = BY_HAND[name]
    report = audit(make(), sequences(), times=12)
    assert report.receptive_field == by_hand
    assert report.leakage_beyond(*by_hand).value <= 1e-12
    assert report.leakage.value <= 1e-12
    assert report.jacobian_change.value <= 1e-12
    assert not blamed(report)
    assert report.finite[0].value <= 1e-12


def test_channels_last_layout_is_handled():
    report = audit(ChannelsLast(), sequences().transpose(1, 2), time_dims=1)
    assert (report.receptive_field, report.leakage.value, blamed(report)) == ((1, 1), 0.0, [])


class HandWrittenNorm(nn.Module):
    """A norm that the audit has never seen."""

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-3)


class _CentredInNumpy(torch.autograd.Function):
    """Subtracts the mean over time, outside torch in both directions: nothing can batch its backward."""

    @staticmethod
    def forward(ctx, x):
        return x - torch.from_numpy(x.detach().numpy().mean(-1, keepdims=True))

    @staticmethod
    def backward(ctx, gradient):
        return gradient - torch.from_numpy(gradient.numpy().mean(-1, keepdims=True))


class CentredInNumpy(nn.Module):
    def forward(self, x):
        return _CentredInNumpy.apply(x)


class GlobalResponseNorm(nn.Module):
    def forward(self, x):
        size = x.norm(dim=-1, keepdim=True)
        return x * size / (size.mean(1, keepdim=True) + 1e-6) + x


class SqueezeAndExcitation(nn.Module):
    """The mean is taken in ``forward`` itself, not by a module."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(C, C)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean(-1)))[..., None]


class PooledExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool1d(1), nn.Conv1d(C, C, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(self.pool(x)))


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, x):
        x = x.transpose(1, 2)
        return self.attention(x, x, x, need_weights=False)[0].transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(C, C, batch_first=True)

    def forward(self, x):
        return self.cells(x.transpose(1, 2))[0].transpose(1, 2)


class Flipped(nn.Module):
    """The middle stays where it is."""

    def forward(self, x):
        return x + 0.1 * x.flip(-1)


class Shared(nn.Module):
    """Every step gets a tenth of a statistic of all."""

    def __init__(self, statistic):
        super().__init__()
        self.statistic = statistic

    def forward(self, x):
        return x + 0.1 * self.statistic(x)


STATISTICS = {
    "median": lambda x: x.median(-1, keepdim=True).values,
    "largest": lambda x: x.amax(-1, keepdim=True),
    "smallest": lambda x: x.amin(-1, keepdim=True),
}


class DecayingSum(nn.Module):
    """A recurrence: at 0.9 heard over a thousand steps, seen in changes over some hundred; at 0.15 gone after 400."""

    def __init__(self, kept=0.9):
        super().__init__()
        self.kept = kept

    def forward(self, x):
        at = torch.arange(x.shape[-1], dtype=x.dtype)
        weights = torch.where(at[:, None] >= at, self.kept ** (at[:, None] - at).clamp_min(0), 0)
        return x + 0.1 * torch.einsum("ts,bcs->bct", weights, x)


LEAKS = {
    "group": (lambda: nn.GroupNorm(2, C), "leak"),
    "instance": (lambda: nn.InstanceNorm1d(C, affine=True), "leak"),
    "layer": (lambda: nn.LayerNorm((C, T)), "leak"),
    "batch in training": (lambda: nn.BatchNorm1d(C), "leak"),
    "global response": (GlobalResponseNorm, "leak"),
    "hand-written": (HandWrittenNorm, "leak"),
    "with a backward outside torch": (CentredInNumpy, "leak"),
    "functional squeeze-and-excitation": (SqueezeAndExcitation, "leak"),
    "pooled squeeze-and-excitation": (PooledExcitation, "leak.pool"),
    "attention": (SelfAttention, "leak.attention"),
    "recurrent": (Recurrent, "leak.cells"),
    "flipped": (Flipped, "leak"),
    "median": (lambda: Shared(STATISTICS["median"]), "leak"),
    "decaying sum": (DecayingSum, "leak"),
    "soon forgotten sum": (lambda: DecayingSum(0.15), "leak"),
}


def leaky(layer, depth=2):
    """Convolutions with the leak in their midst."""
    torch.manual_seed(0)
    half = depth // 2
    parts = [(f"conv{i}", convolution()) for i in range(depth)]
    parts.insert(half, ("leak", layer()))
    return nn.Sequential(OrderedDict(parts))


@pytest.mark.parametrize("name", LEAKS)
def test_what_mixes_time_leaks_and_is_named(name):
    layer, culprit = LEAKS[name]
    report = audit(leaky(layer), sequences(), times=12, redraws=1)
    assert blamed(report) == [culprit]
    assert report.receptive_field == (2, 2)
    assert report.leakage.value > 1e-5
    assert report.leakage.standard_error < report.leakage.value
    assert report.jacobian_change.value > report.leakage.value / 2
    [module] = report.leaking_modules
    assert module.leakage_alone == pytest.approx(report.leakage.value)
    assert module.leakage_without <= 1e-12
    assert report.finite[0].value > 1e-3


@pytest.mark.parametrize("name", ["flipped", "median", "decaying sum", "soon forgotten sum"])
def test_a_yes_or_no_sees_what_the_middle_does_not_show(name):
    assert not is_local(leaky(LEAKS[name][0]), sequences())


@pytest.mark.parametrize(("name", "rows", "time"), [("median", C, 15), ("largest", 1, T), ("smallest", 1, T)])
def test_a_statistic_that_few_inputs_move_is_found_whatever_is_changed(name, rows, time):
    given = sequences(1, time)[:, :rows]
    assert not any(is_local(Shared(STATISTICS[name]), given, seed=seed) for seed in range(16))


def test_a_slow_recurrence_before_a_finer_resolution_is_blamed_alone():
    torch.manual_seed(0)
    report = audit(nn.Sequential(DecayingSum(), nn.ConvTranspose1d(C, C, 8, 4, padding=2)), sequences(), redraws=1)
    assert blamed(report) == ["0"]


def test_one_leaking_layer_among_twenty_is_blamed_alone():
    torch.manual_seed(0)
    position = 13
    layers = [Residual(nn.Sequential(convolution(), make_norm("channel", C), nn.ReLU())) for _ in range(20)]
    layers[position] = Residual(nn.Sequential(convolution(), nn.GroupNorm(2, C), nn.ReLU()))
    report = audit(nn.Sequential(*layers), sequences(1, 64), times=6, redraws=2)
    assert report.receptive_field == (20, 20)
    assert blamed(report) == [f"{position}.inner.1"]
    assert report.leakage.value > 0


def test_a_leak_beside_a_leaking_layer_is_found_too():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = convolution(), nn.GroupNorm(2, C)

        def forward(self, x):
            return self.norm(self.conv(x)) * x.mean(-1, keepdim=True)

    report = audit(nn.Sequential(Both(), convolution()), sequences())
    assert blamed(report) == ["0", "0.norm"]
    assert report.receptive_field == (2, 2)
    both, norm = report.leaking_modules
    assert both.leakage_without <= 1e-12  # with what is inside it
    assert both.leakage_alone > 0
    assert norm.leakage_alone is None
    assert norm.leakage_without > 0


def test_each_modules_part_is_what_a_pass_of_its_own_gives(monkeypatch):
    torch.manual_seed(0)
    layers = [convolution(), nn.GroupNorm(2, C), nn.ReLU(inplace=True), convolution(), SqueezeAndExcitation()]
    module = nn.Sequential(*layers, nn.InstanceNorm1d(C), SelfAttention(), convolution())
    few_passes = audit(module, sequences(), times=5, redraws=1)
    monkeypatch.setattr("norm_study.audit.measuring.contributions", lambda *_, **__: {})
    one_by_one = audit(module, sequences(), times=5, redraws=1)
    assert len(few_passes.leaking_modules) == 4
    for found, expected in zip(few_passes.leaking_modules, one_by_one.leaking_modules, strict=True):
        assert found.leakage_alone == pytest.approx(expected.leakage_alone, rel=1e-9)
        assert found.leakage_without == pytest.approx(expected.leakage_without, rel=1e-9)


def test_a_norm_called_twice_is_measured_by_passes_of_its_own():
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, C)
    report = audit(nn.Sequential(convolution(), norm, convolution(), norm, convolution()), sequences(), times=5)
    [module] = report.leaking_modules
    assert module.leakage_alone == pytest.approx(report.leakage.value)
    assert module.leakage_without <= 1e-12


def test_batch_norm_in_training_mixes_the_batch_as_well():
    for norm, mixes in ((nn.BatchNorm1d(C), True), (nn.GroupNorm(2, C), False)):
        [module] = audit(nn.Sequential(norm), sequences()).leaking_modules
        assert module.mixes_batch == mixes


def test_a_norm_without_time_that_pools_the_batch_is_no_time_leak():
    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = convolution(), nn.BatchNorm1d(C)

        def forward(self, x, condition):
            return self.conv(x) + self.norm(condition)[..., None]

    report = audit(Conditioned(), (sequences(), torch.randn(2, C)))
    assert [(m.name, m.verdict) for m in report.modules if m.verdict != "local"] == [("norm", "mixes the batch")]
    assert report.leakage.value == 0


class TwoInputs(nn.Module):
    """A coarse second sequence, (B, T/4, C) with channels last, and a condition without time."""

    def __init__(self):
        super().__init__()
        self.conv, self.coarse, self.condition = convolution(), nn.Conv1d(C, C, 1), nn.Linear(3, C)
        self.norm = HandWrittenNorm()

    def forward(self, x, coarse, level, condition):
        up = self.coarse(coarse.transpose(1, 2)).repeat_interleave(4, -1)
        return self.norm(self.conv(x + up)) + self.condition(condition)[..., None] + level[:, None, None]


def test_two_inputs_and_a_condition():
    inputs = sequences(), torch.randn(2, T // 4, C), torch.tensor([1, 2]), torch.randn(2, 3)
    report = audit(TwoInputs(), inputs, time_dims=(-1, 1, None, None))
    assert blamed(report) == ["norm"]
    # the nearest coarse step stands at a multiple of four: 1 step of the kernel and up to 3 of the grid to the left
    assert report.receptive_field == (4, 1)
    assert report.leakage.value > 0


@pytest.mark.parametrize("kind", ["none", "channel", "group", "batch", "cumulative", "dyt", "derf", "evonorm_local"])
def test_the_planners_unet_by_formula_and_by_audit(kind):
    torch.manual_seed(0)
    unet = TemporalUNet(3, dim=8, dim_mults=(1, 2), kernel_size=3, norm=kind, norm_groups=4)
    report = audit(unet, (torch.randn(1, 3, 96), torch.tensor([5])), times=8, attribution=False)
    assert report.receptive_field == unet.receptive_field()
    assert (report.leakage.value > 1e-4) == NORM_TABLE[kind].mixes_time_training
    assert len(report.leaking_modules) == (17 if NORM_TABLE[kind].mixes_time_training else 0)


def test_packnorm_is_found_though_packs_lie_in_the_batch():
    torch.manual_seed(0)
    unet = TemporalUNet(3, dim=4, dim_mults=(1,), kernel_size=3, norm="packnorm_isolated", num_packs=2)
    report = audit(unet, (torch.randn(1, 3, 48), torch.tensor([5])), times=8, attribution=False)
    assert len(report.leaking_modules) == 9
    assert report.leakage.value > 0


def jacobian_norms(module, x):
    """(T, S) Frobenius norms of the blocks of the whole Jacobian."""
    jacobian = torch.autograd.functional.jacobian(module, x)
    return jacobian.square().sum((0, 1, 3, 4)).sqrt().numpy()


def exact_rows(module, x):
    with borrowed(module, torch.float64, None):
        subject = Subject(module, (-1,), -1, 0)
        forms = [LocalForm(m, [], []) for m in module.modules() if isinstance(m, nn.GroupNorm)]
        generator = torch.Generator().manual_seed(0)
        return influence_rows(subject, (x,), range(x.shape[-1]), generator, active=forms, exact=True)


def test_exact_maps_agree_with_the_jacobian():
    module, x = leaky(lambda: nn.GroupNorm(2, C)).double(), sequences(time=20).double()
    rows = exact_rows(module, x)
    assert np.abs(np.sqrt(rows.full[:, 0]) - jacobian_norms(module, x)).max() < 1e-6


def test_random_projections_estimate_the_exact_maps():
    module, x = leaky(lambda: nn.GroupNorm(2, C)), sequences(time=24)
    exact = audit(module, x, exact=True, times=24, attribution=False)
    assert exact.leakage.standard_error == pytest.approx(0)
    errors = []
    for seed in range(8):
        guess = audit(module, x, times=12, projections=2, attribution=False, redraws=0, seed=seed)
        errors.append((guess.leakage.value - exact.leakage.value) / guess.leakage.standard_error)
        assert guess.cost["share_of_jacobian_rows"] == pytest.approx(12 * 2 / (24 * 2 * C))
    assert np.abs(np.mean(errors)) < 1.5
    assert 0.3 < np.std(errors) < 3


def test_the_frozen_map_agrees_with_finite_differences_at_fixed_statistics():
    module, x = leaky(lambda: nn.GroupNorm(2, C)).double(), sequences(1, 16).double()
    nn.init.normal_(module.leak.weight)
    hidden = module.conv0(x).view(1, 2, -1)
    mean, variance = hidden.mean(-1).detach(), hidden.var(-1, correction=0).detach()

    def with_fixed_statistics(x):
        hidden = module.conv0(x).view(1, 2, -1)
        normalized = (hidden - mean[..., None]) / (variance[..., None] + module.leak.eps).sqrt()
        scaled = normalized.view(1, C, -1) * module.leak.weight[:, None] + module.leak.bias[:, None]
        return module.conv1(scaled)

    step, differences = 1e-4, torch.zeros(16, 16, dtype=torch.float64)
    with torch.no_grad():
        for channel in range(C):
            for time in range(16):
                moved = torch.zeros_like(x)
                moved[0, channel, time] = step
                slope = (with_fixed_statistics(x + moved) - with_fixed_statistics(x - moved)) / (2 * step)
                differences[:, time] += slope[0].square().sum(0)
    rows = exact_rows(module, x)
    assert np.abs(np.sqrt(rows.frozen[:, 0]) - differences.sqrt().numpy()).max() < 1e-6


def test_too_short_an_input_gets_no_leakage():
    report = audit(network(*(convolution(9) for _ in range(4))), sequences(time=12))
    assert report.leakage is None
    assert any("12 steps" in note and "longer" in note for note in report.notes)
    assert report.to_dict()["summary"]["leakage"] is None


def test_a_network_of_one_length_only_is_handled():
    class Positional(nn.Module):
        def __init__(self):
            super().__init__()
            self.where = nn.Parameter(torch.randn(C, T))
            self.body = leaky(SelfAttention)

        def forward(self, x):
            return self.body(x + self.where)

    report = audit(Positional(), sequences())
    assert blamed(report) == ["body.leak.attention"]
    assert any("twice the time" in note for note in report.notes)


def test_an_output_axis_that_is_not_time_is_noted():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = convolution(), nn.Linear(C, 5)

        def forward(self, x):
            return self.head(self.conv(x).mean(-1))

    report = audit(Classifier(), sequences())
    assert any("is it time?" in note for note in report.notes)


def test_a_module_that_cannot_run_alone_is_noted():
    class Dependent(nn.Module):
        def forward(self, x):
            return x * self.gain.pop()

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Dependent()

        def forward(self, x):
            self.inner.gain = [2.0]
            return self.inner(x)

    report = audit(nn.Sequential(convolution(), Around()), sequences())
    assert any("1.inner could not be tested" in note for note in report.notes)
    assert report.leakage.value == 0


class Unlucky(nn.Module):
    """Fails on its third call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("out of luck")
        return x


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [None, True, False])
def test_the_network_comes_back_as_it_was(fails, training):
    module = network(convolution(), nn.BatchNorm1d(C), nn.Dropout(0.5), HandWrittenNorm(), convolution())
    module[1].eval()
    module[4].weight.requires_grad_(False)
    if fails:
        module.append(Unlucky())
    pointers = {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in module.state_dict().items()}
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    torch.manual_seed(7)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    if fails:
        with pytest.raises(RuntimeError, match="out of luck"):
            audit(module, sequences(), training=training)
    else:
        audit(module, sequences(), training=training)
    assert pointers == {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in module.state_dict().items()}
    assert all(torch.equal(values[name], tensor) for name, tensor in module.state_dict().items())
    assert modes == [part.training for part in module.modules()]
    assert [p.requires_grad for p in module[4].parameters()] == [False, True]
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
    assert not any("forward" in vars(part) for part in module.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


def test_the_same_seed_gives_the_same_report():
    first, second = (audit(leaky(HandWrittenNorm), sequences(), seed=3).to_dict() for _ in range(2))
    assert first["rows"] == second["rows"]
    assert first["summary"]["leakage"] == second["summary"]["leakage"]
    assert first["summary"]["finite"] == second["summary"]["finite"]


@pytest.mark.parametrize(
    ("inputs", "settings", "named"),
    [
        (sequences(), {"time_dims": 3}, "no axis 3"),
        (sequences(), {"times": 0}, "times = 0"),
        (torch.zeros(1, C, 8, dtype=torch.long), {}, "floating-point"),
        (torch.randn(2, C + 1, T), {}, "fails on inputs of shapes"),
        ((sequences(),), {"time_dims": (-1, -1)}, "time_dims"),
        ([], {}, "empty"),
    ],
)
def test_mistakes_are_named(inputs, settings, named):
    with pytest.raises(UserError, match=named):
        audit(network(convolution()), inputs, **settings)
