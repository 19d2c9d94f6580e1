#!/bin/sh
# Makes VENVS/hub-VERSION with that huggingface_hub from PyPI, once. Ends with 77 and a line if it cannot be had.
set -eu
venvs=$1
version=$2
place=$venvs/hub-$version
[ ! -f "$place/done" ] || exit 0
mkdir -p "$venvs"
exec 9> "$venvs/lock"
flock 9
[ ! -f "$place/done" ] || exit 0
rm -rf "$place"
python3 -m venv "$place" 2> /dev/null && timeout 240 "$place/bin/pip" install -q --disable-pip-version-check --retries 1 \
    --timeout 15 "huggingface_hub==$version" > "$place/log" 2>&1 || {
    echo "skipped: huggingface_hub $version cannot be installed from PyPI"
    exit 77
}
touch "$place/done"
