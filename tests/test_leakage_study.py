"""Leakage beside validity: one point per trained planner, read from the stitching study's rows."""

from __future__ import annotations

import json

import pytest
from wanted import write_grid

from groundwork.section import read_sections
from norm_study.main import main
from norm_study.stitching import leakage


@pytest.fixture
def study(tmp_path, tiny_run):
    write_grid(tmp_path, tmp_path / "runs", tiny_run, multiple=3)
    return ["leakage", "--stitching", str(tmp_path), "--runs-folder", str(tmp_path / "runs"), "--times", "4"]


def test_each_finished_run_becomes_a_point(capsys, study, tmp_path):
    assert main([*study, "--multiple", "3", "--out", str(tmp_path / "out"), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    [row] = result["rows"]
    assert row["held_out_valid"] == 0.5  # of the two held-out rows that count
    assert row["length"] == 96
    assert row["receptive_field"] == [32, 31]
    assert row["leakage"] > 0
    assert row["beyond_convolutions"] == row["leakage"]  # GroupNorm's frozen form is local: the two reaches are one
    assert result["summary"]["group"]["leakage"]["mean"] == pytest.approx(row["leakage"])
    assert (tmp_path / "out" / "leakage.png").stat().st_size > 10_000
    (section,) = read_sections(tmp_path / "out")
    (line,) = section.tables[0].rows
    assert line[0] == "group"
    assert line[1]["mean"] == pytest.approx(row["leakage"])
    assert section.pictures[0].file == "leakage.png"
    assert len(section.commands) == 1
    assert (tmp_path / "out" / "leakage.md").read_text() == section.markdown()


def test_a_planner_is_audited_once(capsys, study, tmp_path, monkeypatch):
    argv = [*study, "--multiple", "3", "--jobs", "1", "--json", "-"]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(leakage, "audit", None)
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_study_that_is_not_there_is_refused(capsys, study, tmp_path):
    assert main([*study, "--multiple", "5"]) == 2
    assert "multiple = 5" in capsys.readouterr().err
    assert main(["leakage", "--stitching", str(tmp_path / "nowhere")]) == 2
    assert "no finished run" in capsys.readouterr().err
