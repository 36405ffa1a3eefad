#!/usr/bin/env bash
# Builds the image for CPUs on a bare Debian, without a Docker engine, and runs it as users do. About 15 minutes.
#
# Needs root, Debian's packages buildah and debootstrap, and 15 GB in TMPDIR. What pip is told on this machine, by files
# or environment, it is told in the build too. Everything is made in a temporary folder and removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
CALLER=4321 # a uid that the image does not know
# Needs a compiler, Python's headers and a cache, as Triton's launcher does on a GPU.
COMPILES='import torch; torch.compile(lambda x: x.sin() + 1)(torch.ones(1000))'

main() {
    require
    work=$(mktemp --directory --tmpdir gpuopt-docker-check.XXXXXX)
    chmod 755 "$work"
    trap clean EXIT
    timed "base image" make_base
    pip_of_this_machine
    timed "image" build gpuopt runtime
    container=$(store from --pull-never gpuopt)
    say "image: $(du --summarize --human-readable --apparent-size "$(store mount "$container")" | cut --fields=1)"

    mkdir "$work/out" "$work/others"
    chown "$CALLER:$CALLER" "$work/out"
    timed "gpuopt info" run "$work/out" gpuopt info
    timed "gpuopt verify --quick" run "$work/out" gpuopt verify --quick
    timed "gpuopt bench --quick" run "$work/out" gpuopt bench --quick
    results_are_the_callers
    timed "torch.compile" run "$work/out" python -c "$COMPILES"

    refuses "cannot be written by uid $CALLER" "$work/others" gpuopt bench --quick
    refuses "start it with --gpus all" "$work/out" env GPUOPT_CUDA=13 gpuopt-entrypoint gpuopt bench
    say "all is well"
}

require() {
    [ "$(id --user)" = 0 ] || die "must be run as root: it makes a Debian by debootstrap"
    for program in buildah debootstrap; do
        command -v "$program" >/dev/null || die "needs $program (apt-get install $program)"
    done
}

make_base() {
    debootstrap --variant=minbase --include=ca-certificates,libpython3-dev,python3,python3-venv \
        bookworm "$work/debian" "$DEBIAN_MIRROR" >"$work/log" 2>&1 || die "debootstrap failed: $(tail --lines=3 "$work/log")"
    local scratch
    scratch=$(store from scratch)
    store copy --quiet "$scratch" "$work/debian" / >/dev/null
    store commit --quiet "$scratch" gpuopt-base >/dev/null
    store rm "$scratch" >/dev/null
    rm -r "$work/debian"
}

# Mounts pip's configuration as /etc/pip.conf, and where they are the files and folders that it names.
pip_of_this_machine() {
    mounts=(--volume "$work/pip.conf:/etc/pip.conf:ro")
    local word
    {
        echo "[global]"
        python3 -m pip config list | sed --quiet "s/^[^.]*\.\([a-z-]*\)='\(.*\)'$/\1 = \2/p" | sort --unique --key=1,1
    } >"$work/pip.conf"
    while read -r word; do
        case "$word" in
            file://*) word=$(dirname "${word#file://}") ;; # an index keeps its files beside it
        esac
        if [ "${word#/}" != "$word" ] && [ -e "$word" ]; then mounts+=(--volume "$word:$word:ro"); fi
    done < <(sed 's/.*= //' "$work/pip.conf" | tr ' ' '\n' | sort --unique)
}

build() {
    store bud --quiet --isolation chroot --build-arg BASE=localhost/gpuopt-base --build-arg CUDA=cpu \
        --build-arg REVISION="$(git rev-parse --short=12 HEAD)" \
        "${mounts[@]}" --target "$2" --tag "$1" --file docker/Dockerfile . >/dev/null
}

# Runs a command in the image as a user whom it does not know, with a folder of the host for results.
run() {
    local out=$1
    shift
    store run --isolation chroot --user "$CALLER:$CALLER" --volume "$out:/work/out" "$container" \
        -- gpuopt-entrypoint "$@"
}

results_are_the_callers() {
    [ -s "$work/out/bench.json" ] || die "bench left no bench.json"
    local others
    others=$(find "$work/out" ! -uid "$CALLER")
    [ -z "$others" ] || die "not of the caller: $others"
    grep --quiet '"image": "gpuopt ' "$work/out/bench.json" || die "bench.json does not name the image"
    ls -l "$work/out"
}

# refuses MESSAGE FOLDER COMMAND...: the entry point must fail, with a line that has the message in it.
refuses() {
    local message=$1 said
    shift
    if said=$(run "$@" 2>&1); then die "did not refuse: $*"; fi
    grep --fixed-strings "$message" <<<"$said" || die "did not say '$message', but: $said"
}

store() {
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

timed() {
    local what=$1 start=$SECONDS
    shift
    "$@"
    say "$what: $((SECONDS - start)) s"
}

say() {
    echo "docker/check.sh: $*"
}

die() {
    say "$*" >&2
    exit 1
}

clean() {
    store rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}

main
