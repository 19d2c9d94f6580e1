#!/bin/bash
# slurm.sh PROGRAM REPOSITORY MPIEXEC: slurm/train.sbatch on a real Slurm of three small nodes: asked to stop (by a signal, by
# its time limit) the job saves, goes back into the queue and ends with the bytes of the run that nobody disturbed;
# cancelled, it stays away; the loss of a node does not end it.
. "$(dirname "$0")/lib.sh"
steps=60
common=(--set model=model-qwen3 --set "max_steps=$steps" --set batch_train=8 --set grad_accum=1 --set eval_steps=25
    --set lr=1e-3 --set max_seq_len=256 --stage 1)
log=stage1_mlm/train_log.jsonl
need_model qwen3
expect 0 2 straight
: >err # what follows has logs of its own
got=0
"$tools/slurm.sh" up 3 --share "$work" >up.log 2>&1 || got=$?
[ "$got" != 77 ] || skip "$(tail -n 1 up.log)"
[ "$got" = 0 ] || {
    cat up.log
    fail "no Slurm: $got"
    finish
}
slurm() {
    "$tools/slurm.sh" "$@"
}
export SMGPT_PROGRAM=$smgpt

# submit DIR LAUNCHER OPTIONS-OF-sbatch... -- ARGS...: sets job.
submit() {
    local dir=$1 launcher=$2 options=()
    shift 2
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    count=$((count + 1))
    job=$(SMGPT_LAUNCHER=$launcher slurm sbatch --parsable "${options[@]}" --output="$dir.log" \
        "$job_script" --set "work_dir=$dir" --set "data_json=$data" "${common[@]}" "$@" 2>sbatch.log) || {
        cat sbatch.log
        fail "sbatch: $dir"
        finish
    }
}
lines() { # lines FILE N: it has so many
    [ "$(cat "$1" 2>/dev/null | wc -l)" -ge "$2" ]
}
state_is() { # state_is PATTERN: of the job
    slurm scontrol -o show job "$job" 2>/dev/null | grep -qE "JobState=($1) "
}
field() {
    slurm scontrol -o show job "$job" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}
# over DIR CODE: the job is over with this exit code.
over() {
    local got=0
    slurm wait "$job" 150 2>/dev/null || got=$?
    [ "$got" = "$2" ] || {
        fail "$1: the job ended with $got, not $2"
        tail -n 15 "$1.log" | cut -c 1-200
    }
}
# same DIR RESTARTS HOW
same() {
    same_state straight/stage1_mlm "$1/stage1_mlm" "$steps"
    same_log straight/stage1_mlm "$1/stage1_mlm"
    [ "$(field Restarts)" = "$2" ] || fail "$1: $(field Restarts) restarts, not $2"
    printf '%-45s %s restarts, adapter %.8s\n' "$3" "$2" "$(hash_of "$1/stage1_mlm/checkpoint-$steps/adapter_model.safetensors")"
}

# ---- asked to stop, twice ----
submit asked mpirun --nodes=2 --ntasks-per-node=2 --
wait_until 40 "12 lines of asked" lines "asked/$log" 12
slurm scancel --batch --signal=USR1 "$job"
wait_until 40 "35 lines of asked" lines "asked/$log" 35
slurm scancel --batch --signal=USR1 "$job"
over asked 0
same asked 2 'mpirun, 2 nodes x 2 ranks, SIGUSR1 twice'
grep -q 'the ranks ended with 85; back in the queue, restart 2' asked.log || fail "asked.log does not speak of the requeue"

# ---- the same by srun, whose ranks now and then do not come up with these packages: three tries ----
for try in 1 2 3; do
    rm -rf by-srun
    submit by-srun srun --nodes=3 --ntasks-per-node=1 --cpus-per-task=2 --
    for ((i = 0; i < 300; i++)); do
        if lines "by-srun/$log" 10 || ! state_is 'PENDING|RUNNING|CONFIGURING'; then break; fi
        sleep 0.1
    done
    slurm scancel --batch --signal=USR1 "$job" 2>/dev/null
    got=0
    slurm wait "$job" 100 2>/dev/null || got=$?
    [ "$got" != 0 ] || break
    echo "srun: try $try ended with $got"
done
[ "$got" = 0 ] || fail "srun: three tries failed, the last with $got: $(tail -n 5 by-srun.log)"
grep -q '2 threads each' by-srun.log || fail "srun: --cpus-per-task does not set the threads"
same by-srun 1 'srun, 3 nodes x 1 rank x 2 threads, SIGUSR1'

# ---- cancelled: saved, and not put back ----
submit cancelled mpirun --nodes=1 --ntasks-per-node=2 --
wait_until 40 "20 lines of cancelled" lines "cancelled/$log" 20
slurm scancel "$job"
wait_until 30 "the job is cancelled" state_is CANCELLED
sleep 2
state_is CANCELLED || fail "the cancelled job came back"
submit cancelled mpirun --nodes=3 --ntasks-per-node=1 --
over cancelled 0
same cancelled 0 'cancelled on 1 node, submitted again on 3'

# ---- a run that starts over: only once ----
submit anew mpirun --nodes=1 --ntasks-per-node=2 -- --resume none
wait_until 40 "12 lines of anew" lines "anew/$log" 12
slurm scancel --batch --signal=USR1 "$job"
over anew 0
same anew 1 '--resume none, SIGUSR1'

# ---- what is wrong is not tried again ----
submit wrong mpirun --nodes=1 --ntasks-per-node=1 -- --set lr=-1
over wrong 2
[ "$(field Restarts)" = 0 ] || fail "a wrong option was tried again"

# ---- the time limit: Slurm looks every 30 s, so all ranks are held up until it has warned ----
submit limited mpirun --nodes=2 --ntasks-per-node=1 --time=1 --signal=B:USR1@20 -- --set comm_timeout=100s
wait_until 40 "10 lines of limited" lines "limited/$log" 10
held=$("$tools/netns.sh" ps | awk -v p="$smgpt" '$3 == p { print $2 }')
kill -STOP $held
wait_until 75 "Slurm's warning" grep -q 'orwarding signal 10' limited.log
kill -CONT $held
over limited 0
same limited 1 'time limit of a minute'

# ---- a node is lost ----
submit lost mpirun --nodes=3 --ntasks-per-node=1 -- --set save_steps=1
wait_until 40 "10 lines of lost" lines "lost/$log" 10
"$tools/netns.sh" cut node3
wait_until 90 "the job goes back into the queue" state_is PENDING
"$tools/netns.sh" heal node3
over lost 0
restarts=$(field Restarts)
[ "$restarts" -ge 1 ] || fail "the loss of a node: no restart"
for f in adapter_model.safetensors optimizer.pt; do
    cmp -s "straight/stage1_mlm/checkpoint-$steps/$f" "lost/stage1_mlm/checkpoint-$steps/$f" || fail "lost: $f differs"
done
same_log straight/stage1_mlm lost/stage1_mlm
printf '%-45s %s restarts\n' 'node3 cut off and back' "$restarts"
finish
