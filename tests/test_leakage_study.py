"""Leakage beside validity: one point per trained planner, read from the stitching study's rows."""

from __future__ import annotations

import gzip
import json

import pytest

from norm_study.factors import FactorRun, rows_path
from norm_study.main import main


@pytest.fixture
def study(tmp_path, tiny_run):
    """A grid of which one run is finished: the tiny one, under the name of a cell."""
    run = FactorRun("group", "zeros", "half", 0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / run.name).symlink_to(tiny_run)
    rows = [
        {"split": split, "multiple": 3, "countable": countable, "plan_valid": valid}
        for split, countable, valid in (
            ("held_out", True, 1.0), ("held_out", True, 0.0), ("held_out", False, 1.0), ("demonstrated", True, 1.0),
        )
    ]  # fmt: skip
    path = rows_path(tmp_path, run)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps({"rows": rows}).encode()))
    return ["leakage", "--stitching", str(tmp_path), "--runs-folder", str(tmp_path / "runs"), "--times", "4"]


def test_each_finished_run_becomes_a_point(capsys, study, tmp_path):
    assert main([*study, "--multiple", "3", "--out", str(tmp_path / "out"), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    [row] = result["rows"]
    assert row["held_out_valid"] == 0.5  # of the two held-out rows that count
    assert row["length"] == 96
    assert row["receptive_field"] == [32, 31]
    assert row["leakage"] > 0
    assert result["summary"]["group"]["leakage"]["mean"] == pytest.approx(row["leakage"])
    assert (tmp_path / "out" / "leakage.png").stat().st_size > 10_000


def test_a_study_that_is_not_there_is_refused(capsys, study, tmp_path):
    assert main([*study, "--multiple", "5"]) == 2
    assert "multiple = 5" in capsys.readouterr().err
    assert main(["leakage", "--stitching", str(tmp_path / "nowhere")]) == 2
    assert "no finished run" in capsys.readouterr().err
