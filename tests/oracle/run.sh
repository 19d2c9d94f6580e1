#!/bin/sh
# Runs a check of this directory with the environment's Python; 77 and a line where there is none.
# Usage: run.sh VENV SCRIPT ARGS...
set -eu
venv=$1
script=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/venv.sh" "$venv" || exit $?
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore HF_HUB_OFFLINE=1
exec "${SMGPT_ORACLE_PYTHON:-$venv/bin/python}" "$here/$script" "$@"
