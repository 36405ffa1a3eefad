"""Benchmarks: ``python -m gpuopt.bench``. They need the extra ``gpuopt[bench]``.

The files:

- :mod:`classifier` trains one small model with one optimizer on one driver; :mod:`train` does so with all of them.
- :mod:`naive` is the textbook code to be faster than; :mod:`contenders` puts it, gpuopt and torch.optim side by side;
  :mod:`timing` times contenders in turns; :mod:`speed` names the workloads; :mod:`goals` says what must come out.
- :mod:`suite` is the whole run; :mod:`results`, :mod:`report` and :mod:`picture` keep and show it.
- :mod:`gpu_round`, with the other ``gpu_`` files and :mod:`models`, is the round for a machine with an NVIDIA GPU,
  started by ``bench/on_gpu.sh``.
"""
