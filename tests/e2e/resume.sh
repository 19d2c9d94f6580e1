#!/bin/bash
# resume.sh PROGRAM REPOSITORY MPIEXEC [WIDE]: a run that is stopped by a signal or its deadline saves and ends with 85, and goes
# on with another number of ranks to the bytes of the run that was not stopped.
# Without WIDE only a part of the ways to stop it.
. "$(dirname "$0")/lib.sh"
wide=${4:-}
steps=60
common=(--set model=model-qwen3 --set "max_steps=$steps" --set batch_train=8 --set grad_accum=1 --set eval_steps=25
    --set lr=1e-3 --set max_seq_len=256 --stage 1)
log=stage1_mlm/train_log.jsonl
need_model qwen3
expect 0 2 straight

# at_line DIR N: until the log has N lines.
at_line() {
    local i
    for ((i = 0; i < 3000; i++)); do
        [ "$(cat "$1/$log" 2>/dev/null | wc -l)" -lt "$2" ] || return 0
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.01
    done
    fail "$1: the log never had $2 lines"
}

# goes_on DIR RANKS: from the checkpoint that is there to the end of the straight run.
goes_on() {
    local at
    at=$(newest "$1/stage1_mlm")
    expect 0 "$2" "$1"
    says "resuming from $1/stage1_mlm/checkpoint-$at\$"
    same_state straight/stage1_mlm "$1/stage1_mlm" "$steps"
    same_log straight/stage1_mlm "$1/stage1_mlm"
    printf '%-32s stopped at step %2d, went on with %d ranks\n' "$1" "$at" "$2"
}

# stopped DIR SIGNAL WHOM RANKS LINES THEN: the signal goes to WHOM after LINES lines of the log.
stopped() {
    local dir=$1 whom
    start "$4" "$dir"
    at_line "$dir" "$5"
    case $3 in
        launcher) whom=$launcher ;;
        one) whom=$(ranks | tr ' ' '\n' | tail -n 2 | head -n 1) ;;
        all) whom=$(ranks) ;;
    esac
    kill "-$2" $whom || fail "$dir: no process to signal"
    ended 30
    [ "$code" -eq 85 ] || fail "$dir: exit code $code, not 85"
    says 'stage 1 stopped at step [0-5]?[0-9] of 60, saved; run the same command again to go on'
    goes_on "$dir" "$6"
}

# flip FILE: one bit of its last byte but 8.
flip() {
    python3 - "$1" <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-9] ^= 16
open(sys.argv[1], "wb").write(data)
PY
}

# A deadline again and again. What is over before the first step has nothing to save, and says 85 all the same.
deadlines() {
    local i n_stops got limit
    expect 85 2 deadline --set deadline=1s --set max_steps=100000 --set "work_dir=never"
    says 'stopped at step'
    limit=1
    for ((i = 0, n_stops = 0; i < 60; i++)); do
        got=0
        SMGPT_DEADLINE=${limit}s train $((i % 4 + 1)) deadline || got=$?
        [ "$got" = 85 ] || break
        n_stops=$((n_stops + 1))
        [ "$i" -lt 8 ] || limit=$((limit + 1))
    done
    [ "$got" = 0 ] || fail "deadline: exit code $got after $n_stops stops"
    same_state straight/stage1_mlm deadline/stage1_mlm "$steps"
    same_log straight/stage1_mlm deadline/stage1_mlm
    echo "deadline of 1 s: $n_stops stops on 1 to 4 ranks"
}

more_ways() {
    stopped usr1-to-one-rank USR1 one 3 30 1
    stopped term-to-one-rank TERM one 4 20 2
    stopped int-to-all-ranks INT all 2 40 2

    # mpirun that gets SIGTERM itself passes it on after a second or two, which may be too late to stop anything here, and
    # ends with a code of its own.
    start 2 term-to-launcher
    at_line term-to-launcher 15
    kill -TERM "$launcher"
    ended 30
    [ "$code" -ne 0 ] && [ "$code" -ne 124 ] || fail "term-to-launcher: exit code $code"
    goes_on term-to-launcher 3

    deadlines
}

# Without a launcher.
count=$((count + 1))
"$smgpt" train --set work_dir=alone --set "data_json=$data" "${common[@]}" >out 2>err </dev/null &
launcher=$!
started=("$launcher")
at_line alone 12
kill -USR1 "$launcher"
ended 30
[ "$code" -eq 85 ] || fail "alone: exit code $code, not 85"
goes_on alone 4

stopped usr1-to-launcher USR1 launcher 2 9 4
stopped term-to-all-ranks TERM all 2 24 3
[ -z "$wide" ] || more_ways

# A checkpoint given by name, and a start from nothing beside what is there.
expect 0 3 usr1-to-launcher --resume usr1-to-launcher/stage1_mlm/checkpoint-30
says 'checkpoint-60 is of a later step than this run goes on from: moved to .*superseded/checkpoint-60'
same_state straight/stage1_mlm usr1-to-launcher/stage1_mlm "$steps"
same_log straight/stage1_mlm usr1-to-launcher/stage1_mlm
# One bit in the adapter's values: only its hash tells, and the checkpoint before is gone on from.
[ -d straight/stage1_mlm/checkpoint-30 ] || fail "no checkpoint to fall back to"
cp -r straight damaged
flip damaged/stage1_mlm/checkpoint-60/adapter_model.safetensors
expect 0 2 damaged
says 'warning: skipped: .*checkpoint-60/adapter_model.safetensors does not hold the values that were saved'
says 'resuming from damaged/stage1_mlm/checkpoint-30$'
same_state straight/stage1_mlm damaged/stage1_mlm "$steps"
flip damaged/stage1_mlm/checkpoint-60/adapter_model.safetensors
expect 3 2 damaged --resume damaged/stage1_mlm/checkpoint-60
says 'error: .*does not hold the values that were saved'
rm -r damaged/stage1_mlm/checkpoint-30
expect 3 2 damaged
says 'error: .*does not hold the values that were saved'

expect 0 1 usr1-to-launcher --resume none
says "starting over: 'usr1-to-launcher/stage1_mlm' was renamed to 'usr1-to-launcher/stage1_mlm.old1'"
same_state straight/stage1_mlm usr1-to-launcher/stage1_mlm "$steps"
finish
