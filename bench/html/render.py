"""From the JSON to the text of the page."""

from __future__ import annotations

from typing import Any

from gpuopt.bench.html import numbers
from gpuopt.bench.html.page import page

SCHEMA, TRAINING_SCHEMA = 2, 1
"""Versions of the JSON that are understood."""


def render(results: dict[str, Any], training: dict[str, Any] | None = None) -> str:
    """One HTML page that needs nothing but itself.

    Args:
        results: What ``bench/SCHEMA.md`` describes.
        training: What ``gpuopt bench train`` writes, as described there too.

    Raises:
        ValueError: One of them has another version of its schema.
    """
    import jinja2

    for name, given, schema in (("results", results, SCHEMA), ("training", training, TRAINING_SCHEMA)):
        if given is not None and given["schema"] != schema:
            raise ValueError(f"{name} must have schema {schema}, but it is {given['schema']}")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpuopt.bench.html", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=numbers.count, duration=numbers.duration, percent=numbers.percent, tenths=numbers.tenths
    )
    return environment.get_template("page.html").render(page=page(results, training))
