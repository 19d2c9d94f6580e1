#!/bin/bash
# cache_shared.sh PROGRAM REPOSITORY VENVS: base models in the cache that huggingface_hub shares, both ways: what the program fetched is what
# three versions of the real client find, and what they fetched is not fetched again. Skips where PyPI is out of reach.
program=$1
repository=$2
venvs=$3
. "$(dirname "$0")/lib.sh"
model=${SMGPT_SHARED:-$repository/../shared}/data/stories260k
[ -d "$model" ] || {
    echo "skipped: no model in $model (SMGPT_SHARED)"
    exit 77
}
for version in 0.36.2 1.33.0 2.4.0; do
    sh "$hub_here/venv.sh" "$venvs" "$version" || exit $?
done
unset HF_TOKEN HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HUB_OFFLINE TRANSFORMERS_OFFLINE
export OMP_NUM_THREADS=1 SMGPT_HUB_PAUSE_S=0.05 HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 no_proxy=127.0.0.1,localhost
cd "$tmp" || exit 1

load() { # the program loads acme/base, by training one step on it
    rm -rf run
    "$program" train --set model=acme/base --set "data_json=$repository/configs/sample/gestures.json" --set batch_train=8 \
        --set grad_accum=1 --set max_steps=1 --set work_dir=run --stage 1 >out 2>err </dev/null || fail "$(tail -n 3 err)"
}
client() { "$venvs/hub-$version/bin/python" "$hub_here/cache_shared.py" "$@" || fail "huggingface_hub $version: $*"; }
bodies() { # requests since the last call that brought content: what came from the store, and regular files from where they lie
    local n
    n=$(grep -c '"phase": "cdn"\|"GET", "path": "/api/resolve-cache' log)
    echo $((n - seen))
    seen=$n
}
fetched() { # HOW-MANY WHO: what is wrong is said with the requests
    local before=$seen n
    n=$(bodies)
    seen=$((before + n))
    [ "$n" = "$1" ] || fail "$2 ($version): $n contents were fetched instead of $1"
}

for version in 0.36.2 1.33.0 2.4.0; do
    rm -rf state log base home
    mkdir base && cp "$model"/{config,tokenizer,tokenizer_config}.json "$model/model.safetensors" base/
    files=$(ls base | wc -l)
    cp base/tokenizer_config.json base/special_tokens_map.json # one content under two names comes once
    hub_start
    seed acme/base base >/dev/null
    seen=0

    # The program's cache, read by the client: offline, and asked again it fetches nothing but what we did not need.
    export HF_HOME=$tmp/home/ours
    load
    fetched "$files" "the program with an empty cache"
    client read acme/base base
    client fill-needed acme/base >/dev/null
    fetched 0 "the client after the program"
    [ "$(ls home/ours/hub/models--acme--base/blobs | wc -l)" = "$files" ] || fail "one blob for each content"

    # A new commit changes one file: one is fetched, the revision moves on, and the other files are the same blobs.
    printf '\n' >>base/config.json
    seed acme/base base >/dev/null
    load
    fetched 1 "the program after a commit"
    client read acme/base base
    [ "$(ls home/ours/hub/models--acme--base/snapshots | wc -l)" = 2 ] || fail "a snapshot for each commit"

    # The client's cache, read by the program, offline and not.
    export HF_HOME=$tmp/home/theirs
    client fill acme/base >/dev/null
    seen=$(grep -c '"phase": "cdn"\|"GET", "path": "/api/resolve-cache' log)
    before=$(wc -l <log)
    HF_HUB_OFFLINE=1 load
    [ "$(wc -l <log)" = "$before" ] || fail "offline, and yet the Hub was asked"
    load
    fetched 0 "the program after the client"
    client read acme/base base

    # The client is fetching the same file just now: its lock is waited for, its unfinished file is not touched.
    rm -rf home/theirs
    blob=$(sha256sum <base/model.safetensors | cut -d' ' -f1)
    place=home/theirs/hub/models--acme--base locks=home/theirs/hub/.locks/models--acme--base
    mkdir -p "$place/blobs" "$locks"
    printf theirs >"$place/blobs/$blob.incomplete"
    (
        flock 9
        touch held
        sleep 2
        cmp -s <(printf theirs) "$place/blobs/$blob.incomplete" && touch untouched
        cp base/model.safetensors "$place/blobs/$blob.tmp"
        rm -f "$place/blobs/$blob.incomplete"
        mv "$place/blobs/$blob.tmp" "$place/blobs/$blob"
    ) 9>"$locks/$blob.lock" &
    holder=$!
    while [ ! -e held ]; do sleep 0.05; done
    load
    wait $holder
    [ -e untouched ] || fail "the client's unfinished file was written to ($version)"
    rm -f held untouched
    fetched $((files - 1)) "the program beside a client"
    client read acme/base base
    hub_stop
    echo "huggingface_hub $version: shared both ways"
done
