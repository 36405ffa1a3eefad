#!/usr/bin/env bash
# The whole round on a machine with an NVIDIA GPU and no network, in under 10 minutes: the tests marked gpu, the proof
# of the bits, the benchmark, and the sweeps over constants.
# OUT is the folder for what they write (out/ if unset), PYTHON the interpreter (python3 if unset).
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-python3}
out=${OUT:-out}

if ! name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$name" ]; then
    echo "on_gpu.sh: no NVIDIA GPU here (nvidia-smi names none); nothing was installed or run." >&2
    exit 2
fi

if ! "$python" -m pip install --quiet --no-deps --no-build-isolation -e .; then
    echo "on_gpu.sh: could not install the checkout; running it from where it lies." >&2
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
out=$out/$(tr -cs 'a-z0-9\n' - <<<"${name,,}")
mkdir -p "$out" || exit 1
failed=0

# Each part has its own limit, so that one that hangs does not cost the others.
part() {
    local limit=$1
    shift
    echo "on_gpu.sh: $*" >&2
    timeout --signal=INT --kill-after=10 "$limit" "$python" "$@" || failed=1
}

# -P: the root of the repository must not be on the path, where kernels/ would hide another package.
TRITON_INTERPRET=0 part 200 -P -m pytest -q -m gpu --junitxml="$out/tests.xml" tests/gpu
part 60 -P -m gpuopt verify --quick
part 230 -P -m gpuopt bench --device cuda --quick --only '*' --budget 150 --out "$out"
part 80 -P -m gpuopt.bench.gpu_sweeps "$out"
exit $failed
