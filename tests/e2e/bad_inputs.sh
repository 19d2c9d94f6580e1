#!/bin/bash
# bad_inputs.sh PROGRAM REPOSITORY MPIEXEC: what users get wrong, on several ranks: exit codes, one message, no checkpoint lost.
. "$(dirname "$0")/lib.sh"
common=(--stage 1 --set max_steps=4 --set batch_train=8 --set grad_accum=1 --set max_seq_len=256)
need_model qwen3
model=(--set model=model-qwen3)

# once: one rank alone speaks.
once() {
    local n
    n=$(grep -c '^smgpt-dist: error: ' err)
    [ "$n" = 1 ] || fail "$n errors were said, not one"
}

# refused CODE TEXT ARGS...: on 2 ranks, and nothing was trained.
refused() {
    local code=$1 text=$2
    shift 2
    expect "$code" 2 refused "$@"
    says "^smgpt-dist: error: .*$text"
    once
    [ ! -e refused/stage1_mlm/checkpoint-2 ] || fail "trained all the same: $*"
}

# ---- data ----
refused 3 "rank 0 on [^ ]*: data file 'nothing.json' does not exist" "${model[@]}" --set data_json=nothing.json
says 'hint: set data_json'
mkdir folder
refused 3 folder "${model[@]}" --set data_json=folder
# row LINE-OF-THE-FILE REPLACEMENT: the sample data with one row changed; counted from 0, the first is in line 2.
one_row() {
    sed "$(($1 + 2))s/.*/$2/" "$data" >bad.json
}
first_row=$(sed -n 2p "$data")
case $first_row in
    *'"text_query"'*'"motion_tokens"'*) ;;
    *) fail "the sample data has not one row a line" ;;
esac
one_row 37 '{"text_query": "a", "motion_tokens": 5, "participant_id": "P1"},'
refused 3 'bad.json": row 37 .*motion_tokens is neither' "${model[@]}" --set data_json=bad.json
one_row 41 '{"motion_tokens": "1 2 3", "participant_id": "P1"},'
refused 3 'bad.json": row 41 .*text_query is missing' "${model[@]}" --set data_json=bad.json
one_row 12 '{"text_query": "a", "motion_tokens": "1 2 x 4", "participant_id": "P1"},'
refused 3 'bad.json": row 12 .*"x 4" is no decimal codebook id' "${model[@]}" --set data_json=bad.json
head -c 5000 "$data" >bad.json
refused 3 'bad.json": the file ends at byte 5000 inside row' "${model[@]}" --set data_json=bad.json
: >bad.json
refused 3 'bad.json"' "${model[@]}" --set data_json=bad.json

# ---- options: each rank reads its own command line, and says which rank it is ----
expect 2 2 refused "${model[@]}" --set max_stepz=3
says "error: --set: unknown option 'max_stepz', the nearest is 'max_steps'"
expect 2 1 refused "${model[@]}" --set batch_train=0
says "error: .*batch_train"
expect 2 1 refused --stages 1
says "error: .*--stage"
expect 2 1 refused "${model[@]}" --set comm_timeout=soon
says "error: .*comm_timeout"
refused 2 '4 ranks|2 ranks, but virtual_shards is 1' "${model[@]}" --set virtual_shards=1
says 'hint: set virtual_shards to 2 or more, or start at most 1 rank'

# ---- ranks that were not told the same: two blocks of one mpirun ----
# unlike CODE TEXT ARGS-OF-RANK-0 -- ARGS-OF-RANK-1
unlike() {
    local code=$1 text=$2 got=0 shared first=()
    shift 2
    while [ "$1" != -- ]; do first+=("$1"); shift; done
    shift
    shared=(train --set work_dir=refused --set "data_json=$data" "${common[@]}" "${model[@]}")
    count=$((count + 1))
    "$mpiexec" -np 1 "$smgpt" "${shared[@]}" "${first[@]}" : -np 1 "$smgpt" "${shared[@]}" "$@" >out 2>err </dev/null || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got instead of $code: $text"
    says "^smgpt-dist: error: .*$text"
    once
    [ ! -e refused/stage1_mlm/checkpoint-2 ] || fail "trained all the same: $text"
}
unlike 2 'rank 1 on [^ ]* has option lr=0.002, rank 0 has 0.001' --set lr=1e-3 -- --set lr=2e-3
says 'hint: give all ranks the same command line'
unlike 2 'rank 1 on [^ ]* has option save_steps=3, rank 0 has 2' --set save_steps=2 -- --set save_steps=3
unlike 4 'rank 1 on [^ ]* computes with baseline, float32, rank 0 on [^ ]* with [a-z0-9_]*, float32' \
    --set cpu_path=auto -- --set cpu_path=baseline
says 'hint: set cpu_path'

# ---- the model ----
refused 3 "model directory 'nowhere' does not exist" --set model=nowhere
cp -r model-qwen3 model-bare && rm model-bare/model.safetensors
refused 3 'stage 1: rank 0 on [^ ]*: no model.safetensors and no model.safetensors.index.json in "model-bare"' \
    --set model=model-bare
cp -r model-qwen3 model-short && truncate -s 100000 model-short/model.safetensors
refused 3 'model-short/model.safetensors' --set model=model-short
cp -r model-qwen3 model-mute && rm model-mute/tokenizer.json
refused 3 'tokenizer.json' --set model=model-mute

# ---- a pack made with another tokenizer ----
mkdir tokenizer
cp model-qwen3/tokenizer_config.json tokenizer
sed 's/^\( *\){"id": 258, "content": "<|im_end|>"\(.*\)$/\1{"id": 258, "content": "<|im_end|>"\2,\n\1{"id": 259, "content": "<|more|>"\2/' \
    model-qwen3/tokenizer.json >tokenizer/tokenizer.json
"$smgpt" init-model --family qwen3 --preset tiny --tokenizer tokenizer --seed 1 --out model-more 2>err || fail "no model-more"
"$smgpt" pack --data "$data" --model model-more --stage 1 --out packs --set max_seq_len=256 2>err || fail "no pack"
refused 3 'stage1.h5.*260|260.*259' "${model[@]}" --set pack=packs/stage1.h5
expect 0 2 more --set model=model-more --set pack=packs/stage1.h5
head -c 20000 packs/stage1.h5 >packs/short.h5
refused 3 'packs/short.h5' --set model=model-more --set pack=packs/short.h5

# ---- going on with something else than before ----
expect 0 2 before "${model[@]}"
changed() {
    local text=$1
    shift
    expect 2 3 before "$@"
    says "^smgpt-dist: error: stage 1: rank 0 on [^ ]*: resuming from before/stage1_mlm/checkpoint-4: $text"
    says 'hint: .*--resume none'
    once
}
changed 'option lr is 2e-5, but the checkpoint was trained with 1e-5' "${model[@]}" --set lr=2e-5
changed 'option max_steps is 3, but the checkpoint was trained with 4' "${model[@]}" --set max_steps=3
changed 'option lora_r is 8, but the checkpoint was trained with 16' "${model[@]}" --set lora_r=8
changed 'option virtual_shards is 6, but the checkpoint was trained with 8' "${model[@]}" --set virtual_shards=6
"$smgpt" init-model --family qwen3 --preset tiny --tokenizer bytes --seed 8 --out model-other 2>err
changed 'the checkpoint was trained on another base model: [0-9a-f]{12}, now [0-9a-f]{12}' --set model=model-other
sed '3d' "$data" >fewer.json
changed 'the checkpoint was trained on other rows: pack [0-9a-f]{12}, now [0-9a-f]{12}' "${model[@]}" --set data_json=fewer.json
says 'hint: .*accept_changes=true'
# Told to, it goes on, and names every difference.
cp -r before accepted
expect 0 3 accepted "${model[@]}" --set data_json=fewer.json --set lr=2e-5 --set max_steps=6 --set accept_changes=true
says 'warning: accept_changes: option lr is 2e-5, but the checkpoint was trained with 1e-5; the run goes on'
says 'warning: accept_changes: option max_steps is 6, but'
says 'warning: accept_changes: the checkpoint was trained on other rows: pack'
[ -s accepted/stage1_mlm/checkpoint-6/optimizer.pt ] || fail "not gone on to step 6"
expect 3 1 before "${model[@]}" --resume nowhere
says "nowhere"
expect 0 3 before "${model[@]}"
says 'resuming from before/stage1_mlm/checkpoint-4'
! grep -q 'was computed with' err || fail "another processor path is found where there is none"
expect 0 2 before "${model[@]}" --set cpu_path=baseline
says 'warning: the checkpoint was computed with [a-z0-9_]*, float32, this run computes with baseline, float32'
says 'cpu_path=[a-z0-9_]* keeps them'

# ---- a rank that is killed, and one that stands still ----
# A busy machine may keep a rank from running for seconds: comm_timeout is well above that, and how long anything takes
# is not looked at, only that it ends and why.
export MPIEXEC_TIMEOUT=500
long=(--set max_steps=100000 --set comm_timeout=12s)
# under_way DIR: until the first step was logged; the ranks' processes in pids.
under_way() {
    for ((i = 0; i < 4000; i++)); do
        [ ! -s "$1/stage1_mlm/train_log.jsonl" ] || break
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.05
    done
    read -r -a pids <<<"$(ranks)"
    [ "${#pids[@]}" = 3 ] || {
        fail "$1: ${#pids[@]} ranks are under way, not 3"
        finish
    }
}
start 3 gone "${model[@]}" "${long[@]}"
under_way gone
kill -9 "${pids[1]}"
ended 120
[ "$code" -ne 0 ] && [ "$code" -ne 124 ] || fail "a killed rank: exit code $code"
grep -qiE 'rank 1 .*(signal 9|killed)|from rank 1 on' out err || fail "a killed rank is not named: $(tail -n 5 out)"

# Two runs that write to one place: the second one waits for the first a while, then leaves it alone.
start 3 busy "${model[@]}" "${long[@]}"
under_way busy
"$smgpt" train --set work_dir=busy --set "data_json=$data" "${common[@]}" "${model[@]}" >out 2>err.second </dev/null
[ $? = 4 ] || fail "a second run in the same place: not exit code 4"
cp err.second err
says "error: .*another run is writing to 'busy/stage1_mlm'"
kill -0 "$launcher" 2>/dev/null || fail "the first run was disturbed"
kill -TERM ${pids[0]}
ended 120
[ "$code" = 85 ] || fail "the first run: exit code $code, not 85"
[ -s busy/stage1_mlm/checkpoint-"$(newest busy/stage1_mlm)"/optimizer.pt ] || fail "the first run did not save"

start 3 still "${model[@]}" "${long[@]}"
under_way still
kill -STOP "${pids[2]}"
ended 240
[ "$code" = 4 ] || fail "a rank that stands still: exit code $code, not 4"
says 'error: .*nothing heard for 12 s from rank 2 on '
says 'hint: .*the run goes on from its newest checkpoint'
finish
