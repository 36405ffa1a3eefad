"""From the JSON to the text of the page."""

from __future__ import annotations

import base64
from typing import Any

from gpuopt.bench.html import numbers
from gpuopt.bench.html.page import page

SCHEMA = 2
"""Version of the JSON that is understood."""


def render(results: dict[str, Any], training: dict[str, Any] | None = None) -> str:
    """One HTML page that needs nothing but itself.

    Args:
        results: What ``bench/SCHEMA.md`` describes.
        training: ``{"note": sentence or None, "figures": [{"title", "svg"}, ...]}``, curves that are drawn already.

    Raises:
        ValueError: ``results`` has another version of the schema.
    """
    import jinja2

    if results["schema"] != SCHEMA:
        raise ValueError(f"results must have schema {SCHEMA}, but have {results['schema']}")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpuopt.bench.html", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=numbers.count, duration=numbers.duration, percent=numbers.percent, picture=picture, tenths=numbers.tenths
    )
    return environment.get_template("page.html").render(page=page(results, training))


def picture(svg: str) -> str:
    """An SVG as the address of an image: there its ids cannot clash with the page's, and no script in it would run."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
