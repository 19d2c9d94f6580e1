#!/bin/sh
# The real huggingface_hub, three versions from PyPI, against the test Hub: what other people's client accepts is what our own
# client is tested with. Skips where PyPI is out of reach.
# Usage: client.sh VENV-DIRECTORY
set -eu
venvs=$1
. "$(dirname "$0")/lib.sh"

for version in 0.36.2 1.33.0 2.4.0; do
    sh "$hub_here/venv.sh" "$venvs" "$version" || exit $?
done
for version in 0.36.2 1.33.0 2.4.0; do
    rm -rf "$tmp/state" "$tmp/home"
    mkdir "$tmp/home"
    hub_start --chunk 1000000 --page 3
    printf 'x' > "$tmp/home/x"
    mkdir "$tmp/gated" && printf '{}' > "$tmp/gated/config.json"
    seed acme/gated "$tmp/gated" '"gated": true' > /dev/null
    rm -rf "$tmp/gated"
    env -u HF_TOKEN HF_HOME="$tmp/home" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 no_proxy=127.0.0.1,localhost \
        "$venvs/hub-$version/bin/python" "$hub_here/client.py" || fail "huggingface_hub $version"
    hub_stop
    grep -q '"phase": "put"' "$tmp/log" || fail "nothing was sent to the store"
    grep -q '"phase": "complete"' "$tmp/log" || fail "no multipart upload happened"
done
