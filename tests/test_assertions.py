"""Assertions for test suites: they pass what is local, and what they refuse they name."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from audit_cases import Ignorant, Several
from torch import nn
from zoo.fields import reach
from zoo.networks import SPECIMENS

from groundwork.errors import UserError
from norm_study.audit import assert_causal, assert_independent_batch, assert_local


def _reach(specimen):
    with torch.no_grad():
        outputs = specimen.network()(*specimen.inputs()).shape[specimen.dim]
    return reach(specimen.field, outputs, specimen.shape[specimen.dim])


def _asserted(specimen, left, right):
    assert_local(specimen.network(), specimen.inputs(), left=left, right=right, time_dims=specimen.dim)


def _of(*verdicts):
    return pytest.mark.parametrize("name", [s.name for s in SPECIMENS.values() if s.verdict in verdicts])


@_of("local")
def test_a_local_network_passes_at_its_reach_and_at_no_less(name):
    specimen = SPECIMENS[name]
    left, right = _reach(specimen)
    _asserted(specimen, left, right)
    for fewer in [(left - 1, right)] * (left > 0) + [(left, right - 1)] * (right > 0):
        with pytest.raises(AssertionError, match=r"output \d+ hears input \d+.* passed on by '") as refusal:
            _asserted(specimen, *fewer)
        assert f"{max(left, right) if left == right else (left if fewer[0] < left else right)} steps" in str(
            refusal.value
        )


@_of("leaks", "global")
def test_one_that_is_not_is_refused_with_the_module_that_mixes(name):
    specimen = SPECIMENS[name]
    with pytest.raises(AssertionError) as refusal:
        _asserted(specimen, *_reach(specimen))
    assert any(f"passed on by '{name}' (" in str(refusal.value) for name in specimen.blamed())


@_of("not measured")
def test_zero_weights_and_inputs_are_drawn_so_that_something_is_shown(name):
    specimen = SPECIMENS[name]
    if specimen.blamed():
        with pytest.raises(AssertionError, match="passed on by") as refusal:
            _asserted(specimen, *_reach(specimen))
        assert any(f"'{name}'" in str(refusal.value) for name in specimen.blamed())
    else:
        _asserted(specimen, *_reach(specimen))
        with pytest.raises(AssertionError, match="hears input"):
            _asserted(specimen, 1, 1)


def test_where_nothing_depends_on_the_input_nothing_passes():
    with pytest.raises(AssertionError, match="nothing is shown"):
        assert_local(Ignorant(), torch.randn(2, 3, 64), left=20, right=20)


def test_the_message_names_output_input_and_module():
    network = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv1d(8, 3, 3, padding=1))
    with pytest.raises(AssertionError) as refusal:
        assert_local(network, torch.randn(2, 3, 64), left=2, right=2)
    words = str(refusal.value).split()
    output, heard = int(words[1]), int(words[4].strip(","))
    assert abs(heard - output) > 2
    assert "steps after its own where 2 are allowed" in str(refusal.value)
    assert "passed on by '1' (GroupNorm)" in str(refusal.value)


def test_causal_means_no_later_input_and_any_earlier_one():
    causal = nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(3, 8, 5), nn.Mish())
    assert_causal(causal, torch.randn(2, 3, 40))
    assert_causal(nn.Sequential(*causal, nn.Conv1d(8, 3, 1)), torch.randn(2, 3, 40), time_dims=(-1,))
    with pytest.raises(AssertionError, match=r"1 steps after its own where 0 are allowed.*'1' \(Conv1d\)"):
        assert_causal(nn.Sequential(causal, nn.Conv1d(8, 3, 3, padding=1)), torch.randn(2, 3, 40))


def test_samples_of_a_batch_are_apart_in_evaluation_and_not_in_training():
    network = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 3, 3))
    assert_independent_batch(network.eval(), torch.randn(4, 3, 20))
    with pytest.raises(AssertionError, match=r"sample \d hears the input of sample \d.*'1' \(BatchNorm1d\)"):
        assert_independent_batch(network, torch.randn(4, 3, 20), training=True)
    with pytest.raises(UserError, match="1 entries on axis 0"):
        assert_independent_batch(network, torch.randn(1, 3, 20))


def test_the_network_comes_back_as_it_was():
    network = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Dropout()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(AssertionError):
        assert_local(network, torch.randn(2, 3, 32, generator=torch.Generator()), left=1, right=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in network.modules())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())


def test_a_network_that_fails_in_double_precision_is_asked_in_its_own():
    class Single(nn.Module):
        def forward(self, x):
            return F.conv1d(x.float(), torch.ones(3, 3, 3), padding=1)

    assert_local(Single(), torch.randn(2, 3, 32), left=1, right=1)
    with pytest.raises(AssertionError, match="1 steps"):
        assert_local(Single(), torch.randn(2, 3, 32), left=1, right=0)
    with pytest.raises(RuntimeError, match="size"):
        assert_local(nn.Conv1d(4, 3, 3), torch.randn(2, 3, 32), left=1, right=1)


def test_of_several_sequences_returned_the_one_named_is_asked_about():
    network = Several(**{f"mask{i}": lambda x: x.flip(-1) for i in range(4)})
    network.net[1] = nn.Identity()
    with pytest.raises(UserError, match=r"output='mask0' .* and 2 more$"):
        assert_local(network, torch.randn(2, 3, 64), left=4, right=4)
    for named in (assert_local, assert_independent_batch):
        reach = {"left": 4, "right": 4} if named is assert_local else {}
        named(network, torch.randn(2, 3, 64), output="sample", **reach)
    with pytest.raises(AssertionError, match="4 are allowed"):
        assert_local(network, torch.randn(2, 3, 64), left=4, right=4, output="mask0")


def test_an_input_without_anything_beyond_is_refused():
    with pytest.raises(UserError, match="take a longer one"):
        assert_local(nn.Conv1d(3, 3, 3, padding=1), torch.randn(1, 3, 16), left=16, right=16)


def test_the_pages_example_runs(monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    [example] = [
        block.split("```")[0] for block in page.split("```python")[1:] if "my_package" in block.split("```")[0]
    ]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    package = types.ModuleType("my_package")
    package.make_network = lambda: nn.Sequential(nn.Conv1d(3, 8, 19, padding=9), nn.Mish(), nn.Conv1d(8, 3, 1))
    monkeypatch.setitem(sys.modules, "my_package", package)
    names = {}
    exec(example, names)
    names["test_what_the_network_hears"]()
    names["NETWORK"].append(nn.GroupNorm(1, 3))
    with pytest.raises(AssertionError, match=r"'3' \(GroupNorm\)"):
        names["test_what_the_network_hears"]()
