"""Benchmarks: ``gpuopt bench``. They need the extra ``gpuopt[bench]``.

The registry, which is data: :mod:`optimizers` and :mod:`shapes` make up the :mod:`workloads`; :mod:`contenders` says
who steps; :mod:`goals` what must come out.

The harness:

- :mod:`problem` makes what all begin with and holds their outcomes to the oracle's; :mod:`timing` lets them take turns,
  and :mod:`meters` takes each sample, with :mod:`nvml` watching the GPU.
- :mod:`alone` measures memory and first steps in processes of their own; :mod:`launches` and
  :mod:`traffic` count; :mod:`memory` sees beforehand what fits.
- :mod:`order` is what is asked for, :mod:`contest` one workload, and :mod:`suite` the whole run. :mod:`results` is what
  it finds, with :mod:`noise` for how sure that is, and ``SCHEMA.md`` the JSON.

Besides steps, :mod:`train` trains real models, and :mod:`code` reads figures off compiled code.

What a user sees: :mod:`command`, with :mod:`selection`, :mod:`live`, :mod:`tables` and :mod:`compare`, and the report
that :mod:`html` makes; :mod:`docs` for the tables of the documentation, and :mod:`picture` for the README's picture.

``on_gpu.sh`` is the round for a machine with an NVIDIA GPU: :mod:`gpu` has its stages, of which :mod:`sweeps` tries
alternatives to the kernels.
"""
