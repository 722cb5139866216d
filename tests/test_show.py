import shutil
import webbrowser

import numpy as np

from envs.maps import get_map
from planner.comparison.run_facts import norm_label
from planner.config import from_dict
from planner.show import plan_on_map
from planner.training.run import RunFolder


def test_a_run_is_told_as_text_with_its_own_numbers(command, tiny_run):
    done = command("planner.main", "show", tiny_run)
    assert done.returncode == 0, done.stderr
    run = RunFolder(tiny_run)
    config, known, metrics = run.config(), run.statistics(), run.metrics()
    for words in (
        "Finished, last checkpoint at step 12",
        config.data.dataset,
        f"{known.episodes:,} episodes, {known.windows:,} windows",
        f"{config.data.horizon} points, stride {config.data.stride}",
        "| 12 of 12 |",
    ):
        assert words in done.stdout
    losses = [row["loss"] for row in metrics]
    curve = done.stdout.partition("## Curves")[2]
    line = next(line for line in curve.splitlines() if line.startswith("| loss |"))
    _, _, first, bars, last, _ = (cell.strip() for cell in line.split("|"))
    assert (first, last) == (f"{losses[0]:.4g}", f"{losses[-1]:.4g}")
    assert len(bars) == len(losses)
    for task in ("straight (demonstrated)", "turn (held out)", "return (held out)"):
        assert f"{task}: " in done.stdout


def test_a_shipped_planner_and_a_run_without_a_checkpoint_are_told_too(command, tiny_run, tmp_path):
    assert "Finished, last checkpoint at step" in command("planner.main", "show", "hash-group").stdout
    shutil.copytree(tiny_run, tmp_path / "begun", ignore=shutil.ignore_patterns("checkpoints", "DONE", "last"))
    done = command("planner.main", "show", tmp_path / "begun")
    assert "Not finished, last checkpoint at step 0" in done.stdout
    assert "plans valid" not in done.stdout


def test_the_page_is_one_file_and_is_opened(command, tiny_run, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    done = command("planner.main", "show", tiny_run, "--open")
    page = tiny_run / "show.html"
    assert done.stdout.strip() == str(page)
    assert opened == [page.resolve().as_uri()]
    text = page.read_text()
    assert "data:image/svg+xml;base64," in text
    assert 'src="http' not in text
    assert "receptive field" in text
    page.unlink()


def test_a_plan_stands_on_the_map_where_it_leads():
    maze = get_map("hash")
    task = maze.tasks[0]
    ends = maze.cell_to_xy(np.array([task.start, task.goal]))
    share = np.linspace(0, 1, 40)[:, None]
    lines = plan_on_map(maze, task, (1 - share) * ends[0] + share * ends[1]).splitlines()
    assert len(lines) == 2 * len(maze.rows)
    marks = {}
    for row, line in enumerate(lines):
        for column, mark in enumerate(line):
            if mark in "oSG":
                marks.setdefault((row // 2, column // 4), set()).add(mark)
    assert "S" in marks[task.start]
    assert "G" in marks[task.goal]
    assert set(marks) == set(maze.shortest_path(task.start, task.goal))
    assert {mark for line in lines for mark in line} == set("# oSG")


def test_a_norm_is_told_with_all_that_is_unusual_about_it():
    assert norm_label(from_dict({"model": {"norm": "none", "norm_placement": "post"}})) == "none"
    unusual = {"norm": "rms", "norm_placement": "post", "norm_conditioned": True, "weights": "standardized"}
    assert norm_label(from_dict({"model": unusual})) == "rms, post, conditioned, standardized weights"
