"""Foreign planners: they leak as they come, not after the exchange, and the page's table is the committed rows'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from norm_study.audit.exchange_study import HORIZON, demonstrations, longest_step, study, table, valid
from norm_study.audit.foreign import FOREIGN
from norm_study.audit.quick import is_local
from norm_study.audit.surgery import replace_norms

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_planner_leaks_until_its_norms_are_exchanged(name):
    torch.manual_seed(0)
    network, inputs = FOREIGN[name](2), (torch.randn(1, 2, 256), torch.tensor([16]))
    assert network(*inputs).shape == inputs[0].shape
    assert not is_local(network, inputs)
    surgery = replace_norms(network, "channel")
    assert {exchange.type for exchange in surgery.exchanges} == {"GroupNorm"}
    assert is_local(network, inputs)


def test_demonstrations_are_valid_and_run_straight_across():
    plans = demonstrations(500, HORIZON, torch.Generator().manual_seed(0))
    assert valid(plans, 2 * float(longest_step(plans).max())).float().mean() >= 0.99
    ends = plans[..., [0, -1]]
    assert torch.allclose(ends[..., 0], -ends[..., 1], atol=1e-6)
    corner = torch.tensor([[[-0.9, 0.0], [0.0, 0.9]]])
    assert not valid(corner, 9.0).any()


def test_the_studys_rows_and_the_pages_table():
    [*rows] = study("CleanDiffuser's U-Net", steps=2, tuning=1, each=1, seed=0)
    assert [row["stage"] for row in rows] == [
        "as trained",
        "exchanged",
        "exchanged, fine-tuned",
        "not exchanged, trained on",
    ]
    assert rows[0]["leakage"] > 0 == rows[1]["leakage"] == rows[2]["leakage"] < rows[3]["leakage"]
    stored = json.loads((DOCS / "audit" / "exchange.json").read_text(encoding="utf-8"))
    assert table(stored) in (DOCS / "audit.md").read_text(encoding="utf-8")
