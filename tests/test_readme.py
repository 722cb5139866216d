import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+ % \[\d+, \d+\]")


def test_the_readme_fits_a_reader_of_two_minutes():
    assert len(README.splitlines()) < 150
    pictures = [ROOT / path for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)]
    assert len(pictures) == 1
    assert pictures[0].stat().st_size < 1.5e6


def test_every_number_of_the_readme_stands_in_the_studies_that_it_is_from():
    pages = [ROOT / "docs" / name for name in ("stitching.md", "ogbench.md")]
    pages += (ROOT / "docs" / "stitching").rglob("tables.md")
    study = "".join(page.read_text(encoding="utf-8") for page in pages)
    numbers = NUMBER.findall(README)
    assert len(numbers) >= 28
    for number in numbers:
        assert number in study, number


def anchors_of(page):
    """The names under which the headings of a page can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_of_a_page_leads_somewhere(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"
