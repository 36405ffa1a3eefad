#!/usr/bin/env bash
# The round on a machine with an NVIDIA GPU and no network, in under nine minutes. Stages: smoke, bench, verify, tests,
# sweeps; all of them, or those that are named:
#     bench/on_gpu.sh [STAGE...]
# OUT is the folder for what they write (out/ if unset), PYTHON the interpreter (python3 if unset).
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-python3}
out=${OUT:-out}

if ! name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$name" ]; then
    echo "on_gpu.sh: no NVIDIA GPU here (nvidia-smi names none); nothing was installed or run." >&2
    exit 2
fi
install=("$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .)
if ! timeout 60 "${install[@]}"; then
    echo "on_gpu.sh: could not install the checkout; running it from where it lies." >&2
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
# -P: unless there is no other way, the root of the repository is not on the path, where kernels/ hides other packages.
exec "$python" -P -m gpuopt.bench.gpu "$out/$(tr -cs 'a-z0-9\n' - <<<"${name,,}")" "$@"
