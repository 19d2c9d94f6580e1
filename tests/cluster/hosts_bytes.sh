#!/bin/bash
# hosts_bytes.sh PROGRAM REPOSITORY MPIEXEC: three families in both compute modes on 1, 2 and 4 hosts: three stages with the
# bytes of one process. Prints a table.
. "$(dirname "$0")/lib.sh"
common=(--set max_steps=4 --set save_steps=2 --set batch_train=4 --set grad_accum=5 --set eval_steps=3
    --set keep_checkpoints=9 --set lr=1e-3 --set max_seq_len=256)
for family in qwen3 llama gemma3_text; do need_model "$family"; done
hosts_up 4

# compare DIR ONE LABEL...
compare() {
    local dir=$1 one=$2 stage step f line="" first
    shift 2
    for stage in stage1_mlm stage2_multitask stage3_t2m_sft; do
        for step in 2 4; do
            for f in adapter_model.safetensors optimizer.pt; do
                first=$one/$stage/checkpoint-$step/$f
                [ "$(hash_of "$dir/$stage/checkpoint-$step/$f")" = "$(hash_of "$first")" ] && [ -s "$first" ] ||
                    fail "$*: $stage/checkpoint-$step/$f has other bytes"
            done
        done
        [ "$dir" = "$one" ] || same_log "$one/$stage" "$dir/$stage"
        f=$dir/$stage/checkpoint-4
        line="$line  $(hash_of "$f/adapter_model.safetensors" | cut -c 1-8) $(hash_of "$f/optimizer.pt" | cut -c 1-8)"
    done
    printf '%-12s %-9s %5s %5s %7s%s\n' "$@" "$line"
}

printf '%-12s %-9s %5s %5s %7s  %-17s  %-17s  %-17s\n' model compute hosts ranks threads 'stage 1' 'stage 2' 'stage 3'
for family in qwen3 llama gemma3_text; do
    for compute in float32 bfloat16; do
        run=(--set "model=model-$family" --set "compute=$compute")
        one=$family-$compute-one
        OMP_NUM_THREADS=1 expect 0 1 "$one" "${run[@]}"
        compare "$one" "$one" "$family" "$compute" 1 1 1
        for shape in '2 2 1' '4 4 2' '4 8 1'; do
            read -r hosts ranks threads <<<"$shape"
            mkdir "$family-$compute-$ranks"
            OMP_NUM_THREADS=$threads expect_over_hosts 0 "$ranks" --hide "$work/model-$family" --hide "$work/data.json" \
                --hide "$work/$family-$compute-$ranks" -- "$family-$compute-$ranks" "${run[@]}"
            says "^ranks +$ranks on $hosts hosts"
            compare "$family-$compute-$ranks" "$one" "$family" "$compute" "$hosts" "$ranks" "$threads"
            rm -rf "$family-$compute-$ranks"
        done
    done
done
cmp -s qwen3-float32-one/stage1_mlm/checkpoint-4/optimizer.pt qwen3-bfloat16-one/stage1_mlm/checkpoint-4/optimizer.pt &&
    fail "float32 and bfloat16 train to the same bytes"
finish
