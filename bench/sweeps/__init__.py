"""Experiments on a GPU: other ways to cut a step than the product's, ``python -m gpuopt.bench.sweeps FOLDER``.

- :mod:`subjects` says what steps are timed on, :mod:`alternative` what an alternative is;
- :mod:`by_triton` and :mod:`by_cupy` list what is tried;
- :mod:`run` checks and times them, :mod:`report` shows what came of it, :mod:`command` is the command.

What each is expected to do is written down in ``bench/NOTES.md`` before it is measured. What gains more than noise goes
into the drivers.
"""
