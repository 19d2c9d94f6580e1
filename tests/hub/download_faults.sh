#!/bin/bash
# download_faults.sh PROGRAM REPOSITORY: each fault in each phase of a download, kills in the middle, a list that lies; and a model in
# shards through the cache. Prints the table of docs/hub.md.
program=$1
repository=$2
. "$(dirname "$0")/lib.sh"
export HF_HOME=$tmp/home OMP_NUM_THREADS=1 SMGPT_HUB_PAUSE_S=0.05
unset HF_TOKEN HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HUB_OFFLINE TRANSFORMERS_OFFLINE
cd "$tmp" || exit 1
hub_start

run() { # CODE COMMAND...
    local want=$1 code=0
    shift
    "$program" "$@" >out 2>err </dev/null || code=$?
    [ $code = "$want" ] || fail "exit code $code instead of $want: $* $(tail -n 3 err)"
}
told() { grep -qF -- "$1" err || fail "stderr does not say '$1': $(tail -n 3 err)"; }
same() { diff -r -x .gitattributes base "$1" >/dev/null || fail "$2: $(diff -r -x .gitattributes base "$1")"; }
lines() { wc -l <log; }

mkdir base && for k in 1 2 3; do head -c 400000 /dev/urandom >base/model-$k.safetensors; done
python3 -c 'import json; json.dump({"a": list(range(30000))}, open("base/tokenizer.json", "w"))'
echo '{}' >base/config.json
seed acme/base base >/dev/null
before=$(lines)
run 0 hub pull acme/base whole
same whole "without a fault"
straight=$(($(lines) - before))
echo "requests without a fault: $straight"

# ---- every fault, twice in a row, in every phase: the files are right, and at most so many requests more
printf '%-9s' fault
printf '%8s' info tree get regular cdn
echo
for fault in 429 500 503 reset truncate corrupt html halfjson expired lost; do
    printf '%-9s' $fault
    for phase in info tree get regular cdn; do
        # A 403 of the Hub itself is a refusal and no URL that ran out; redirects have no body to be broken.
        case $fault-$phase in
        expired-cdn) ;;
        expired-* | truncate-get | corrupt-get | halfjson-get)
            printf '%8s' -
            continue
            ;;
        esac
        rm -rf pulled
        before=$(lines)
        fault $fault $phase 2
        run 0 hub pull acme/base pulled
        [ "$(control faults | tr -d '[]\n')" = "" ] || fail "$fault in $phase did not come"
        same pulled "$fault in $phase"
        [ -z "$(find pulled -name '*.incomplete')" ] || fail "$fault in $phase left a piece"
        printf '%8s' "+$(($(lines) - before - straight))"
    done
    echo
done

# A line that goes still in the middle of a body is given up, and what came is not fetched again.
rm -rf pulled
fault stall cdn 1 '"at": 300000, "stall_s": 120'
before=$SECONDS
run 0 hub pull acme/base pulled
same pulled "a stall"
echo "stall in cdn: $((SECONDS - before)) s"
[ $((SECONDS - before)) -lt 60 ] || fail "a stall was not given up"
grep '"phase": "cdn"' log | tail -n 1 | grep -q '"range": "bytes=[1-9]' || fail "a stalled file was begun anew"

# ---- killed in the middle, started again: the piece stays, and only the rest is asked for
rm -rf pulled
for k in 1 2 3; do fault stall cdn 1 '"at": 200000'; done
"$program" hub pull acme/base pulled >out 2>err </dev/null &
pid=$!
n=0
while [ "$(find pulled -name '*.incomplete' -size +190k 2>/dev/null | wc -l)" -lt 3 ]; do
    n=$((n + 1))
    [ $n -lt 200 ] || fail "the pieces do not come"
    sleep 0.05
done
{
    kill -9 $pid
    wait $pid
} 2>/dev/null
ls pulled/*.safetensors >/dev/null 2>&1 && fail "an unfinished file has its name"
before=$(lines)
run 0 hub pull acme/base pulled
same pulled "after a kill"
[ "$(tail -n +$((before + 1)) log | grep '"host": "cdn"' | grep -c '"range": "bytes=[1-9]')" = 3 ] || fail "not gone on with"
tail -n +$((before + 1)) log | grep '"host": "cdn"' | grep -v '"range": "bytes=[1-9]' && fail "a file was begun anew"

# ---- a signal to stop, while a body flows not and while a pause was asked for: the program ends at once, and goes on later
model=${SMGPT_SHARED:-$repository/../shared}/data/stories260k
train() { # CODE WORK_DIR MODEL
    run "$1" train --set "model=$3" --set "data_json=$repository/configs/sample/gestures.json" --set batch_train=8 --set grad_accum=1 \
        --set max_steps=2 --set "work_dir=$2" --stage 1
}
if [ -d "$model" ]; then
    seed acme/model "$model" >/dev/null
    for what in 'stall cdn 1 "at":100000' '429 cdn 1 "retry_after":50'; do
        rm -rf home stopped
        # shellcheck disable=SC2086 # words
        fault $what
        "$program" train --set model=acme/model --set "data_json=$repository/configs/sample/gestures.json" --set batch_train=8 \
            --set grad_accum=1 --set max_steps=2 --set work_dir=stopped --stage 1 >out 2>err </dev/null &
        pid=$!
        n=0
        while [ -n "$(control faults | tr -d '[]\n')" ]; do
            n=$((n + 1))
            [ $n -lt 200 ] || fail "no download came"
            sleep 0.05
        done
        sleep 0.5
        before=$SECONDS
        kill -TERM $pid
        code=0
        wait $pid || code=$?
        [ $code = 85 ] || fail "exit code $code after a signal: $what: $(tail -n 3 err)"
        [ $((SECONDS - before)) -le 3 ] || fail "$((SECONDS - before)) s from the signal to the end: $what"
        train 0 stopped acme/model
    done
    grep '"phase": "cdn"' log | grep -q '"range": "bytes=[1-9]' || fail "begun anew after a signal"
fi

# ---- a piece on the disk that is not the file's: found by the hash, fetched anew
rm -rf pulled
mkdir pulled && head -c 200000 /dev/zero >pulled/model-1.safetensors.incomplete
run 0 hub pull acme/base pulled
same pulled "after a piece of something else"

# ---- for good: a message, code 5, nothing under a good name
rm -rf pulled
fault corrupt cdn 1000
run 5 hub pull acme/base pulled
told "bytes that are not the Hub's"
ls pulled/*.safetensors >/dev/null 2>&1 && fail "a broken file has its name"
control clear '{}' >/dev/null
HF_ENDPOINT=http://127.0.0.1:1 run 5 hub pull acme/base pulled
HF_HUB_OFFLINE=1 run 5 hub pull acme/base pulled
run 5 hub pull acme/nothing pulled
run 5 hub pull acme/base@v9 pulled
HF_TOKEN=hf_nobody run 5 hub pull acme/base pulled
grep -q hf_nobody out err && fail "the token was printed"

# ---- a list with names that lead elsewhere
for field in oid path; do
    fault lie tree 1000 "\"field\": \"$field\""
    mkdir -p deep/deep && cd deep/deep || exit 1
    run 5 hub pull acme/base pulled
    told "$([ $field = oid ] && echo 'odd hash' || echo "names a file '../")"
    # The cache passes over a path that is no name of a model's file; then it is no tokenizer that is in this repository.
    run "$([ $field = oid ] && echo 5 || echo 3)" train --set model=acme/base --set "data_json=$repository/configs/sample/gestures.json" --set work_dir=w --stage 1
    cd "$tmp" || exit 1
    [ -z "$(find / -maxdepth 3 -name 'evil*' 2>/dev/null; find "$tmp" -name 'evil*')" ] || fail "a file outside"
    control clear '{}' >/dev/null
done

# ---- a model in shards
if [ -d "$model" ]; then
    mkdir shards && cp "$model"/{config,tokenizer,tokenizer_config}.json shards/
    python3 - "$model/model.safetensors" <<'PY'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
head = json.loads(data[8:8 + n])
meta = head.pop("__metadata__", {"format": "pt"})
names, weight_map = sorted(head), {}
for k in range(3):
    out, table = b"", {"__metadata__": meta}
    for name in names[k::3]:
        a, b = head[name]["data_offsets"]
        table[name] = dict(head[name], data_offsets=[len(out), len(out) + b - a])
        out += data[8 + n + a:8 + n + b]
        weight_map[name] = "model-%05d-of-00003.safetensors" % (k + 1)
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    open("shards/model-%05d-of-00003.safetensors" % (k + 1), "wb").write(struct.pack("<Q", len(text)) + text + out)
json.dump({"metadata": {}, "weight_map": weight_map}, open("shards/model.safetensors.index.json", "w"))
PY
    seed acme/shards shards >/dev/null
    train 0 one "$model"
    train 0 three acme/shards
    cmp one/stage1_mlm/checkpoint-2/adapter_model.safetensors three/stage1_mlm/checkpoint-2/adapter_model.safetensors ||
        fail "another result from shards"
    HF_HUB_OFFLINE=1 train 0 off acme/shards
    rm home/hub/models--acme--shards/snapshots/*/model-00002-of-00003.safetensors
    HF_HUB_OFFLINE=1 train 3 off2 acme/shards
    told 'is not in the cache'
fi
hub_stop
