"""One self-contained HTML report of a benchmark and of trainings, made of their JSON (``bench/SCHEMA.md``) alone.

:func:`render` is all that others need. The files:

- :mod:`numbers` writes numbers with one unit for all that are compared; :mod:`looks` gives each contender a colour, a
  marker and dashes.
- :mod:`bars`, :mod:`curves` and :mod:`plot` are the geometry of the charts; :mod:`tables` is the rows of a workload,
  :mod:`compiled` the figures from compiled code, :mod:`training` the trainings, :mod:`machine` the facts about the
  machine.
- :mod:`page` collects them; ``templates/`` is what a reader sees: the page, its charts and its style.

There is no script in it, and nothing is loaded from elsewhere. Charts are SVG whose lengths are percentages: they fit a
phone without shrinking their text, and take their colours from the page, light or dark.
"""

from gpuopt.bench.html.render import render

__all__ = ["render"]
