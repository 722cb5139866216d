"""The report in real Chromium: no overflow at 1280 and 390 pixels, no error, no request, every image there."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from browser import WIDTHS, chromium, console_errors, missing, open_page, requests
from torch import nn

from groundwork.files import write_checksums
from groundwork.page import page as page_of
from groundwork.section import read_sections
from norm_study.audit import audit
from norm_study.audit.report import audit_section
from norm_study.main import main
from planner.comparison.compare import compare
from planner.rollout import RolloutSettings
from planner.training.find import SHIPPED

DOCS = Path(__file__).resolve().parent.parent / "docs"
STUDIES = [folder for name in ("localization", "stitching", "hash", "audit") if (folder := DOCS / name).is_dir()]
OVERFLOW = """
const page = document.scrollingElement, width = page.clientWidth;
const out = [...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll"));
return [page.scrollWidth - width, out.slice(0, 5).map(e => e.outerHTML.slice(0, 200))];
"""
ROWS = """
return [...document.querySelectorAll("table.cards tbody tr")].map(
  row => Object.fromEntries([...row.cells].map(cell => [cell.dataset.label, cell.textContent])));
"""
IMAGES = "return [...document.images].map(image => image.naturalWidth)"
GROUND = "return getComputedStyle(document.body).backgroundColor"
SIDEWAYS = """
return [...document.querySelectorAll(".scroll")].filter(
  e => e.scrollWidth > e.clientWidth + 1 && !e.closest("details:not([open])")).length;
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "a browser is there")


@pytest.fixture(scope="module")
def driver():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The page of two shipped planners that are compared."""
    folder = tmp_path_factory.mktemp("comparison")
    names = ("hash-group", "hash-channel")
    runs = [shutil.copytree(SHIPPED / name, folder / name) for name in names]  # which keep their rollouts
    settings = RolloutSettings(episodes=1, sampler="ddim", sampling_steps=8)
    return compare(runs, folder / "out", settings, multiples=(1, 2), device="cpu")


@pytest.fixture(scope="module")
def page(tiny_run, tmp_path_factory):
    """The report of the committed studies and of two runs, one with a name that wants to be wide."""
    folder = tmp_path_factory.mktemp("report")
    wide = folder / "runs" / ("a_name_that_nobody_would_want_to_read_on_a_phone_" * 3)
    shutil.copytree(tiny_run, wide)
    text = (wide / "provenance.json").read_text()
    (wide / "provenance.json").write_text(text.replace('"platform": "', '"platform": "' + "x" * 300))
    write_checksums(wide, ("provenance.json", "data.json", "config.yaml"))
    out = folder / "with blanks" / "report.html"
    folders = [str(path) for path in (*STUDIES, tiny_run, folder / "runs")]
    assert main(["report", *folders, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_fits_the_window_and_asks_for_nothing(driver, page, width, scheme):
    open_page(driver, page, width, scheme)
    assert driver.execute_script("return document.documentElement.clientWidth") == width
    assert driver.execute_script(OVERFLOW) == [0, []]
    widths = driver.execute_script(IMAGES)
    assert len(widths) >= 1 + len(list(DOCS.glob("stitching/*.png")))
    assert all(natural > 0 for natural in widths)
    assert console_errors(driver) == []
    assert requests(driver) == [page.as_uri()]
    red = int(driver.execute_script(GROUND).strip("rgb()").split(",")[0])
    assert (red > 200) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_and_its_headline_says_what_its_table_says(driver, comparison, width, scheme):
    assert comparison.stat().st_size < 5_000_000
    open_page(driver, comparison, width, scheme)
    assert driver.execute_script(OVERFLOW) == [0, []]
    assert driver.execute_script(SIDEWAYS) == 0
    assert all(natural > 0 for natural in driver.execute_script(IMAGES))
    assert (console_errors(driver), requests(driver)) == ([], [comparison.as_uri()])
    rows = [row for row in driver.execute_script(ROWS) if row["horizon"] == "1×"]
    assert [(row["norm"], row["pools over time"]) for row in rows] == [("channel", "no"), ("group", "yes")]
    channel, group = rows
    said = driver.execute_script("return document.querySelector('.summary').textContent")
    wanted = [row[f"valid plans, {split}"] for split in ("held out", "demonstrated") for row in (group, channel)]
    assert re.findall(r"[\d.]+ % \[[\d.]+, [\d.]+\]", said) == wanted
    assert float(wanted[0].split()[0]) < float(wanted[1].split()[0])
    driver.execute_script("document.querySelector('details').open = true")
    assert driver.execute_script(OVERFLOW) == [0, []]


def test_on_paper_no_table_is_cut_off(driver, page):
    open_page(driver, page, 1280, "light")
    assert driver.execute_script(SIDEWAYS) > 0  # on a screen they may scroll
    a4 = {"width": 760, "height": 1075, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", a4)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert driver.execute_script(OVERFLOW)[0] == 0
        assert driver.execute_script(SIDEWAYS) == 0
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_bad_page_would_be_seen(driver, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><div style="width: 700px">wide</div>'
        '<img src="nowhere.png"><script>console.error("wrong")</script>'
    )
    open_page(driver, bad, 390, "light")
    assert driver.execute_script(OVERFLOW)[0] > 0
    assert driver.execute_script(IMAGES) == [0]
    assert any("wrong" in message for message in console_errors(driver))
    assert any(url.endswith("nowhere.png") for url in requests(driver))


def test_the_pages_of_other_commands_fit_too(driver, tmp_path):
    network = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv1d(4, 2, 3, padding=1))
    report = audit(network, torch.randn(1, 2, 24), times=2, redraws=1, attribution=False)
    report.settings.update(network="a." + "very_" * 30 + "long:name", levels=None)
    (tmp_path / "audit.html").write_text(page_of([audit_section(report)]))
    (tmp_path / "study.html").write_text(page_of(list(read_sections(DOCS / "localization"))))
    for name in ("audit.html", "study.html"):
        for width in WIDTHS:
            open_page(driver, tmp_path / name, width, "dark")
            assert driver.execute_script(OVERFLOW) == [0, []], name
            assert console_errors(driver) == []
