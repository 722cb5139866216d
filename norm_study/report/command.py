"""``norm-study report``: one self-contained page out of any runs and studies."""

from __future__ import annotations

from collections.abc import Sequence

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.page import render
from norm_study.report.runs import runs_section
from norm_study.report.section import Section
from norm_study.report.sections import read_folders
from norm_study.report.settings import TITLE, ReportSettings


def report(settings: ReportSettings) -> None:
    """Writes the page and prints where it is.

    Raises:
        UserError: a folder that is missing, unknown, empty or damaged, or an output that is a folder.
    """
    if settings.out.is_dir():
        raise UserError(f"out = {settings.out} is a folder; give the name of an HTML file")
    sections, runs = read_folders(settings.folders)
    if runs:
        sections.append(runs_section(runs))
    write_atomically(settings.out, report_page(sections, settings.title))
    print(f"page: {settings.out}")


def report_page(sections: Sequence[Section], title: str = TITLE) -> str:
    """The page of some sections."""
    return render("norm_study.report", "report.html.j2", sections=sections, title=title)
