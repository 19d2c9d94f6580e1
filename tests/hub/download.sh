#!/bin/bash
# download.sh PROGRAM REPOSITORY: what comes from the Hub: a start on an empty machine, base models by name through the shared cache,
# whole repositories, the data set, each through faults.
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
settings=(--set "data_json=$repository/configs/sample/gestures.json" --set batch_train=8 --set grad_accum=1 --set max_steps=6
    --set lr=1e-3)
run() { # CODE COMMAND...
    local want=$1 code=0
    shift
    "$program" "$@" >out 2>err </dev/null || code=$?
    [ $code = "$want" ] || fail "exit code $code instead of $want: $* $(tail -n 3 err)"
}
told() { grep -qF -- "$1" err || fail "stderr does not say '$1': $(tail -n 3 err)"; }

# ---- a start on an empty machine, with nothing but the token
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=first --stage 1
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=first --stage 2
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=straight # without a break: the yardstick
rm -rf state-2 && cp -r state state-2
control "history?repo=tester/signmotiongpt-stage3" >/dev/null
for fault in none 503 reset truncate corrupt; do
    rm -rf second
    [ $fault = none ] || for phase in info tree get cdn; do fault $fault $phase 1; done
    run 0 train "${settings[@]}" --set "model=$model" --set work_dir=second --stage 3
    control clear '{}' >/dev/null
    told 'from the Hub: tester/signmotiongpt-stage3, checkpoint-6'
    told 'from the Hub: tester/signmotiongpt-stage2, checkpoint-6'
    cmp second/stage3_t2m_sft/checkpoint-6/optimizer.pt straight/stage3_t2m_sft/checkpoint-6/optimizer.pt || fail "bytes from the Hub"
done

# Stage 2 stopped halfway, its last point deleted on the Hub: it goes on there, and ends with the same bytes.
control seed "{\"repo\": \"tester/signmotiongpt-stage2\", \"delete\": $(history tester/signmotiongpt-stage2 'print(json.dumps([f for f in c[-1]["files"] if f.startswith("checkpoint-6/")]))')}" >/dev/null
control seed "{\"repo\": \"tester/signmotiongpt-stage3\", \"delete\": $(history tester/signmotiongpt-stage3 'print(json.dumps([f for f in c[-1]["files"] if f.startswith("checkpoint-")]))')}" >/dev/null
rm -rf second
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=second
told 'from the Hub: tester/signmotiongpt-stage2, checkpoint-3'
[ ! -f second/stage1_mlm/train_log.jsonl ] || [ "$(grep -c '"loss"' second/stage1_mlm/train_log.jsonl)" -le 6 ] || fail "stage 1 was trained again"
for file in adapter_model.safetensors optimizer.pt; do
    cmp second/stage3_t2m_sft/checkpoint-6/$file straight/stage3_t2m_sft/checkpoint-6/$file || fail "$file after going on from the Hub"
done

# No list: said, and trained from what is here. A list, and the checkpoint does not come: not started over.
HF_ENDPOINT=http://127.0.0.1:1 run 75 train "${settings[@]}" --set "model=$model" --set work_dir=third --stage 1 --set upload_wait=1s
told 'the Hub cannot be asked for checkpoints'
fault truncate cdn 100 '"at": 0'
run 5 train "${settings[@]}" --set "model=$model" --set work_dir=fourth --stage 1
told HF_HUB_OFFLINE
[ ! -e fourth/stage1_mlm/train_log.jsonl ] || fail "started over"
control clear '{}' >/dev/null
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=fourth --stage 1
told 'from the Hub'

# What the Hub has as the newest was broken when it was sent, or is half there: the one before is gone on from.
mkdir -p broken-point/checkpoint-9 half-point/checkpoint-12
cp first/stage1_mlm/checkpoint-3/* broken-point/checkpoint-9/
sed -i 's/"global_step": 3,/"global_step": 9,/' broken-point/checkpoint-9/trainer_state.json
truncate -s -100 broken-point/checkpoint-9/optimizer.pt
cp first/stage1_mlm/checkpoint-3/trainer_state.json half-point/checkpoint-12/
seed tester/signmotiongpt-stage1 broken-point >/dev/null
seed tester/signmotiongpt-stage1 half-point >/dev/null
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=fifth --stage 1
told 'checkpoint-9 of tester/signmotiongpt-stage1 is passed over: '
told 'from the Hub: tester/signmotiongpt-stage1, checkpoint-6'
[ "$(ls -A fifth/stage1_mlm | grep -c 'checkpoint-9')" = 0 ] || fail "a broken checkpoint was kept"
control seed '{"repo": "tester/signmotiongpt-stage1", "delete": ["checkpoint-12/trainer_state.json"]}' >/dev/null

# Stage 1 is on the Hub no more, stage 2 is: stage 1 is not trained again.
rm -rf state-3 && cp -r state state-3
control seed "{\"repo\": \"tester/signmotiongpt-stage1\", \"delete\": $(history tester/signmotiongpt-stage1 'print(json.dumps([f for f in c[-1]["files"] if f.startswith("checkpoint-")]))')}" >/dev/null
control seed "{\"repo\": \"tester/signmotiongpt-stage3\", \"delete\": $(history tester/signmotiongpt-stage3 'print(json.dumps([f for f in c[-1]["files"] if f.startswith("checkpoint-")]))')}" >/dev/null
run 0 train "${settings[@]}" --set "model=$model" --set work_dir=sixth
told 'stage 1 has no checkpoint and stage 2 has'
[ ! -e sixth/stage1_mlm/train_log.jsonl ] || fail "stage 1 was trained again"
cmp sixth/stage3_t2m_sft/checkpoint-6/optimizer.pt straight/stage3_t2m_sft/checkpoint-6/optimizer.pt || fail "after stage 2 from the Hub"
rm -rf state/repos && mv state-3/repos state/repos && rm -rf state-3

# ---- base models by name
mkdir -p base && cp "$model"/*.json "$model"/*.safetensors base/ 2>/dev/null
head -c 100 /dev/urandom >base/pytorch_model.bin
seed acme/base base '"private": false' >/dev/null
cut_off() { # the cache has the files, one blob each, and nothing half
    [ -z "$(find home -name '*.incomplete')" ] || fail "left behind: $(find home -name '*.incomplete')"
    [ ! -e "$(echo home/hub/models--acme--base/snapshots/*/pytorch_model.bin)" ] || fail "a file came that nobody needs"
    cmp home/hub/models--acme--base/snapshots/*/model.safetensors base/model.safetensors || fail "weights differ"
}
for fault in none 503 429 reset truncate corrupt; do
    rm -rf home named
    [ $fault = none ] || for phase in info tree get cdn; do fault $fault $phase 2; done
    HF_TOKEN='' run 0 train "${settings[@]}" --set model=acme/base --set work_dir=named --stage 1
    control clear '{}' >/dev/null
    cut_off
    cmp named/stage1_mlm/checkpoint-6/adapter_model.safetensors straight/stage1_mlm/checkpoint-6/adapter_model.safetensors ||
        fail "trained on the named model: other bytes"
done
grep -q '"base_model_name_or_path": "acme/base"' named/stage1_mlm/checkpoint-6/adapter_config.json || fail "the adapter's base"
before=$(wc -l <log)
HF_HUB_OFFLINE=1 HF_TOKEN='' run 0 train "${settings[@]}" --set model=acme/base --set work_dir=off --stage 1
HF_HUB_OFFLINE=1 HF_TOKEN='' run 0 complete --model_path named/stage1_mlm --text a --max_new_tokens 2
[ "$(wc -l <log)" = "$before" ] || fail "offline, and yet the Hub was asked"
# Without links the snapshot has the files themselves, as huggingface_hub makes it then, and needs nothing more.
mv home home-links
HF_HUB_DISABLE_SYMLINKS=1 HF_TOKEN='' run 0 train "${settings[@]}" --set model=acme/base --set work_dir=plain --stage 1
cut_off
[ -z "$(find home -type l)$(ls home/hub/models--acme--base/blobs)" ] || fail "links or blobs: $(find home/hub/models--acme--base)"
before=$(grep -c '"phase": "cdn"' log)
HF_HUB_DISABLE_SYMLINKS=1 HF_TOKEN='' run 0 train "${settings[@]}" --set model=acme/base --set work_dir=plain2 --stage 1
[ "$(grep -c '"phase": "cdn"' log)" = "$before" ] || fail "fetched again"
HF_HUB_OFFLINE=1 HF_TOKEN='' run 0 train "${settings[@]}" --set model=acme/base --set work_dir=plain3 --stage 1
rm -rf home && mv home-links home
commit=$(ls home/hub/models--acme--base/snapshots)
HF_TOKEN='' run 0 train "${settings[@]}" --set "model=acme/base@$commit" --set work_dir=pinned --stage 1
HF_HUB_OFFLINE=1 HF_TOKEN='' run 3 train "${settings[@]}" --set model=acme/other --set work_dir=off --stage 1
told 'is not in the cache'
HF_TOKEN='' run 5 train "${settings[@]}" --set model=acme/nothing --set work_dir=off --stage 1
told acme/nothing
seed acme/gated base '"gated": true' >/dev/null
run 5 train "${settings[@]}" --set model=acme/gated --set work_dir=off2 --stage 1
told 'the owner asks for agreement'

# ---- whole repositories
HF_TOKEN='' run 0 hub pull acme/base pulled
diff -r base pulled >/dev/null || [ "$(diff -r base pulled)" = "Only in pulled: .gitattributes" ] || fail "pull: $(diff -r base pulled)"
run 0 hub pull tester/signmotiongpt-stage1 point --folder checkpoint-3
diff -r point first/stage1_mlm/checkpoint-3 || fail "pull of a folder"
sed -i 's/"global_step": 3/"global_step": 4/' point/trainer_state.json # as long as before
run 0 hub pull tester/signmotiongpt-stage1 point --folder checkpoint-3
diff -r point first/stage1_mlm/checkpoint-3 || fail "pull over an older file of the same length"
fault truncate cdn 50 '"at": 0'
HF_TOKEN='' run 5 hub pull acme/base broken
control clear '{}' >/dev/null
HF_TOKEN='' run 0 hub pull acme/base broken
cmp broken/model.safetensors base/model.safetensors || fail "a pull in two goes"

# ---- the data set
export SMGPT_DRIVE_ENDPOINT=$HF_ENDPOINT/drive
run_apart() { (unset HF_ENDPOINT && run "$@") || exit 1; } # other places have nothing to do with the Hub's endpoint
mkdir -p state/drive
python3 -c "
import json
rows = json.load(open('$repository/configs/sample/gestures.json'))
json.dump([dict(r, text_query=r['text_query'] + ' %d' % k) for k in range(5) for r in rows], open('state/drive/large', 'w'))
json.dump(rows[:200], open('state/drive/small', 'w'))"
for id in small large; do
    run_apart 0 hub fetch-data --set gdrive_id=$id --set "data_json=d/$id.json"
    cmp d/$id.json state/drive/$id || fail "$id from Drive"
done
fault truncate drive 1
fault 503 drive 1
run 0 hub fetch-data --set gdrive_id=large --set data_json=d/again.json
cmp d/again.json state/drive/large || fail "Drive through faults"
# Another piece than the one asked for: nothing tells by a hash.
fault truncate drive 1
fault range drive 1
run 0 hub fetch-data --set gdrive_id=small --set data_json=d/piece.json
cmp d/piece.json state/drive/small || fail "a piece from elsewhere went into the data set"
[ -z "$(control faults | tr -d '[]\n')" ] || fail "a fault did not come"
run 5 hub fetch-data --set gdrive_id=quota1 --set data_json=d/no.json
[ ! -e d/no.json ] || fail "a page became the data set"
run 5 hub fetch-data --set gdrive_id=nothing --set data_json=d/no.json
echo '[1, 2]' >state/drive/odd
run 3 hub fetch-data --set gdrive_id=odd --set data_json=d/no.json
[ ! -e d/no.json ] || fail "an odd list became the data set"
run_apart 0 hub fetch-data --url "$SMGPT_DRIVE_ENDPOINT/uc?id=small" --set data_json=d/url.json
cmp d/url.json state/drive/small || fail "from a URL"
run_apart 0 hub fetch-data --url "$SMGPT_DRIVE_ENDPOINT/uc?id=large" --set data_json=d/url-large.json
cmp d/url-large.json state/drive/large || fail "from a URL that asks for a confirmation"
run_apart 2 hub fetch-data --url file:///etc/hostname --set data_json=d/no.json
told 'is no URL of http or https'
run 2 hub fetch-data --set data_json=d/no.json
run 0 train --set "model=$model" --set work_dir=w --set gdrive_id=small --set batch_train=8 --set grad_accum=1 --set max_steps=2 --stage 1 \
    --set hub_repo_s1=tester/other
cmp w/data/motion_llm_dataset.json state/drive/small || fail "training does not fetch its data"
no_token
hub_stop
