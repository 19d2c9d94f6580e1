#!/bin/sh
# Every recorded run of transformers + PEFT within its limits, float32 and, where it is recorded, bfloat16.
program=$1
golden=${SMGPT_SHARED:-$2/../shared}/golden
if [ ! -d "$golden" ]; then
    echo "skipped: no records in $golden"
    exit 77
fi
bad=0
count=0
for dir in "$golden"/*/; do
    [ -f "$dir/train.jsonl" ] || continue
    for compute in float32 bfloat16; do
        [ $compute = float32 ] || [ -f "$dir/train_bf16.jsonl" ] || continue
        count=$((count + 1))
        echo "== $(basename "$dir") $compute"
        "$program" verify --against "$dir" --set compute=$compute 2>err.$$ || {
            tail -n 2 err.$$
            bad=$((bad + 1))
        }
    done
done
rm -f err.$$
echo "$count comparisons, $bad over their limits"
[ "$count" -gt 0 ] && [ "$bad" -eq 0 ]
