import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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


def test_every_link_of_the_readme_leads_somewhere():
    for path in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / path).exists(), path
