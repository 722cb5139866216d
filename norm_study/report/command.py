"""``norm-study report``: one self-contained page out of any runs and studies."""

from __future__ import annotations

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.page import page
from norm_study.report.folders import read_folders
from norm_study.report.runs import runs_section
from norm_study.report.settings import ReportSettings


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
    write_atomically(settings.out, page(sections, settings.title))
    print(f"page: {settings.out}")
