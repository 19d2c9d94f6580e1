# shellcheck shell=bash
# Helpers of the scripts beside, sourced with: PROGRAM REPOSITORY MPIEXEC. They run the program as a user does, on small
# models with random weights and the sample data, in a folder of their own that is gone afterwards.
set -u
smgpt=$(realpath "$1")
repo=$(realpath "$2")
mpiexec=$3
data=$repo/configs/sample/gestures.json
command -v "$mpiexec" >/dev/null || {
    echo "skipped: no $mpiexec"
    exit 77
}
work=$(mktemp -d) || exit 99
cd "$work" || exit 99
started=() # what this script started in the background and has to end
bad=0
count=0

unset SMGPT_CONFIG WORK_DIR DATA_DIR DATA_JSON_PATH MODEL_NAME SEED LR BATCH_TRAIN SMGPT_DEADLINE
# By the environment and not by options, since each launcher spells its options in its own way.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_orte_abort_timeout=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none MPIEXEC_TIMEOUT=120
# What a killed Open MPI leaves behind lies in a folder that is gone afterwards.
shm=$(mktemp -d -p /dev/shm smgpt-e2e.XXXXXX 2>/dev/null) || shm=$work
export OMPI_MCA_btl_vader_backing_directory=$shm OMPI_MCA_osc_sm_backing_directory=$shm OMPI_MCA_orte_tmpdir_base=$shm
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

clean_up() {
    local p
    for p in "${started[@]:-}"; do
        [ -z "$p" ] || kill -9 "$p" 2>/dev/null
    done
    cd /
    chmod -R u+w "$work" 2>/dev/null
    rm -rf "$work" "$shm"
}
trap clean_up EXIT
trap 'exit 99' INT TERM

fail() {
    echo "FAIL: $*"
    [ ! -s err ] || grep -v '^---' err | tail -n 25 | cut -c 1-300 | sed 's/^/    /'
    bad=$((bad + 1))
    [ "$bad" -lt 10 ] || finish
}

finish() {
    [ "$count" -gt 0 ] || {
        echo "nothing was run"
        exit 1
    }
    echo "$count runs, $bad failures"
    [ "$bad" -eq 0 ] || exit 1
    exit 0
}

# need_model FAMILY: the directory model-FAMILY.
need_model() {
    [ -d "model-$1" ] || "$smgpt" init-model --family "$1" --preset tiny --tokenizer bytes --seed 7 --out "model-$1" \
        2>err || {
        fail "no model $1"
        finish
    }
}

# train N WORK_DIR ARGS...: N ranks, messages to ./err; returns the exit code. common: what all runs of a script share.
common=()
train() {
    local n=$1 dir=$2
    shift 2
    count=$((count + 1))
    "$mpiexec" -np "$n" "$smgpt" train --set "work_dir=$dir" --set "data_json=$data" "${common[@]}" "$@" \
        >out 2>err </dev/null
}

# expect CODE N WORK_DIR ARGS...: train, and the exit code is this one.
expect() {
    local want=$1 got=0
    shift
    train "$@" || got=$?
    [ "$got" -eq "$want" ] || fail "exit code $got instead of $want: $*"
}

says() {
    grep -qE -- "$1" err || fail "not said: '$1'"
}

# start N WORK_DIR ARGS...: the same in the background; $launcher is its process.
start() {
    local n=$1 dir=$2
    shift 2
    count=$((count + 1))
    "$mpiexec" -np "$n" "$smgpt" train --set "work_dir=$dir" --set "data_json=$data" "${common[@]}" "$@" \
        >out 2>err </dev/null &
    launcher=$!
    started=("$launcher")
}

# Processes of the ranks of $launcher.
ranks() {
    cat "/proc/$launcher/task/$launcher/children" 2>/dev/null
}

# ended SECONDS: waits for $launcher; its exit code in $code, 124 when it had to be killed.
ended() {
    local i p
    for ((i = 0; i < $1 * 20; i++)); do
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.05
    done
    if kill -0 "$launcher" 2>/dev/null; then
        for p in $(ranks) "$launcher"; do kill -9 "$p" 2>/dev/null; done
        wait "$launcher" 2>/dev/null
        code=124
    else
        wait "$launcher" 2>/dev/null
        code=$?
    fi
    started=()
}

# newest DIR: the highest step of DIR/checkpoint-<step>, 0 if there is none.
newest() {
    local d n best=0
    for d in "$1"/checkpoint-*/; do
        n=${d%/}
        n=${n##*/checkpoint-}
        if [[ $n =~ ^[0-9]+$ ]] && [ "$n" -gt "$best" ]; then best=$n; fi
    done
    echo "$best"
}

# wait_for_step DIR STEP: until DIR/checkpoint-<STEP> or a later one is there, at most 60 s.
wait_for_step() {
    local i
    for ((i = 0; i < 3000; i++)); do
        [ "$(newest "$1")" -lt "$2" ] || return 0
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.02
    done
    fail "no checkpoint of step $2 in $1"
    return 1
}

hash_of() {
    sha256sum "$1" 2>/dev/null | cut -c 1-64
}

# The part of a log that follows from the training and not from the machine.
log_facts() {
    sed -E 's/"(seconds|examples_per_second|tokens_per_second|rss_bytes|world_size|eval_runtime|eval_samples_per_second)":[^,}]*//g' "$1"
}

# same_state DIR_A DIR_B STEP: checkpoint STEP of both holds the same bytes.
same_state() {
    local f
    for f in adapter_model.safetensors optimizer.pt scheduler.pt trainer_state.json adapter_config.json; do
        if [ ! -s "$1/checkpoint-$3/$f" ]; then
            fail "$1/checkpoint-$3/$f is missing"
        else
            cmp -s "$1/checkpoint-$3/$f" "$2/checkpoint-$3/$f" || fail "step $3: $f of $2 is not that of $1"
        fi
    done
}

# same_log DIR_A DIR_B: the logs tell the same steps, losses and norms, each once.
same_log() {
    cmp -s <(log_facts "$1/train_log.jsonl") <(log_facts "$2/train_log.jsonl") ||
        fail "$2/train_log.jsonl is not that of $1: $(diff <(log_facts "$1/train_log.jsonl") <(log_facts "$2/train_log.jsonl") | head -n 4)"
}
