#!/bin/sh
# check_faults.sh MPIEXEC PROGRAM: what is said when a rank stops, goes astray, fails, or was started by a
# launcher of another MPI. Ends with the first thing that is not as expected.
mpiexec=$1
program=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT

fail() {
    echo "$1"
    cat "$out"
    exit 1
}

# expect CASE RANKS EXIT-CODE TEXT
expect() {
    timeout 60 "$mpiexec" -np "$2" "$program" "$1" >"$out" 2>&1
    code=$?
    [ "$code" = "$3" ] || fail "$1: exit code $code, expected $3"
    [ -z "$4" ] || grep -q "$4" "$out" || fail "$1: nothing like \"$4\" was said"
}

expect open 3 0 ''
expect stop 3 4 'nothing heard for 1 s from rank 2 on .* (barrier, operation 1)'
grep -q 'from rank 1 on' "$out" && fail "stop: a rank that only waits was blamed"
expect apart 2 1 'ranks wait for each other: rank [01] on '
expect agree 3 3 'all end: rank 2 on [^ ]*: tensor "a" is missing'

env PMI_SIZE=4 "$program" open >"$out" 2>&1
code=$?
[ "$code" = 4 ] || fail "wrong launcher: exit code $code, expected 4"
grep -q 'started 4 processes, but MPI sees this one alone' "$out" || fail "wrong launcher: not said"
exit 0
