"""Whether every driver that runs here gives the bits of the NumPy driver, the oracle: ``gpuopt verify``.

- :mod:`variants` names every variant worth comparing, and :mod:`quick` few that stand for all;
- :mod:`drawing` draws their bits, :mod:`tensors` holds them in host memory, :mod:`memory` in a driver's;
- :mod:`given` has the signals of a step, :mod:`cases` the ways to step a variant;
- :mod:`proof` steps one by a driver and by the oracle, :mod:`compare` finds where they differ;
- :mod:`run` does it for all, :mod:`report` shows it, :mod:`command` is the command.
"""
