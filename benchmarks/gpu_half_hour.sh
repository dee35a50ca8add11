#!/usr/bin/env bash
# What to measure with half an hour on one GPU, in the order of its worth: bash benchmarks/gpu_half_hour.sh
# Each step has a time limit and writes half_hour/STEP.json as soon as its numbers are known; a call after an
# interruption goes on with the first step that has none, and runs resume from their checkpoints. Wheels that the
# machine lacks are taken from wheels/ (pip download -d wheels --no-deps ..., for its Python), where that exists.
# REHEARSAL=1 tries all of it on a CPU with the smallest model.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=python3
[[ ! -x .venv/bin/python ]] || python=.venv/bin/python
if [[ -d wheels ]]; then
    $python -m pip install --quiet --no-index --no-deps --find-links wheels wheels/*.whl || exit 1
fi
declare -A limit=([right]=120 [speed-small]=90 [speed-medium]=120 [speed-large]=150 [profiled]=90 [stops]=120 [says]=900)
failed=0 times=${REHEARSAL:+10} # as long on a CPU that may be busy
for step in $($python -m benchmarks.half_hour --list); do
    echo "== $step"
    timeout --signal=TERM --kill-after=30 "$((${limit[$step]:-90} * ${times:-1}))" $python -m benchmarks.half_hour "$step" || {
        echo "gpu_half_hour.sh: $step ended with status $?; the same call takes it up again" >&2
        failed=1
    }
done
exit "$failed"
