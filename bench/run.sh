#!/bin/bash
# run.sh OUT_DIR: the table of docs/performance.md, measured: this program over ranks x threads, models, rows, number types
# and shared prefixes, alternating with Hugging Face's Trainer + PEFT when SMGPT_PEER_PYTHON names an interpreter that has
# torch, transformers and peft. One JSON file a run in OUT_DIR; a run whose file is there already is left out, so that a broken
# off table goes on. bench/make_performance.py OUT_DIR makes the document of them.
#
#   SMGPT_BENCH_SMOLLM   model directory of SmolLM2-135M        SMGPT_BENCH_QWEN  of Qwen3-0.6B's shape (init-model --preset 0.6b)
#   SMGPT_BENCH_DATA     data set (default: the sample)         SMGPT_BENCH_ONLY  regular expression on a run's name
#   SMGPT_BENCH_SHORT=1  the rows that the comparisons need     SMGPT_BENCH_STEPS counted steps of SmolLM2 (3; Qwen: 1)
#   SMGPT_BENCH_LOCK     file to hold locked during each run    SMGPT_BENCH_ROUNDS how often everything is measured (1)
#   SMGPT_BENCH_WAIT     seconds to wait at most for a quiet machine before each run (0)
#   SMGPT_PEER_SCRIPT    the peer's script (default: ../shared/bench/hf_baseline.py)
set -euo pipefail
here=$(dirname "$(realpath "$0")")
repo=$(dirname "$here")
program=${SMGPT_BENCH_PROGRAM:-$repo/smgpt-dist}
[ $# = 1 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(realpath "$1")
data=$(realpath "${SMGPT_BENCH_DATA:-$repo/configs/sample/gestures.json}")
peer=${SMGPT_PEER_SCRIPT:-$repo/../shared/bench/hf_baseline.py}
short=${SMGPT_BENCH_SHORT:-}
lock=${SMGPT_BENCH_LOCK:-$out/lock}
cores=$(nproc)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
[ -x "$program" ] || { echo "no program at $program: build it first"; exit 4; }

# Upstream's rows: the peer's own system prompt where the peer is here, else one of the same kind and length.
prompt=$out/system_prompt.txt
if [ -n "${SMGPT_PEER_PYTHON:-}" ]; then
    PYTHONDONTWRITEBYTECODE=1 "$SMGPT_PEER_PYTHON" -c 'import importlib.util, sys
spec = importlib.util.spec_from_file_location("peer", sys.argv[1]); m = importlib.util.module_from_spec(spec)
spec.loader.exec_module(m); sys.stdout.write(m.SYSTEM)' "$peer" >"$prompt"
else
    cp "$here/system_prompt.txt" "$prompt"
fi

wanted() { # NAME: to be made now
    [[ $1 =~ ${SMGPT_BENCH_ONLY:-.} ]] && [ ! -s "$out/$1.json" ]
}

# Two seconds in a row in which others use less than a fifth of a processor, or the time is over.
busy() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }
wait_quiet() {
    local end=$((SECONDS + ${SMGPT_BENCH_WAIT:-0})) quiet=0 before
    while [ $SECONDS -lt $end ] && [ $quiet -lt 2 ]; do
        before=$(busy)
        sleep 1
        if [ $(($(busy) - before)) -lt $(($(getconf CLK_TCK) / 5)) ]; then quiet=$((quiet + 1)); else quiet=0; fi
    done
}
# timed COMMAND...: alone among those who take the same lock. The command is not the last one: the subshell would become it, and its
# time since it started, of which start-up is counted, would begin before the wait.
timed() {
    (
        flock 9
        wait_quiet
        "$@"
        exit $?
    ) 9>"$lock"
}

# ours MODEL ROWS COMPUTE SHARE RANKS THREADS ROUND [ARGUMENT...]; SHARE: true or false
ours() {
    local model=$1 rows=$2 compute=$3 share=$4 ranks=$5 threads=$6 name dir steps=${SMGPT_BENCH_STEPS:-3} launcher=()
    local -A names=([true]=shared [false]=apart)
    name="ours-$model-$rows-$compute-${names[$share]}-${ranks}x$threads-$7"
    shift 7
    wanted "$name" || return 0
    dir=${smollm:-}
    [ "$model" = smollm ] || { dir=$qwen && steps=1; }
    local set=(--set "model=$dir" --set "data_json=$data" --set "work_dir=$out/work-$model-$rows" --set stage2_weights=1,0,0
        --set "compute=$compute" --set "share_prefix=$share" --set "threads=$threads")
    [ "$rows" = default ] || set+=(--set space_tokens=true --set "system_prompt_file=$prompt")
    [ "$ranks" = 1 ] || launcher=(mpirun -np "$ranks")
    echo "$name"
    timed "${launcher[@]}" "$program" bench --stage 2 --steps "$steps" --warmup 1 "${set[@]}" "$@" \
        --json "$out/$name.json.new" >"$out/$name.txt" 2>"$out/$name.err" </dev/null || { tail -n 3 "$out/$name.err"; return 1; }
    mv "$out/$name.json.new" "$out/$name.json"
}

# checkpoint MODEL: bytes of a whole checkpoint of upstream's rows, into a JSON file.
checkpoint() {
    local model=$1 name="checkpoint-$1" dir=${smollm:-}
    wanted "$name" || return 0
    [ "$model" = smollm ] || dir=$qwen
    local set=(--set "model=$dir" --set "data_json=$data" --set "work_dir=$out/work-$model-upstream" --set stage2_weights=1,0,0
        --set "compute=$native" --set space_tokens=true --set "system_prompt_file=$prompt" --set max_steps=1 --set eval_steps=0
        --set split_test_size=0 --set batch_train=1 --set grad_accum=1 --set virtual_shards=1)
    rm -rf "$out/work-$model-checkpoint"
    echo "$name"
    HF_TOKEN='' timed "$program" train --stage 1 --resume none "${set[@]}" --set "out_s1=$out/work-$model-checkpoint" \
        >"$out/$name.err" 2>&1 </dev/null || { tail -n 3 "$out/$name.err"; return 1; }
    printf '{"bytes": %s}\n' "$(du -b "$out/work-$model-checkpoint/checkpoint-1" | cut -f 1)" >"$out/$name.json"
    rm -rf "$out/work-$model-checkpoint"
}

# them MODEL NAME TCMALLOC ROUND ARGUMENT...: one configuration of the peer.
them() {
    local model=$1 name="peer-$1-$2-$4" preload='' dir=${smollm:-}
    local tcmalloc=$3 more=(--steps 1 --ga 2) script=("$peer")
    [ "$2" != default ] || script=("$here/peer_default_rows.py" "$peer")
    shift 4
    [ -n "${SMGPT_PEER_PYTHON:-}" ] && wanted "$name" || return 0
    [ "$model" = smollm ] || dir=$qwen
    if [ "$tcmalloc" = yes ]; then
        preload=$(ls /usr/lib/*/libtcmalloc_minimal.so.4 2>/dev/null | head -n 1)
        [ -n "$preload" ] || echo "$name: without tcmalloc, which is not installed"
    fi
    echo "$name"
    PYTHONDONTWRITEBYTECODE=1 timed env LD_PRELOAD="$preload" "$SMGPT_PEER_PYTHON" "${script[@]}" --model "$dir" --data "$data" \
        --threads "$cores" --label "$name" "${more[@]}" "${peak[@]}" "$@" >"$out/$name.out" 2>"$out/$name.err" </dev/null ||
        { tail -n 3 "$out/$name.err"; return 1; }
    grep '^{"label"' "$out/$name.out" | tail -n 1 >"$out/$name.json"
}

# The numbers that this processor multiplies fastest. Without units for bfloat16 torch's products of it take minutes each: the peer
# then runs in float32, and its products are not measured on their own.
native=float32
auto=()
peak=(--no-peak)
if grep -qwE 'amx_bf16|avx512_bf16' /proc/cpuinfo; then
    native=bfloat16
    auto=(--weights bfloat16 --autocast)
    peak=()
fi
fastest=("${auto[@]}" --new-rows token_indices --compile --pad-to-multiple-of 16 --warmup 2)

# Each of ours stands beside one of theirs, so that a machine that changes its speed does so for both.
round() {
    local n=$1 model
    for model in "${models[@]}"; do
        ours "$model" upstream $native true 1 "$cores" "${n}1"
        them "$model" fastest yes "$n" "${fastest[@]}" --save
        ours "$model" upstream $native true 1 "$cores" "${n}2"
        ours "$model" upstream $native false 1 "$cores" "${n}1"
        [ $native = float32 ] || them "$model" autocast yes "$n" "${auto[@]}" --new-rows token_indices
        [ $native = float32 ] || ours "$model" upstream float32 true 1 "$cores" "$n"
        them "$model" float32 yes "$n" --new-rows token_indices
        ours "$model" upstream $native true 1 "$cores" "${n}3"
        them "$model" upstream no "$n" --save
        [ "$cores" -lt 2 ] || ours "$model" upstream $native true 2 $((cores / 2)) "${n}1"
        ours "$model" upstream $native true 1 "$cores" "${n}4"
        [ "$cores" -lt 2 ] || ours "$model" upstream $native true 2 $((cores / 2)) "${n}2"
        ours "$model" upstream $native false 1 "$cores" "${n}2"
        ours "$model" default $native true 1 "$cores" "$n"
        them "$model" default yes "$n" "${fastest[@]}"
        checkpoint "$model"
        [ -z "$short" ] || continue
        [ $native = bfloat16 ] || ours "$model" upstream bfloat16 true 1 "$cores" "$n"
        [ $native = float32 ] || ours "$model" upstream float32 false 1 "$cores" "$n"
        ours "$model" default $native false 1 "$cores" "$n"
        [ $native = float32 ] || ours "$model" default float32 true 1 "$cores" "$n"
        [ $native = float32 ] || ours "$model" default float32 false 1 "$cores" "$n"
        ours "$model" upstream $native true 1 1 "$n"
        [ "$cores" -lt 2 ] || ours "$model" upstream $native false 2 $((cores / 2)) "$n"
        [ "$cores" -lt 2 ] || ours "$model" upstream $native true 2 "$cores" "$n"
    done
    [ -z "${smollm:-}" ] || ours smollm default $native true 1 "$cores" "growth$n" --growth
}

models=()
[ -z "${SMGPT_BENCH_SMOLLM:-}" ] || { smollm=$(realpath "$SMGPT_BENCH_SMOLLM") && models+=(smollm); }
[ -z "${SMGPT_BENCH_QWEN:-}" ] || { qwen=$(realpath "$SMGPT_BENCH_QWEN") && models+=(qwen); }
[ ${#models[@]} -gt 0 ] || { echo "set SMGPT_BENCH_SMOLLM or SMGPT_BENCH_QWEN to a model directory"; exit 2; }
for ((i = 1; i <= ${SMGPT_BENCH_ROUNDS:-1}; i++)); do
    round "$i"
done
