#!/usr/bin/env bash
# The whole round on a machine with an NVIDIA GPU and no network, in under 10 minutes: see bench/gpu_round.py.
# OUT is the folder for the JSON (out/ if unset), PYTHON the interpreter (python3 if unset).
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
cd ..
python=${PYTHON:-python3}

if ! nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU'; then
    echo "on_gpu.sh: no NVIDIA GPU here (nvidia-smi lists none); nothing was installed or run." >&2
    exit 2
fi

if ! "$python" -m pip install --quiet --no-deps --no-build-isolation -e .; then
    echo "on_gpu.sh: could not install the checkout; running it from where it lies." >&2
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
exec timeout --signal=INT --kill-after=10 570 "$python" -m gpuopt.bench.gpu_round
