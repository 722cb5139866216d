"""``norm-study report``: one self-contained page out of any runs and studies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundwork.errors import UserError
from groundwork.files import write_atomically
from groundwork.page import render
from norm_study.report.runs import runs_section
from norm_study.report.section import Section
from norm_study.report.sections import KINDS, read_folders

TITLE = "What normalization tells a planner"


def add_report(commands: Any) -> None:
    """Adds the subcommand."""
    report = commands.add_parser(
        "report",
        help="one HTML file out of any runs and studies",
        description=f"Writes one page that needs no other file. Folders are outputs of {KINDS}, or hold such folders.",
    )
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs and studies, any mix")
    report.add_argument("--out", type=Path, default=Path("runs/report.html"), metavar="FILE", help="the page")
    report.add_argument("--title", default=TITLE, help="of the page")


def run_report(arguments: argparse.Namespace) -> Path:
    """Writes the page; returns its path.

    Raises:
        UserError: a folder that is missing, unknown, empty or damaged, or an output that is a folder.
    """
    if arguments.out.is_dir():
        raise UserError(f"out = {arguments.out} is a folder; give the name of an HTML file")
    sections, runs = read_folders(arguments.folders)
    if runs:
        sections.append(runs_section(runs))
    write_atomically(arguments.out, report_page(sections, arguments.title))
    return arguments.out


def report_page(sections: Sequence[Section], title: str = TITLE) -> str:
    """The page of some sections."""
    return render("norm_study.report", "report.html.j2", sections=sections, title=title)
