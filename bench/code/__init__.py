"""What compiled kernels say about themselves, on any machine: nothing here is measured.

- :mod:`ahead` compiles the kernels of the drivers ``triton`` and ``cupy`` for GPUs that need not be there.
- :mod:`sass` counts what is in the binaries; :mod:`disassembly` and :mod:`listing` read their instructions,
  :mod:`full_tile` finds those that a thread runs for a full tile, and :mod:`waits` what it has asked of memory before
  it must wait.
- :mod:`gpus` holds what is known of the GPUs, with its sources, and the rules of occupancy.
- :mod:`figures` puts them together for the JSON, :mod:`table` for a terminal.
- :mod:`baseline` keeps them, and finds what has become worse.

``python -m gpuopt.bench.code`` shows them; ``--write-baseline`` renews the baseline, deliberately.
"""
