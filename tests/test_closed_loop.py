"""Planners followed in one go, from few evaluations, from many candidates, and with replanning."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from groundwork.tables import cell_text
from norm_study.main import main
from norm_study.stitching.closed_loop import loop_section, modes
from norm_study.stitching.settings import ClosedLoopSettings, Way

CLOSED_LOOP = Path(__file__).resolve().parent.parent / "docs" / "stitching" / "closed_loop"


@pytest.mark.parametrize("folder", [path.parent for path in CLOSED_LOOP.rglob("rows")], ids=lambda folder: folder.name)
def test_the_committed_tables_are_those_of_the_committed_rows(tmp_path, folder):
    page = (folder / "tables.md").read_text()
    command = page.partition("`")[2].partition("`")[0]
    runs = [Path(word).name for word in command.split() if word.startswith("runs/")]
    stored = [next((folder / "rows").glob(f"{run}-*")) for run in runs]
    rows = [row for path in stored for row in json.loads(gzip.decompress(path.read_bytes()))["rows"]]
    assert len(runs) == len({row["run"] for row in rows}) == len(list((folder / "rows").iterdir())) >= 3
    order = [mode for mode in modes(ClosedLoopSettings(ways=get_args(Way))) if any(row["mode"] == mode for row in rows)]
    assert loop_section(rows, order, command).write(tmp_path).markdown() == page


def test_differences_are_those_to_the_same_planners_and_to_group_with_the_same_seeds():
    about = {"multiple": 2, "maze": "hash", "split": "held_out", "countable": True, "planning_ms": 1.0}
    rows = [
        about
        | {"norm": norm, "run": f"{norm}-{seed}", "run_seed": seed, "mode": mode}
        | {"success": norm == "channel" or episode < count, "plan_valid": episode < count}
        for norm in ("group", "channel")
        for seed, counts in enumerate([(0, 4), (2, 6), (6, 10)])
        for mode, count in zip(("one plan", "best of 2"), counts, strict=True)
        for episode in range(10)
    ]
    table = loop_section(rows, ["one plan", "best of 2"]).tables[0]
    told = [[cell_text(cell) for cell in line[3:8]] for line in table.rows]
    assert table.columns[3:8] == ["success", "to one plan", "to group", "valid plans", "to one plan"]
    assert [line[1] for line in told] == ["–", "40 points [15, 59]", "–", "0 points [-11, 11]"]  # Newcombe
    assert [line[2] for line in told][:2] == ["–", "–"]
    assert [line[2].split(" ")[0] for line in told][2:] == ["73", "33"]
    assert [line[4] for line in told] == ["–", "40 points [15, 59]"] * 2


def test_modes_differ_in_what_they_say_alone():
    asked = {"every": (35, 70), "warm": 0.5, "sampling_steps": 8, "best_of": 4, "episodes": 2, "seed": 3}
    found = modes(ClosedLoopSettings(**asked))
    assert list(found) == [
        *("one plan", "few evaluations", "best of 4", "steps 8 times again", "every 35 steps, cold"),
        *("every 70 steps, cold", "every 35 steps, warm", "every 70 steps, warm"),
    ]
    assert list(modes(ClosedLoopSettings(**asked, ways=("warm", "again", "cool"), temperature=0.25))) == [
        *("one plan", "steps 8 times again", "temperature 0.25", "every 35 steps, warm", "every 70 steps, warm")
    ]
    again = found.pop("steps 8 times again")
    assert (again.sampler, again.sampling_steps, again.resample, again.resample_levels) == ("ddpm", None, 8, (0.1, 0.5))
    for mode, asked in found.items():
        assert (asked.episodes, asked.seed) == (2, 3)
        assert (asked.sampler, asked.sampling_steps) == ((None, None) if mode == "one plan" else ("ddim", 8))
        assert asked.best_of == (4 if mode == "best of 4" else 1)
        assert str(asked.replan_every) in mode if "every" in mode else asked.replan_every == 0
        assert asked.replan_warm == (0.5 if "warm" in mode else 0)


def test_the_study_rolls_out_in_every_mode_once_and_says_what_it_has_no_number_for(tmp_path, tiny_run):
    argv = ["closed-loop", str(tiny_run), "--horizons", "4", "--episodes", "1", "--jobs", "1", "--best-of", "2"]
    argv += ["--replan-every", "40", "--sampling-steps", "1", "--resample", "1", "--out", str(tmp_path)]
    assert main(argv) == 0
    (kept,) = (tmp_path / "rows").glob("*.json.gz")
    rows = json.loads(gzip.decompress(kept.read_bytes()))["rows"]
    assert {row["mode"] for row in rows} == {
        *("one plan", "few evaluations", "best of 2", "steps 1 times again", "every 40 steps, cold"),
        "every 40 steps, warm",
    }
    assert all(("last_plan_valid" in row) == row["mode"].startswith("every") for row in rows)
    by_mode = {
        mode: sum(row["planning_ms"] for row in rows if row["mode"] == mode) for mode in {r["mode"] for r in rows}
    }
    assert by_mode["every 40 steps, cold"] > by_mode["few evaluations"]  # all plans of an episode count
    lines = [line for line in (tmp_path / "tables.md").read_text().splitlines() if line.startswith("| 4×")]
    assert len(lines) == 6
    assert all((line.split(" | ")[7] == "–") != ("every" in line) for line in lines)
    assert (tmp_path / "hash.png").stat().st_size > 10_000
    before = kept.stat().st_mtime_ns
    assert main(argv) == 0
    assert kept.stat().st_mtime_ns == before


def test_what_would_count_twice_or_has_nothing_to_show_is_refused(tmp_path, tiny_run, refused):
    assert "needs RUN …" in refused("norm_study.main", "closed-loop", "--out", tmp_path)
    shutil.copytree(tiny_run, tmp_path / "again")
    for runs in ([tiny_run, tiny_run], [tiny_run, tmp_path / "again"]):
        for study in (["closed-loop", "--out", tmp_path], ["cause", "--lender", tiny_run], ["stitch"]):
            said = refused("norm_study.main", *study, *runs)
            assert "would count as those of two seeds" in said
    said = refused("norm_study.main", "closed-loop", "umaze", "--out", tmp_path)
    assert "umaze has no held-out task that can be done in plans of 1×, 2× its horizon" in said
