#!/bin/bash
# hosts.sh PROGRAM REPOSITORY MPIEXEC: the same run over several hosts gives the bytes of one host; nobody but rank 0 needs the
# model, the data or the output; a rank that dies on another host ends the run, and a host that is cut off is named in time.
. "$(dirname "$0")/lib.sh"
steps=40
common=(--set model=model-qwen3 --set "max_steps=$steps" --set batch_train=8 --set grad_accum=1 --set eval_steps=15
    --set save_steps=1 --set keep_checkpoints=3 --set lr=1e-3 --set max_seq_len=256 --set comm_timeout=5s --stage 1)
need_model qwen3
expect 0 1 straight
hosts_up 4

finished() {
    same_state straight/stage1_mlm "$1/stage1_mlm" "$steps"
    same_log straight/stage1_mlm "$1/stage1_mlm"
    printf '%-40s adapter %.8s  optimizer %.8s\n' "$2" "$(hash_of "$1/stage1_mlm/checkpoint-$steps/adapter_model.safetensors")" \
        "$(hash_of "$1/stage1_mlm/checkpoint-$steps/optimizer.pt")"
}
finished straight 'one host, 1 rank'

for n in 2 4 8; do
    mkdir "w$n"
    expect_over_hosts 0 "$n" --hide "$work/model-qwen3" --hide "$work/data.json" --hide "$work/w$n" -- "w$n"
    says "^ranks +$n on $((n < 4 ? n : 4)) hosts"
    finished "w$n" "$((n < 4 ? n : 4)) hosts, $n ranks"
done
# The hiding itself works: without the model on node1 too, nothing can be trained.
mkdir hidden
expect_over_hosts 3 2 --hide "node1:$work/model-qwen3" -- hidden
says 'error: .*model-qwen3'

# begin DIR RANKS: starts and waits until the first checkpoint is there.
begin() {
    start_over_hosts "$2" --fast-fail -- "$1"
    wait_for_step "$1/stage1_mlm" 3
}
rank_on() { # rank_on HOST: the process of a rank there
    "$tools/netns.sh" ps "$1" | awk -v p="$smgpt" '$3 == p { print $2 }' | head -n 1
}

begin killed 4
kill -9 "$(rank_on node3)" || fail "no rank on node3"
ended 30
[ "$code" -ne 0 ] && [ "$code" -ne 124 ] || fail "rank killed on node3: exit code $code"
wait_until 10 "all ranks are gone" sh -c "! '$tools/netns.sh' ps | grep -qF '$smgpt'"
expect_over_hosts 0 3 -- killed
says "resuming from killed/stage1_mlm/checkpoint-"
finished killed 'rank killed on node3, then 3 hosts'

begin asked 4
kill -USR1 "$(rank_on node2)" || fail "no rank on node2"
ended 30
[ "$code" = 85 ] || fail "SIGUSR1 to a rank on node2: exit code $code, not 85"
expect_over_hosts 0 2 -- asked
finished asked 'stopped on node2, then 2 hosts'

begin cut 4
since=$SECONDS
"$tools/netns.sh" cut node3
wait_until 20 "the silent host is named" grep -q 'nothing heard for 5 s from .*rank 2 on node3' err
echo "cut host: named after $((SECONDS - since)) s (comm_timeout 5 s)"
gone() { # gone HOST...: no rank is left there
    local h
    for h in "$@"; do
        [ -z "$(rank_on "$h")" ] || return 1
    done
}
wait_until 10 "the ranks on the other hosts end" gone node1 node2 node4
# Open MPI's mpirun now waits for the cut host, often for ever; a second SIGTERM ends it.
kill -TERM "$launcher" 2>/dev/null
sleep 1
kill -TERM "$launcher" 2>/dev/null
ended 20
[ "$code" -ne 0 ] && [ "$code" -ne 124 ] || fail "host cut off: exit code $code"
"$tools/netns.sh" heal node3
expect_over_hosts 0 2 -- cut
says "resuming from cut/stage1_mlm/checkpoint-"
finished cut 'node3 cut off, then 2 hosts'

begin short 4
"$tools/netns.sh" cut node2
sleep 2
"$tools/netns.sh" heal node2
ended 90
[ "$code" = 0 ] || fail "cut off for 2 s only: exit code $code"
finished short 'node2 cut off for 2 s'
finish
