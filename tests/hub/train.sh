#!/bin/bash
# train.sh PROGRAM REPOSITORY: training with a Hub: two points a stage, faults, a dead network, a killed process: nothing is
# lost, nothing goes up twice, no step fails.
program=$1
repository=$2
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/checks.sh"
model=${SMGPT_SHARED:-$repository/../shared}/data/stories260k
[ -d "$model" ] || {
    echo "skipped: no model in $model (SMGPT_SHARED)"
    exit 77
}

export HF_TOKEN=hf_test_write HF_HOME=$tmp/home OMP_NUM_THREADS=1
export SMGPT_HUB_PAUSE_S=0.05
hub_start --chunk 100000
cd "$tmp" || exit 1
train() { # CODE WORK_DIR ARGS...
    local want=$1 dir=$2 code=0
    shift 2
    "$program" train --set "work_dir=$dir" --set "model=$model" --set "data_json=$repository/configs/sample/gestures.json" \
        --set batch_train=8 --set grad_accum=1 --set max_steps=6 --set lr=1e-3 "$@" >out 2>err </dev/null || code=$?
    [ $code = "$want" ] || fail "exit code $code instead of $want: $* $(tail -n 3 err)"
}
all_there() { # WORK_DIR: each stage's repository has the two points of the directory, each from one commit
    local k name
    for k in 1 2 3; do
        case $k in 1) name=stage1_mlm ;; 2) name=stage2_multitask ;; 3) name=stage3_t2m_sft ;; esac
        same_files tester/signmotiongpt-stage$k checkpoint-3 "$1/$name/checkpoint-3"
        same_files tester/signmotiongpt-stage$k checkpoint-6 "$1/$name/checkpoint-6"
        [ "$(titles tester/signmotiongpt-stage$k)" = "Stage $k, step 3;Stage $k, step 6" ] ||
            fail "commits of stage $k: $(titles tester/signmotiongpt-stage$k)"
        [ "$(folders tester/signmotiongpt-stage$k)" = ".gitattributes README.md checkpoint-3 checkpoint-6" ] ||
            fail "stage $k: $(folders tester/signmotiongpt-stage$k)"
    done
}
new_hub() {
    hub_stop
    rm -rf state
    hub_start --chunk 100000
}

train 0 plain
all_there plain
[ "$(ls plain/spool | xargs)" = "lock sent" ] || fail "left in the spool: $(ls plain/spool)"
train 0 plain
all_there plain
"$program" hub status --set work_dir=plain >status || fail "hub status"
[ "$(grep -c '^  hub     3 6$' status)" = 3 ] || fail "hub status says $(cat status)"
code=0
HF_ENDPOINT=http://127.0.0.1:1 "$program" hub status --set work_dir=plain >status 2>err || code=$?
[ "$code" = 5 ] || fail "hub status without a Hub: exit code $code"
[ "$(grep -c '^  here    3 6$' status)" = 3 ] && [ "$(grep -c '^  hub     cannot be asked$' status)" = 3 ] ||
    fail "hub status without a Hub says $(cat status)"

new_hub
for phase in whoami create info tree preupload batch put complete verify commit; do fault 503 $phase 2; done
fault lost commit 2
fault reset put 1
train 0 faults
all_there faults

# Where nobody answers, training ends all the same; hub sync does the rest.
new_hub
endpoint=$HF_ENDPOINT
HF_ENDPOINT=http://127.0.0.1:1 train 75 dead --set upload_wait=1s
grep -q '6 checkpoints still wait' err || fail "exit 75 says $(tail -n 2 err)"
[ "$(ls dead/spool | grep -c checkpoint)" = 6 ] || fail "the spool holds $(ls dead/spool)"
"$program" hub sync --set work_dir=dead >out 2>err || fail "hub sync: $(cat err)"
all_there dead
HF_ENDPOINT=$endpoint

# Killed in the middle of each phase of an upload, started again.
for phase in create tree preupload batch put complete verify commit; do
    new_hub
    fault stall $phase 1 '"stall_s": 30'
    rm -rf killed
    "$program" train --set work_dir=killed --set "model=$model" --set "data_json=$repository/configs/sample/gestures.json" \
        --set batch_train=8 --set grad_accum=1 --set max_steps=6 --set lr=1e-3 >out 2>err </dev/null &
    pid=$!
    for ((i = 0; i < 300 && $(requests $phase) < 1; i++)); do sleep 0.05; done
    kill -9 $pid
    wait $pid 2>/dev/null
    control clear '{}' >/dev/null
    train 0 killed
    all_there killed
    rm -f log
done

no_token
HF_TOKEN='' train 0 off
grep -q 'hub     off: no token' err || fail "without a token: $(cat err)"
[ ! -d off/spool ] || fail "a spool without a token"
hub_stop
