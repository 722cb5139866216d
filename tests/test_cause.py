"""What takes the place of GroupNorm's statistics, and the verdicts on why pooling over time does not stitch."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from groundwork.errors import UserError
from norm_study.main import main
from norm_study.stitching.cause_study import CLAIMS, RULES
from norm_study.stitching.statistics import own_moments, recorded, ruled, windowed_moments


@pytest.fixture
def layers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Mish(), nn.Conv1d(8, 8, 3, padding=1))
    network.append(nn.GroupNorm(4, 8, affine=False))
    return network.requires_grad_(False)


@pytest.mark.parametrize("rule", [own_moments, windowed_moments(1.0)], ids=["own", "a window of the whole plan"])
def test_a_rule_that_says_what_groupnorm_would_changes_nothing(layers, rule):
    plans = torch.randn(3, 4, 40)
    wanted = layers(plans)
    with ruled(layers, rule):
        torch.testing.assert_close(layers(plans), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(layers(plans), wanted)


def test_windows_hear_of_their_stretch_alone_and_are_moved_inside_at_the_ends():
    x_BGCT = torch.randn(2, 3, 4, 20)
    mean, square = windowed_moments(0.25)("", x_BGCT)
    for step, begin in ((0, 0), (10, 8), (19, 15)):
        window = x_BGCT[..., begin : begin + 5]
        torch.testing.assert_close(mean[..., step], window.mean((2, 3)))
        torch.testing.assert_close(square[..., step], window.square().mean((2, 3)))


def test_recorded_statistics_are_those_of_every_layer_and_a_borrower_is_normalized_by_them(layers):
    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, plans, level):
            return self.layers(plans)

    lender, borrower = torch.randn(2, 4, 40), torch.randn(2, 4, 40)
    network = Denoiser()
    table = recorded(network, lender, 0)
    assert set(table) == {"layers.1", "layers.4"}
    with ruled(network, lambda name, _: table[name]):
        torch.testing.assert_close(network(lender, 0), layers(lender), rtol=1e-4, atol=1e-5)
        alone, among = network(borrower[:1], 0), None
    with ruled(network, lambda name, x: tuple(moments[: len(x)] for moments in table[name])):
        among = network(borrower[:1], 0)
    assert not torch.allclose(among, layers(borrower[:1]), atol=0.1)
    assert alone.shape[0] == 2  # two lenders, one borrower: each normalizes it its own way
    torch.testing.assert_close(alone[:1], among)


def test_a_network_without_groupnorm_has_no_statistics_to_take_over():
    with pytest.raises(UserError, match="no GroupNorm"), ruled(nn.Conv1d(1, 1, 1), own_moments):
        pass


def test_the_study_samples_under_every_rule_decodes_and_says_what_it_cannot_decide(tmp_path, tiny_run, capsys):
    argv = ["cause", str(tiny_run), "--lender", str(tiny_run), "--horizons", "1,2", "--episodes", "2", "--jobs", "1"]
    argv += ["--decoded-plans", "4", "--out", str(tmp_path)]
    assert main(argv) == 0
    section = json.loads((tmp_path / "cause_section.json").read_text())
    verdicts = [claim["verdict"] for claim in section["claims"]]
    assert len(verdicts) == len(CLAIMS)
    assert set(verdicts) <= {"undecided", "not run"}  # one seed decides nothing, and a short plan fits no task
    page = (tmp_path / "cause.md").read_text()
    assert all(rule in page for rule in RULES.values())
    assert (tmp_path / "cause.png").stat().st_size > 10_000
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cause").iterdir() if path.is_file())
    assert main(argv) == 0
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "cause").iterdir() if path.is_file()) == before
    capsys.readouterr()
    assert main(["cause", str(tiny_run), "--out", str(tmp_path)]) == 2
    assert "needs RUN … and --lender RUN" in capsys.readouterr().err


def test_a_verdict_follows_the_seeds():
    rows = [
        {"rule": "right", "multiple": 1, "split": "held_out", "countable": True, "run_seed": seed, "plan_valid": valid}
        for seed in range(3)
        for valid in ([True] * 9 + [False])
    ]
    claim = next(claim for claim in CLAIMS if "right plan's statistics" in claim.sentence)
    assert claim.rule.number.measure({"plans": rows, "decoded": []}) == [90.0] * 3
