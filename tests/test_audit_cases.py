"""Never silently wrong: on networks that once deceived the audit it says what is right, or that nothing is measured."""

from __future__ import annotations

import json

import pytest
import torch
from audit_cases import CASES, LOCAL, REFUSED, plain, sequences
from torch import nn

from groundwork.errors import UserError
from norm_study.audit import audit, is_local
from norm_study.audit.findings import with_todays_names

SLOW = {"UNet1DModel for audio, length 1,024", "compiled (default backend)"}


def seen(case):
    return audit(case.make(), case.inputs(), times=8, redraws=2, attribution=False, **case.settings)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_the_verdict_is_right(name):
    case = CASES[name]
    if case.verdict == REFUSED:
        with pytest.raises(UserError, match=case.said) as refusal:
            seen(case)
        assert "\n" not in str(refusal.value)
        return
    report = seen(case)
    assert report.verdict == case.verdict, report.reason
    assert case.said in " ".join([report.reason, *report.notes])
    if case.like_plain:
        bare = audit(plain(), sequences(), times=8, redraws=2, attribution=False)
        assert report.leakage.value == pytest.approx(bare.leakage.value)
        assert report.receptive_field == bare.receptive_field
        assert [module.name.split(".")[-1] for module in report.leaking_modules] == ["1"]


FAST = [name for name, case in CASES.items() if name not in SLOW and not case.settings and case.verdict != REFUSED]


@pytest.mark.parametrize("name", FAST)
def test_a_yes_or_no_agrees_with_the_verdict(name):
    case = CASES[name]
    inputs = case.inputs()
    if name == "output without the input":
        with pytest.raises(UserError, match="not measured"):
            is_local(case.make(), inputs)
    elif name == "zero gate that is no parameter":
        assert is_local(case.make(), inputs)  # at its weights it is
    else:
        assert is_local(case.make(), inputs) == (case.verdict == LOCAL)


def test_a_network_that_cannot_be_local_is_not_called_so_at_any_weights():
    network = plain()
    nn.init.zeros_(network[3].weight)
    before = network[3].weight.clone()
    assert audit(network, sequences(), times=4, redraws=0).verdict == "leaks"
    assert torch.equal(network[3].weight, before)


def test_too_short_an_input_is_not_measured():
    report = audit(plain(), sequences(length=4), times=4, redraws=0)
    assert (report.verdict, report.leakage) == ("not measured", None)
    assert "longer" in report.reason


def test_stored_audits_are_read_by_todays_names():
    stored = json.loads('{"rows": [{"norm_borne": 0.5}], "summary": {"norm_borne": {"value": 1.7}, "leakage": null}}')
    today = {"rows": [{"jacobian_change": 0.5}], "summary": {"jacobian_change": {"value": 1.7}, "leakage": None}}
    assert with_todays_names(stored) == today
