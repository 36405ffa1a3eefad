#!/bin/sh
# Becomes the command it is given, or says in one line what the container lacks for it.
set -eu

refuse() {
    echo "gpuopt: $1" >&2
    exit 2
}

require_gpu() {
    cpu="to use the CPU on purpose, add -e GPUOPT_CUDA=cpu"
    case "${CUDA_VISIBLE_DEVICES-all}" in
        '' | -1) refuse "CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' hides every GPU: unset it, or name devices as in 0,1; $cpu." ;;
    esac
    if ! command -v nvidia-smi >/dev/null; then
        refuse "no GPU is visible in this container: start it with --gpus all, on a host with NVIDIA's driver and the NVIDIA container toolkit; $cpu."
    fi
    gpus=$(nvidia-smi --list-gpus 2>&1) || true
    case "$gpus" in
        GPU*) ;;
        *) refuse "no GPU is visible in this container, nvidia-smi says '$(echo "$gpus" | head -n 1)': see that nvidia-smi works on the host, and start the container anew with --gpus all; $cpu." ;;
    esac
}

require_results_folder() {
    if [ -e out ] && [ ! -w out ]; then
        refuse "$PWD/out cannot be written by uid $(id -u): mount a folder that is yours (mkdir -p out, before docker makes it) and add --user \"\$(id -u):\$(id -g)\"."
    fi
}

only_asks() {
    for argument; do
        case "$argument" in --help | --list) return 0 ;; esac
    done
    return 1
}

case "${1-} ${2-}" in
    "gpuopt bench" | "gpuopt verify")
        if ! only_asks "$@"; then
            [ "${GPUOPT_CUDA:-cpu}" = cpu ] || require_gpu
            [ "$2" = verify ] || require_results_folder
        fi
        ;;
esac
exec "$@"
