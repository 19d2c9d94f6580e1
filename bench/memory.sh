#!/bin/bash
# memory.sh PROGRAM MODEL_DIR DATA_JSON [RANKS...]: memory of the ranks of one host while they train, as a table. A page
# that n ranks map counts 1/n for each (PSS in /proc/PID/smaps_rollup), so the sum is what the host really holds.
# Options of the runs: SMGPT_MEMORY_ARGS (default: stage 1, 64 rows a step, 2 steps, bfloat16).
#
#     bench/memory.sh ./smgpt-dist ~/models/SmolLM2-135M configs/sample/gestures.json 1 2 4 8
set -eu
program=$(realpath "$1") model=$(realpath "$2") data=$(realpath "$3")
shift 3
[ $# -gt 0 ] || set -- 1 2 4 8
read -r -a args <<<"${SMGPT_MEMORY_ARGS:---stage 1 --set batch_train=16 --set grad_accum=4 --set max_steps=2 --set compute=bfloat16}"
work=$(mktemp -d)
launcher=
trap '[ -z "$launcher" ] || kill "$launcher" 2>/dev/null || true; rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# One line a rank: PSS, of it shared with others (files and shared memory), of it its own; in KiB.
sample() {
    local p
    for p in $(cat "/proc/$launcher/task/$launcher/children" 2>/dev/null); do
        awk '/^Pss:/ { pss = $2 } /^Pss_Anon:/ { anon = $2 } END { if (pss) print pss, pss - anon, anon }' \
            "/proc/$p/smaps_rollup" 2>/dev/null || true
    done
}

printf '%5s %14s %14s %14s %16s %10s\n' ranks 'all, PSS MiB' 'shared MiB' 'own MiB' 'own a rank MiB' 's a step'
for n in "$@"; do
    rm -rf "$work/run"
    mpirun -np "$n" "$program" train --set "model=$model" --set "data_json=$data" --set "work_dir=$work/run" "${args[@]}" \
        >"$work/out" 2>&1 </dev/null &
    launcher=$!
    best=0 line=
    while kill -0 "$launcher" 2>/dev/null; do
        now=$(sample | awk '{ p += $1; s += $2; a += $3; n++ } END { if (n) print p, s, a, n }')
        if [ -n "$now" ] && [ "${now%% *}" -gt "$best" ]; then best=${now%% *} line=$now; fi
        sleep 0.1
    done
    wait "$launcher" || { tail -n 5 "$work/out"; exit 1; }
    launcher=
    step=$(sed -n 's/.*"seconds":[ ]*\([0-9.]*\).*/\1/p' "$work"/run/stage*/train_log.jsonl | tail -n 1)
    awk -v n="$n" -v step="$step" '{ printf "%5d %14.0f %14.0f %14.0f %16.0f %10.2f\n", n, $1 / 1024, $2 / 1024, $3 / 1024, $3 / 1024 / $4, step }' <<<"$line"
done
