#!/bin/bash
# same_bytes.sh PROGRAM REPOSITORY MPIEXEC [WIDE]: the checkpoints of a run hold the same bytes on any number of ranks and
# threads, in float32 and bfloat16; 20 rows a step, which 8 shards share unevenly. Prints a table. WIDE (all families, threads
# and 8 ranks) or else the part that every build runs. SMGPT_CPU_PATH pins the instruction set.
. "$(dirname "$0")/lib.sh"
wide=${4:-}
common=(--set max_steps=4 --set save_steps=2 --set batch_train=4 --set grad_accum=5 --set eval_steps=3
    --set keep_checkpoints=9 --set lr=1e-3 --set max_seq_len=256
    --set "cpu_path=${SMGPT_CPU_PATH:-auto}")

case ${SMGPT_CPU_PATH:-} in
    avx2) flag=avx2 ;;
    avx512) flag=avx512bw ;;
    avx512_bf16) flag=avx512_bf16 ;;
    amx) flag=amx_bf16 ;;
    *) flag=fpu ;;
esac
grep -qw "$flag" /proc/cpuinfo || {
    echo "skipped: this processor has no $flag"
    exit 77
}

# row FAMILY COMPUTE RANKS THREADS: runs, prints a line and compares with the first run of family and compute.
row() {
    local family=$1 compute=$2 n=$3 threads=$4 stage step f line="" dir=$1-$2-$3-$4 one=$1-$2-1-1 first
    OMP_NUM_THREADS=$threads expect 0 "$n" "$dir" --set "model=model-$family" --set "compute=$compute"
    for stage in stage1_mlm stage2_multitask stage3_t2m_sft; do
        for step in 2 4; do
            for f in adapter_model.safetensors optimizer.pt; do
                first=$one/$stage/checkpoint-$step/$f
                [ "$(hash_of "$dir/$stage/checkpoint-$step/$f")" = "$(hash_of "$first")" ] && [ -s "$first" ] ||
                    fail "$family in $compute on $n ranks, $threads threads: $stage/checkpoint-$step/$f has other bytes"
            done
        done
        [ "$dir" = "$one" ] || same_log "$one/$stage" "$dir/$stage"
        f=$dir/$stage/checkpoint-4
        line="$line  $(hash_of "$f/adapter_model.safetensors" | cut -c 1-8) $(hash_of "$f/optimizer.pt" | cut -c 1-8)"
    done
    printf '%-12s %-9s %5s %7s%s\n' "$family" "$compute" "$n" "$threads" "$line"
    [ "$dir" = "$one" ] || rm -rf "$dir"
}

printf '%-12s %-9s %5s %7s  %-17s  %-17s  %-17s\n' model compute ranks threads 'stage 1' 'stage 2' 'stage 3'
printf '%-12s %-9s %5s %7s  %-17s  %-17s  %-17s\n' '' '' '' '' 'adapter  optim.' 'adapter  optim.' 'adapter  optim.'
if [ -n "$wide" ]; then
    for family in qwen3 llama gemma3_text; do
        need_model "$family"
        for compute in float32 bfloat16; do
            for n in 1 2 3 4 8; do
                for threads in 1 2; do
                    [ "$n" != 8 ] || [ "$family" = qwen3 ] || [ "$threads" = 1 ] || continue
                    row "$family" "$compute" "$n" "$threads"
                done
            done
        done
    done
else
    for compute in float32 bfloat16; do
        for family in qwen3 gemma3_text; do
            need_model "$family"
            row "$family" "$compute" 1 1
            row "$family" "$compute" 2 2
            [ "$compute" = bfloat16 ] || row "$family" "$compute" 4 1
        done
    done
fi
# What all rows of a step or of a shard begin with is computed once: that changes the order of sums and nothing else.
expect 0 1 apart --set model=model-qwen3 --set compute=float32 --set share_prefix=false
for stage in stage1_mlm stage2_multitask stage3_t2m_sft; do
    paste <(grep -oE '"(loss|grad_norm)":[^,]*' "qwen3-float32-1-1/$stage/train_log.jsonl" | cut -d : -f 2) \
        <(grep -oE '"(loss|grad_norm)":[^,]*' "apart/$stage/train_log.jsonl" | cut -d : -f 2) |
        awk 'function abs(x) { return x < 0 ? -x : x }
             { n++; differ += $1 != $2; bad += !(abs($1 - $2) <= 3e-5 * abs($2)) }
             END { exit !(n == 8 && bad == 0 && differ > 0) }' ||
        fail "$stage: another loss or norm with prefixes apart"
done
cmp -s "qwen3-float32-1-1/stage3_t2m_sft/checkpoint-4/optimizer.pt" apart/stage3_t2m_sft/checkpoint-4/optimizer.pt &&
    fail "prefixes shared and apart train to the same bytes: nothing is shared"
# Losses that do not change would be equal without meaning anything.
[ "$(grep -o '"loss":[^,]*' qwen3-float32-1-1/stage1_mlm/train_log.jsonl | sort -u | wc -l)" -ge 3 ] || fail "the loss does not move"
cmp -s qwen3-float32-1-1/stage1_mlm/checkpoint-2/optimizer.pt qwen3-float32-1-1/stage1_mlm/checkpoint-4/optimizer.pt &&
    fail "steps 2 and 4 have the same optimizer"
# Of bfloat16 something must be seen, or both modes were one.
cmp -s qwen3-float32-1-1/stage1_mlm/checkpoint-4/optimizer.pt qwen3-bfloat16-1-1/stage1_mlm/checkpoint-4/optimizer.pt &&
    fail "float32 and bfloat16 train to the same bytes"
finish
