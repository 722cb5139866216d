"""The report: every kind of folder is known by its files, nothing in it is lost, and mistakes are one line."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from groundwork.page import cell_kind, marked, page, shown_cell
from groundwork.section import Picture, Section, read_sections
from groundwork.tables import Table, cell_text, measured
from norm_study.main import main
from norm_study.report.folders import read_folders
from norm_study.report.measurements import summary_tables
from norm_study.report.runs import runs_section
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
        ("localization", ["Reproduction", "Measurements"]),
        ("hash", ["Comparison"]),
        ("stitching", ["Stitching", "Cause", "Equal chances", "Dose", "Fix", "Closed loop", *["Stitching"] * 6]),
        ("audit", ["Leakage of trained planners", "Audits"]),
        ("mazes", ["Measurements", "Comparison", "Comparison", "Samplers", "Samplers", "Comparison"]),
        ("init_bias", ["Comparison", "Measurements"]),
    ],
)
def test_a_folder_is_known_by_its_files(folder, kinds):
    sections, runs = read_folders([DOCS / folder])
    assert [section.title for section in sections] == kinds
    assert runs == []


def test_every_claim_stands_there_with_its_interval_and_verdict(report):
    page = report(DOCS / "localization")
    claims = json.loads((DOCS / "localization" / "claims.json").read_text())
    cards = page.split('<table class="cards">')[1].split("</table>")[0].split("<tr>")[2:]
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
    drawing = curves.content.decode()
    strokes = re.findall(r"stroke: (#\w+); stroke-opacity: 0\.8; stroke-width: 1\.1", drawing)
    panels = drawing.count('id="axes_')
    assert {colour: strokes.count(colour) for colour in strokes} == {
        "#0072b2": 2 * panels,
        "#d55e00": panels,
    }


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


@pytest.mark.parametrize(
    "file",
    ["localization/section.json", "localization/claims.json", "hash/comparison.json.gz", "stitching/summary.json"],
)
def test_a_damaged_file_is_one_line_that_names_it(refusal, tmp_path, file):
    copy = tmp_path / "copy"
    shutil.copytree((DOCS / file).parent, copy)
    damaged = copy / Path(file).name
    if damaged.name != "section.json":  # a folder from before there were sections
        (copy / "section.json").unlink(missing_ok=True)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert str(damaged) in refusal(copy)


@pytest.mark.parametrize("content", ['{"rows": []}', "[1, 2]", '[{"verdict": "supported"}]', "null"])
@pytest.mark.parametrize("file", ["claims.json", "section.json"])
def test_another_content_is_one_line_that_names_the_folder(refusal, tmp_path, content, file):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / file).write_text(content)
    assert "strange" in refusal(tmp_path / "strange")


def test_an_unreadable_run_is_one_line(refusal, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("steps: [")
    assert "config.yaml" in refusal(tmp_path / "run")


@pytest.mark.parametrize("folder", ["localization", "stitching", "stitching/comb"])
def test_a_folder_from_before_there_were_sections_tells_the_same(folder, tmp_path):
    old = tmp_path / folder
    inside = [child.name for child in (DOCS / folder).iterdir() if child.is_dir()]
    others = [name for name in inside if name not in ("rows", "figures")]
    ignored = shutil.ignore_patterns("*section.json", *others)
    shutil.copytree(DOCS / folder, old, ignore=ignored)
    (told, *_), _ = read_folders([old])
    written = next(read_sections(DOCS / folder))
    assert (told.summary, list(told.claims), list(told.pictures)) == (written.summary, written.claims, written.pictures)
    assert sorted(map(repr, _cells(told))) == sorted(map(repr, _cells(written)))


def _cells(section):
    return [cell_text(cell) for table in section.tables for row in table.rows for cell in row]


def test_a_section_is_read_back_as_it_was_written_and_says_its_numbers_in_markdown(tmp_path):
    cell = measured({"mean": 0.4, "low": 0.3, "high": 0.5, "n": 3}, ".1f")
    table = Table(["norm", "end_gap"], [["none", cell], ["**b**", "`c` <d>"]], "First")
    section = Section("Study", "Short.", ["Two of three."], tables=[table], notes=["Last."], commands=["x --y"])
    (again,) = read_sections(section.write(tmp_path, "one").folder)
    assert again.tables == [table]
    assert again.markdown() == section.markdown()
    assert section.markdown() == (
        "Command: `x --y`\n\nTwo of three.\n\n## First\n\n| norm | end gap |\n|---|---|\n| none | 0.4 [0.3, 0.5] |\n"
        "| **b** | `c` <d> |\n\nLast.\n"
    )
    shown = page([again])
    assert "<b>b</b>" in shown
    assert "<code>c</code> &lt;d&gt;" in shown


def test_a_picture_lies_inside_the_page_and_more_is_folded_away(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    pictures = [Picture("a.gif", "One."), Picture("b.svg", "Two.", folded=True, content=b"<svg/>")]
    shown, folded = page([Section("Study", pictures=pictures, folder=tmp_path)]).split("<details>")
    assert "data:image/gif;base64,R0lGODlh" in shown
    assert "data:image/svg+xml;base64," in folded


def test_a_column_that_says_one_thing_is_said_once():
    table = Table(["norm", "padding", "field"], [["a", "zeros", "half"], ["b", "zeros", "full"]], "t")
    shorter = table.without_constants()
    assert (shorter.columns, shorter.rows) == (["norm", "field"], [["a", "half"], ["b", "full"]])
    assert shorter.note == "In every row: padding zeros."


def test_a_row_alone_and_numbers_that_agree_keep_their_columns():
    alone = Table(["norm"], [["a"]])
    cell = measured(INTERVAL)
    assert alone.without_constants() == alone
    agreed = Table(["norm", "success"], [["a", cell], ["b", cell]])
    assert agreed.without_constants() == agreed


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
    cells = [cell_text(cell) for table in tables for row in table.rows for cell in row]
    assert cells.count("0.5 [0.25, 0.75]") == 4
    assert {"0.123", "yes", "–", "group", "channel"} <= set(cells)
    assert [table.title for table in tables] == ["one", "one: table", "one: by"]


@pytest.mark.parametrize("text", ["0.4", "−32 … +31", "100 % [99, 100]", "2.27e-15 [2.13e-15, 2.41e-15]", "–"])
def test_numbers_are_kept_on_one_line(text):
    assert cell_kind(text) == "number"
    assert cell_kind("norm") == "short"
    assert cell_kind("3 of 128 runs are stored; training and measuring took a night") == ""


def test_an_interval_is_set_smaller_and_text_is_escaped():
    assert shown_cell("1 [0, 2]") == "1 <small>[0, 2]</small>"
    assert shown_cell("<i>") == "&lt;i&gt;"
    assert marked("a * b") == "a * b"
