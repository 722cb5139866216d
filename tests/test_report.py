"""The report: every kind of folder is known by its files, nothing in it is lost, and mistakes are one line."""

import base64
import html
import json
import re
import shutil
from pathlib import Path

import pytest

from groundwork.page import is_numeric, quiet_interval
from groundwork.tables import markdown_table
from norm_study.main import main
from norm_study.report.markdown import Table, inline, read_command, read_introduction, read_tables, without_constants
from norm_study.report.measurements import summary_tables
from norm_study.report.runs import runs_section
from norm_study.report.sections import read_folders
from planner.training.run import RunFolder

DOCS = Path(__file__).resolve().parent.parent / "docs"
INTERVAL = {"mean": 0.5, "median": 0.5, "low": 0.25, "high": 0.75, "n": 3}


@pytest.fixture
def report(tmp_path):
    """Runs the command on some folders and returns the page."""

    def run(*arguments):
        page = tmp_path / "pages" / "report.html"
        assert main(["report", *map(str, arguments), "--out", str(page)]) == 0
        return page.read_text(encoding="utf-8")

    return run


@pytest.fixture
def refusal(tmp_path, capsys):
    """Asserts that the command refuses some folders in one line and writes nothing; returns the line."""

    def run(*arguments):
        page = tmp_path / "refused.html"
        assert main(["report", *map(str, arguments), "--out", str(page)]) == 2
        assert not page.exists()
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        return line

    return run


def words(page):
    """The page's text without tags."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        ("localization", ["reproduction", "measurements"]),
        ("hash", ["comparison"]),
        ("stitching", ["stitching", "fix", *["stitching"] * 6]),
        ("audit", ["audits"]),
        ("mazes", ["measurements", "comparison", "comparison", "measurements", "measurements", "comparison"]),
        ("init_bias", ["comparison", "measurements"]),
    ],
)
def test_a_folder_is_known_by_its_files(folder, kinds):
    sections, runs = read_folders([DOCS / folder])
    assert [section.kind for section in sections] == kinds
    assert runs == []


def test_every_claim_stands_there_with_its_interval_and_verdict(report):
    page = report(DOCS / "localization")
    claims = json.loads((DOCS / "localization" / "claims.json").read_text())
    cards = page.split('<table class="claims">')[1].split("</table>")[0].split("<tr>")[2:]
    assert len(cards) == len(claims) > 10
    for claim, card in zip(claims, cards, strict=True):
        assert claim["sentence"] in words(card)
        assert f"{claim['interval']['mean']:.3g}" in words(card)
        assert words(card).endswith(claim["verdict"])


@pytest.mark.parametrize("file", ["hash/comparison.md", "hash/families.md", "stitching/tables.md"])
def test_every_cell_of_the_markdown_tables_is_in_the_report(report, file):
    shown = words(report((DOCS / file).parent))
    for line in (DOCS / file).read_text(encoding="utf-8").splitlines():
        for cell in line.strip("|").split("|") if line.startswith("|") and "---" not in line else []:
            assert cell.strip(" *`") in shown


def test_a_run_shows_its_curves_provenance_and_rollouts_and_may_be_unfinished(report, tiny_run, tmp_path):
    killed = tmp_path / "runs" / "killed ünd <b>"
    shutil.copytree(tiny_run, killed)
    (killed / "DONE").unlink()
    config = (killed / "config.yaml").read_text()
    (killed / "config.yaml").write_text(config.replace("norm: group", "norm: channel"))
    (killed / "checksums.json").unlink()
    rows = (killed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (killed / "metrics.jsonl").write_text("".join(rows[:3]) + rows[3][:20])
    (killed / "rollouts").mkdir(exist_ok=True)
    episode = {
        "split": "held_out",
        "success": True,
        "plan_valid": False,
        "longest_step": 2.5,
        "end_gap": 0.5,
        "steps_to_goal": 200,
        "tracking_error": 0.125,
    }
    answer = {"question": {"settings": {"horizon": 64}}, "rows": [episode] * 4}
    (killed / "rollouts" / "000.json").write_text(json.dumps(answer))
    page = report(tiny_run, tmp_path / "runs")
    shown = words(page)
    assert "2 runs, 1 finished; norms group, channel" in shown
    assert "12 of 12" in shown
    assert "8 of 12" in shown
    assert "killed ünd <b>" in shown
    assert "<b>" not in page
    assert "100.0 % [51.0, 100.0] 0.0 % [0.0, 49.0] 2.50 ×" in shown
    origin = json.loads((tiny_run / "provenance.json").read_text())
    for fact in (origin["git_commit"][:10], origin["versions"]["torch"], origin["versions"]["minari"]):
        assert fact in shown


def test_curves_have_a_line_per_run_and_an_entry_per_norm(tiny_run, tmp_path):
    runs = [RunFolder(tiny_run)]
    for name in ("a", "b"):
        shutil.copytree(tiny_run, tmp_path / name)
        config = (tmp_path / name / "config.yaml").read_text()
        (tmp_path / name / "config.yaml").write_text(config.replace("norm: group", "norm: channel"))
        (tmp_path / name / "checksums.json").unlink()
        runs.append(RunFolder(tmp_path / name))
    (curves,) = runs_section(runs).pictures
    drawing = base64.b64decode(curves.image.split(",", 1)[1]).decode()
    strokes = re.findall(r"stroke: (#\w+); stroke-opacity: 0\.8; stroke-width: 1\.1", drawing)
    panels = drawing.count('id="axes_')
    assert {colour: strokes.count(colour) for colour in strokes} == {"#0072b2": panels, "#d55e00": 2 * panels}


def test_a_folder_of_folders_and_one_given_twice_are_shown_once(report):
    titles = re.findall(r"<h2>(.*?)</h2>", report(DOCS, DOCS / "audit"))
    assert {"Comparison: hash", "Stitching", "Audits", "Reproduction: localization"} <= set(titles)
    assert len(titles) == len(set(titles))


def test_title_and_links_work_and_nothing_is_fetched_or_run(report):
    page = report(DOCS / "stitching", DOCS / "audit", "--title", "Norms & <plans>")
    assert "<h1>Norms &amp; &lt;plans&gt;</h1>" in page
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"", page)) <= set(ids)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:image/)[^\"]*\"", page)
    assert not re.findall(r"<script|<link|@import|url\(", page)


def test_what_cannot_be_reported_is_one_line(refusal, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing")
    (tmp_path / "other" / "some.json").write_text('{"a": 1}')
    assert "missing" in refusal(tmp_path / "nowhere")
    assert "no folder" in refusal(tmp_path / "other" / "notes.txt")
    for name in ("empty", "other"):
        line = refusal(DOCS / "stitching", tmp_path / name)
        assert str(tmp_path / name) in line
        assert "comparison.json" in line
    assert main(["report", str(DOCS / "stitching"), "--out", str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("file", ["localization/claims.json", "hash/comparison.json.gz", "stitching/summary.json"])
def test_a_damaged_file_is_one_line_that_names_it(refusal, tmp_path, file):
    copy = tmp_path / "copy"
    shutil.copytree((DOCS / file).parent, copy)
    damaged = copy / Path(file).name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert str(damaged) in refusal(copy)


@pytest.mark.parametrize("content", ['{"rows": []}', "[1, 2]", '[{"verdict": "supported"}]', "null"])
def test_another_content_is_one_line_that_names_the_folder(refusal, tmp_path, content):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "claims.json").write_text(content)
    assert "strange" in refusal(tmp_path / "strange")


def test_an_unreadable_run_is_one_line(refusal, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("steps: [")
    assert "config.yaml" in refusal(tmp_path / "run")


def test_tables_are_read_back_as_they_were_written():
    titles, rows = ["norm", "end_gap"], [["none", "0.4 [0.3, 0.5]"], ["none", "**b**, `c` <d>"]]
    text = f"Command: `x --y`\n\nTwo of\nthree.\n\n## First\n\n{markdown_table(titles, rows)}\n\n![no](table.png)\n"
    (table,) = read_tables(text)
    assert (table.title, table.head, table.grouped) == ("First", ["norm", "end gap"], True)
    assert table.rows[0] == ["none", "0.4 [0.3, 0.5]"]
    assert table.rows[1][1] == "<b>b</b>, <code>c</code> &lt;d&gt;"
    assert (read_command(text), read_introduction(text)) == ("x --y", "Two of three.")
    assert inline("a * b") == "a * b"


def test_a_column_that_says_one_thing_is_said_once():
    table = Table("t", ["norm", "padding", "field"], [["a", "zeros", "half"], ["b", "zeros", "full"]])
    shorter = without_constants(table, ("padding", "field"))
    assert (shorter.head, shorter.rows) == (["norm", "field"], [["a", "half"], ["b", "full"]])
    assert shorter.note == "In every row: padding zeros."


def test_any_summary_becomes_tables_that_hold_its_numbers():
    summary = {
        "ratio": 0.123456,
        "yes": True,
        "mean": INTERVAL,
        "long": list(range(50)),
        "none": None,
        "by": {"group": {"leak": INTERVAL, "n": 2}, "channel": {"leak": INTERVAL, "n": 3}},
        "table": [{"norm": "group", "gamma": INTERVAL}],
    }
    tables = summary_tables("one", summary)
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert cells.count("0.5 [0.25, 0.75]") == 4
    assert {"0.123", "yes", "–", "group", "channel"} <= set(cells)
    assert [table.title for table in tables] == ["one", "one: table", "one: by"]


@pytest.mark.parametrize("text", ["0.4", "−32 … +31", "100 % [99, 100]", "2.27e-15 [2.13e-15, 2.41e-15]", "–"])
def test_numbers_are_kept_on_one_line(text):
    assert is_numeric(text)
    assert not is_numeric("norm")
    assert not is_numeric("3 of 128 runs are stored; training and measuring took a night")


def test_an_interval_is_set_smaller_and_text_is_escaped():
    assert quiet_interval("1 [0, 2]") == "1 <small>[0, 2]</small>"
    assert quiet_interval("<i>") == "&lt;i&gt;"
