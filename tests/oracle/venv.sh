#!/bin/sh
# Makes the environment of this directory's checks in VENV, from PyPI, once. Ends with 77 and a line when it cannot be had.
# SMGPT_ORACLE_PYTHON names the interpreter of one that is there already; then nothing is made.
# Usage: venv.sh VENV
set -eu
venv=$1
here=$(cd "$(dirname "$0")" && pwd)
wanted='import torch, transformers, peft, accelerate, bitsandbytes, h5py, safetensors'
if [ -n "${SMGPT_ORACLE_PYTHON:-}" ]; then
    "$SMGPT_ORACLE_PYTHON" -c "$wanted" 2> /dev/null || {
        echo "SMGPT_ORACLE_PYTHON=$SMGPT_ORACLE_PYTHON lacks one of: ${wanted#import }"
        exit 1
    }
    exit 0
fi
done_with=$venv/requirements.txt # copied last
! cmp -s "$here/requirements.txt" "$done_with" || exit 0

give_up() {
    echo "skipped: $1"
    [ ! -s "$venv.log" ] || tail -n 3 "$venv.log"
    exit 77
}
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || give_up "no python3 of version 3.11 or later"
mkdir -p "$(dirname "$venv")"
: > "$venv.log"
free_mb=$(df -Pm "$(dirname "$venv")" | awk 'NR == 2 { print $4 }')
[ "$free_mb" -gt 9000 ] || give_up "the Python libraries take 6 GB, $free_mb MB are free at $venv"
exec 9> "$venv.lock"
flock 9
! cmp -s "$here/requirements.txt" "$done_with" || exit 0
rm -rf "$venv"
python3 -m venv "$venv" >> "$venv.log" 2>&1 || give_up "python3 has no module venv (package python3-venv)"
# A look first: where there is no PyPI, it should not take minutes to notice.
pip_install() { # SECONDS ARGS...
    seconds=$1
    shift
    timeout "$seconds" "$venv/bin/pip" --disable-pip-version-check --retries 1 --timeout 20 -q install "$@" >> "$venv.log" 2>&1
}
pip_install 90 "$(grep '^numpy==' "$here/requirements.txt")" || give_up "PyPI is out of reach"
# The CPU build, where pip knows a place that has it; the one of PyPI brings 4 GB of GPU libraries along.
pip_install 600 "$(grep '^torch==' "$here/requirements.txt")+cpu" || true
pip_install 1500 -r "$here/requirements.txt" || give_up "not all of requirements.txt can be installed from PyPI"
"$venv/bin/python" -c "$wanted" >> "$venv.log" 2>&1 || give_up "the libraries are there, but cannot be loaded"
cp "$here/requirements.txt" "$done_with"
