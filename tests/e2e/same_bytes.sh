#!/bin/bash
# same_bytes.sh PROGRAM REPOSITORY MPIEXEC [WIDE]: the checkpoints of a run hold the same bytes on any number of ranks and
# threads. Prints a table. WIDE (all families, threads and 8 ranks) or else the part that every build runs.
. "$(dirname "$0")/lib.sh"
wide=${4:-}
common=(--set max_steps=4 --set save_steps=2 --set batch_train=4 --set grad_accum=2 --set eval_steps=3
    --set keep_checkpoints=9 --set lr=1e-3 --set max_seq_len=256)

# row FAMILY RANKS THREADS CONTRACT...: runs, prints a line and compares with the first run of the family.
row() {
    local family=$1 n=$2 threads=$3 stage step f line="" dir=$1-$2-$3 first
    OMP_NUM_THREADS=$threads expect 0 "$n" "$dir" --set "model=model-$family"
    for stage in stage1_mlm stage2_multitask stage3_t2m_sft; do
        for step in 2 4; do
            for f in adapter_model.safetensors optimizer.pt; do
                first=$family-1-1/$stage/checkpoint-$step/$f
                [ "$(hash_of "$dir/$stage/checkpoint-$step/$f")" = "$(hash_of "$first")" ] && [ -s "$first" ] ||
                    fail "$family on $n ranks, $threads threads: $stage/checkpoint-$step/$f has other bytes"
            done
        done
        [ "$dir" = "$family-1-1" ] || same_log "$family-1-1/$stage" "$dir/$stage"
        f=$dir/$stage/checkpoint-4
        line="$line  $(hash_of "$f/adapter_model.safetensors" | cut -c 1-8) $(hash_of "$f/optimizer.pt" | cut -c 1-8)"
    done
    printf '%-12s %5s %7s%s\n' "$family" "$n" "$threads" "$line"
    [ "$dir" = "$family-1-1" ] || rm -rf "$dir"
}

printf '%-12s %5s %7s  %-17s  %-17s  %-17s\n' model ranks threads 'stage 1' 'stage 2' 'stage 3'
printf '%-12s %5s %7s  %-17s  %-17s  %-17s\n' '' '' '' 'adapter  optim.' 'adapter  optim.' 'adapter  optim.'
if [ -n "$wide" ]; then
    for family in qwen3 llama gemma3_text; do
        need_model "$family"
        for n in 1 2 3 4 8; do
            for threads in 1 2; do
                [ "$n" != 8 ] || [ "$family" = qwen3 ] || continue
                row "$family" "$n" "$threads"
            done
        done
    done
else
    for family in qwen3 gemma3_text; do
        need_model "$family"
        row "$family" 1 1
        row "$family" 2 2
        row "$family" 4 1
    done
fi
# Losses that do not change would be equal without meaning anything.
[ "$(grep -o '"loss":[^,]*' qwen3-1-1/stage1_mlm/train_log.jsonl | sort -u | wc -l)" -ge 3 ] || fail "the loss does not move"
cmp -s qwen3-1-1/stage1_mlm/checkpoint-2/optimizer.pt qwen3-1-1/stage1_mlm/checkpoint-4/optimizer.pt &&
    fail "steps 2 and 4 have the same optimizer"
finish
