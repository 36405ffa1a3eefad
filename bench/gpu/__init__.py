"""The round on a machine with a GPU that is to be had for minutes: ``bench/on_gpu.sh``.

- :mod:`smoke` tries in seconds whether anything runs, and what no reading settles;
- :mod:`stages` lists what is run, each with a limit of its own, :mod:`round` runs it;
- :mod:`summary` says in one line what came of it.
"""
