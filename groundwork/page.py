"""Self-contained HTML pages: one base template holds the style, figures lie inside, nothing is fetched or executed."""

from __future__ import annotations

import base64
import io
import re
from typing import Any, Literal

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

ImageKind = Literal["png", "svg"]
_INTERVAL = re.compile(r"^(.*\S)\s+(\[[^\]]*\])$")
_NUMBER = re.compile(r"^[−+-]?\.?\d.{0,40}$|^–$")
_SHORT = 28


def render(package: str, template: str, **content: Any) -> str:
    """A page out of a template of ``package``; all of them extend ``page.html.j2`` of this package.

    Args:
        package: where the template lies.
        template: its file name.
        content: what it shows; a name that the template misses is an error.
    """
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package, "."), jinja2.PackageLoader("groundwork", ".")])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quiet_interval"] = quiet_interval
    environment.tests["numeric"] = is_numeric
    environment.tests["short"] = lambda text: len(text) <= _SHORT
    return environment.get_template(template).render(**content)


def image_uri(content: bytes, kind: ImageKind) -> str:
    """An image as an address that holds it. An SVG so shown keeps its ids to itself and runs no script."""
    media = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    return f"data:{media};base64," + base64.b64encode(content).decode()


def figure_uri(figure: Figure, kind: ImageKind = "png", dpi: int = 130) -> str:
    """A matplotlib figure as an address that holds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return image_uri(buffer.getvalue(), kind)


def quiet_interval(text: str | Markup) -> Markup:
    """A table's cell with its interval, the brackets at the end, set smaller than its mean."""
    found = _INTERVAL.match(text)
    if isinstance(text, Markup) or found is None:
        return Markup.escape(text)
    return Markup("{} <small>{}</small>").format(*found.groups())


def is_numeric(text: str) -> bool:
    """Whether a table's cell holds a number, perhaps with unit and interval, which must not be broken in two."""
    return bool(_NUMBER.match(text))
