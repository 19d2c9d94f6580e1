#!/bin/bash
# cache.sh PROGRAM REPOSITORY VENV-DIRECTORY: the cache of models is huggingface_hub's: what the program put there Python finds
# without the network, and the other way round.
program=$1
repository=$2
venvs=$3
. "$(dirname "$0")/lib.sh"
model=${SMGPT_SHARED:-$repository/../shared}/data/stories260k
[ -d "$model" ] || {
    echo "skipped: no model in $model (SMGPT_SHARED)"
    exit 77
}
version=1.33.0
sh "$hub_here/venv.sh" "$venvs" $version || exit $?
python=$venvs/hub-$version/bin/python

hub_start
cd "$tmp" || exit 1
export HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 no_proxy=127.0.0.1,localhost
mkdir base && cp "$model"/*.json "$model"/*.safetensors base/
seed acme/base base '"private": false' >/dev/null
make_pack() { # HOME OUT
    HF_HOME=$tmp/$1 "$program" pack --model acme/base --data "$repository/configs/sample/gestures.json" --out "$2" >out 2>err ||
        fail "pack: $(cat err)"
}

make_pack ours p1
HF_HOME=$tmp/ours HF_HUB_OFFLINE=1 "$python" - <<'PY' || fail "huggingface_hub does not find what the program put there"
import os
from huggingface_hub import hf_hub_download, scan_cache_dir
for name in ("config.json", "tokenizer.json", "model.safetensors"):
    path = hf_hub_download("acme/base", name)
    assert open(path, "rb").read() == open("base/" + name, "rb").read(), name
found = scan_cache_dir()
assert not found.warnings and [r.repo_id for r in found.repos] == ["acme/base"], found
PY

HF_HOME=$tmp/theirs "$python" -c 'from huggingface_hub import snapshot_download; snapshot_download("acme/base")' >out 2>&1 ||
    fail "snapshot_download: $(cat out)"
before=$(wc -l <log)
HF_HUB_OFFLINE=1 make_pack theirs p2
[ "$(wc -l <log)" = "$before" ] || fail "offline, and yet the Hub was asked"
make_pack theirs p3
tail -n +$((before + 1)) log | grep -E '"phase": "(get|regular|cdn)"' && fail "what Python put there was fetched again"
hub_stop
