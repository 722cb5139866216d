"""Sections as one self-contained HTML page: figures lie inside it, nothing is fetched or executed."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from groundwork.section import Picture, Section, claims_tables
from groundwork.tables import Cell, cell_text

_INTERVAL = re.compile(r"^(.*\S)\s+(\[[^\]]*\])$")
_NUMBER = re.compile(r"^[−+-]?\.?\d.{0,40}$|^–$")
_SHORT = 28
_MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<b>\1</b>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)
_MEDIA = {"svg": "svg+xml"}


def page(sections: Sequence[Section], title: str = "") -> str:
    """The page of some sections, with an overview where there are several.

    Args:
        sections: in their order.
        title: of the page; by default that of the first section.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("groundwork", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"marked": marked, "cell": shown_cell, "cell_kind": cell_kind}
    template = environment.get_template("page.html.j2")
    return template.render(
        sections=sections, title=title or sections[0].title, claims_tables=claims_tables, image=image_uri
    )


def image_uri(picture: Picture, section: Section) -> str:
    """A picture as an address that holds it. An SVG so shown keeps its ids to itself and runs no script."""
    kind = picture.file.rpartition(".")[2].lower()
    content = picture.content or (section.folder / picture.file).read_bytes()
    return f"data:image/{_MEDIA.get(kind, kind)};base64," + base64.b64encode(content).decode()


def figure_bytes(figure: Figure) -> bytes:
    """A matplotlib figure as SVG, for a picture that lies in no file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def marked(text: str) -> Markup:
    """Code, bold and emphasis as HTML, all else escaped."""
    html = str(escape(text))
    for pattern, replacement in _MARKS:
        html = pattern.sub(replacement, html)
    return Markup(html)


def shown_cell(cell: Cell) -> Markup:
    """A table's cell; its interval, the brackets at the end, is set smaller than its mean."""
    found = _INTERVAL.match(text := cell_text(cell))
    return Markup("{} <small>{}</small>").format(*found.groups()) if found else marked(text)


def cell_kind(cell: Cell, column: str = "") -> str:
    """The class of a table's cell: a number is not broken in two, nor is a short text; a verdict has its color."""
    text = cell_text(cell)
    if column == "verdict":
        return "verdict " + text.strip("*").partition("**")[0].replace(" ", "-")
    return "number" if _NUMBER.match(text) else "short" if len(text) <= _SHORT else ""
