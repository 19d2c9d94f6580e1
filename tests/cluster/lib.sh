# shellcheck shell=bash
# Helpers of the scripts beside, on top of those of tests/e2e; sourced with: PROGRAM REPOSITORY MPIEXEC. The hosts are network
# namespaces of this machine, made by the tools in $SMGPT_SHARED/tools/cluster (root needed); without them: exit 77.
. "$(dirname "$0")/../e2e/lib.sh"
tools=${SMGPT_SHARED:-$repo/../shared}/tools/cluster
skip() {
    echo "skipped: $*"
    exit 77
}
[ -x "$tools/netns.sh" ] || skip "no tools for several hosts in $tools (SMGPT_SHARED)"
[ "$(id -u)" = 0 ] || skip "several hosts on one machine need root"

# Each host has a /dev/shm and a /tmp of its own: no folder of ours there.
unset OMPI_MCA_btl_vader_backing_directory OMPI_MCA_osc_sm_backing_directory OMPI_MCA_orte_tmpdir_base
rm -rf "$shm"
shm=$work/shm
# Short: it holds Unix sockets. Shared by all hosts, as is $work.
export CLUSTER_DIR=$work/c
# Program and repository may lie below the machine's own /tmp, which the hosts do not see.
cp "$smgpt" smgpt-dist && smgpt=$work/smgpt-dist
cp "$data" data.json && data=$work/data.json
cp "$repo/slurm/train.sbatch" train.sbatch && job_script=$work/train.sbatch

hosts_down() {
    "$tools/slurm.sh" down >/dev/null 2>&1
    "$tools/netns.sh" down >/dev/null 2>&1
}
trap 'hosts_down; clean_up' EXIT

# hosts_up N: node1 .. nodeN.
hosts_up() {
    local got=0
    "$tools/netns.sh" up "$1" --share "$work" >up.log 2>&1 || got=$?
    [ "$got" != 77 ] || skip "$(tail -n 1 up.log)"
    [ "$got" = 0 ] || {
        cat up.log
        fail "no hosts: $got"
        finish
    }
}

# over_hosts N OPTIONS-OF-mpirun_hosts.sh... -- WORK_DIR ARGS...: N ranks dealt round over the hosts, rank 0 on node1.
# start_over_hosts: the same in the background.
hosts_command() {
    local n=$1 dir options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    dir=$2
    shift 2
    command=("$tools/mpirun_hosts.sh" "${options[@]}" -np "$n" -x OMP_NUM_THREADS "$smgpt" train --set "work_dir=$dir"
        --set "data_json=$data" "${common[@]}" "$@")
}
over_hosts() {
    hosts_command "$@"
    count=$((count + 1))
    "${command[@]}" >out 2>err </dev/null
}
start_over_hosts() {
    hosts_command "$@"
    count=$((count + 1))
    "${command[@]}" >out 2>err </dev/null &
    launcher=$!
    started=("$launcher")
}
expect_over_hosts() { # CODE, then as over_hosts
    local want=$1 got=0
    shift
    over_hosts "$@" || got=$?
    [ "$got" -eq "$want" ] || fail "exit code $got instead of $want: $*"
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
    local i limit=$1 what=$2
    shift 2
    for ((i = 0; i < limit * 10; i++)); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    fail "not in $limit s: $what"
    return 1
}
