#!/bin/bash
# memory_limit.sh PROGRAM REPOSITORY MPIEXEC: below a limit that makes layers be computed again on the way back, the
# checkpoints of two ranks hold the same bytes as those of one with all activations kept; a limit that is too small is
# refused with the number that is enough.
. "$(dirname "$0")/lib.sh"
common=(--stage 1 --set max_steps=2 --set save_steps=1 --set batch_train=16 --set grad_accum=2 --set virtual_shards=2
    --set eval_steps=0 --set lr=1e-3 --set max_seq_len=256 --set keep_checkpoints=9)
again='layers are computed again on the way back'

for family in qwen3 llama gemma3_text; do
    need_model "$family"
    for compute in float32 bfloat16; do
        options=(--set "model=model-$family" --set "compute=$compute")
        kept=$family-$compute
        expect 0 1 "$kept" "${options[@]}"
        grep -q "$again" err && fail "layers are computed again without a limit"
        expect 4 2 refused "${options[@]}" --set memory_limit=1M
        says 'memory_limit is 1 MiB on .*training takes [0-9]+ MiB'
        enough=$(sed -n 's/.*set memory_limit to \([0-9]*\)M or more.*/\1/p' err | head -n 1)
        [ -n "$enough" ] || {
            fail "no number is named"
            finish
        }
        # Libraries do not take the same to the page each time.
        expect 0 2 "$kept-again" "${options[@]}" --set "memory_limit=$((enough + 4))M"
        says "^memory  [1-9] of [0-9]+ $again"
        for step in 1 2; do same_state "$kept/stage1_mlm" "$kept-again/stage1_mlm" "$step"; done
        same_log "$kept/stage1_mlm" "$kept-again/stage1_mlm"
        cmp -s "$kept"/stage1_mlm/checkpoint-{1,2}/optimizer.pt && fail "steps 1 and 2 have the same optimizer"
    done
done
finish
