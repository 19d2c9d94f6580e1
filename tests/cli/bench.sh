#!/bin/sh
# bench: the figures are there and fit together, and its steps are those of training, bit by bit.
. "$(dirname "$0")/lib.sh"

run 0 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 1 --out model
cat >smgpt.json <<'END'
{"model": "model", "max_steps": 4, "batch_train": 8, "grad_accum": 1, "virtual_shards": 2, "lora_r": 2, "threads": 1, "lr": 1e-3, "eval_steps": 0}
END
data="data_json=$repo/configs/sample/gestures.json"

run 0 bench --set "$data" --stage 1 --steps 3 --warmup 1 --json b.json
prints 'best rate of products'
prints 'linear_back'
[ ! -d stage1_mlm ] || fail "bench left a stage's directory"
for key in format machine model work step_seconds examples_per_second tokens_per_second label_tokens_per_second \
    computed_tokens_per_second peak_rss_bytes start_to_first_step_seconds ceiling_gflops needed_gflop_a_step \
    part_of_bound operations outside_operations_seconds products other_cpus losses grad_norms; do
    grep -q "\"$key\":" b.json || fail "b.json has no $key"
done
# the number behind a key that stands once
number() {
    sed -n "s/^ *\"$1\": \\([-+0-9.eE]*\\),*\$/\\1/p" b.json
}
awk -v rows="$(number examples_per_second)" -v s="$(number step_seconds)" 'BEGIN { exit !(rows * s > 7.99 && rows * s < 8.01) }' ||
    fail "8 rows a step are not examples_per_second times step_seconds"
awk -v a="$(number start_to_first_step_seconds)" -v b="$(number start_to_first_step_done_seconds)" \
    'BEGIN { exit !(a > 0 && b >= a && b < 100) }' || fail "start-up times make no sense"
awk -v c="$(number computed_tokens_a_step)" -v t="$(number tokens_a_step)" 'BEGIN { exit !(c > 0 && c < t) }' ||
    fail "no token is shared"
awk -v p="$(number part_of_bound)" 'BEGIN { exit !(p > 0 && p < 1) }' || fail "faster than the bound"

# steps 2 to 4 of training have the same losses, to the last digit
run 0 train --stage 1 --set "$data"
sed -n 's/.*"loss":\([^,]*\),.*/\1/p' stage1_mlm/train_log.jsonl | tail -n 3 >trained
sed -n '/"losses"/,/]/p' b.json | sed -n 's/^ *\([-0-9.eE]*\),*$/\1/p' >measured
[ "$(wc -l <measured)" = 3 ] || fail "not 3 losses: $(cat measured)"
cmp -s trained measured || fail "losses differ: $(cat trained measured)"

# how the cost grows; without sharing all tokens are computed but the last of a row
run 0 bench --set "$data" --stage 2 --steps 1 --warmup 0 --growth --set share_prefix=false --json b.json
for kind in rows length prefix vocabulary; do
    grep -q "\"kind\": \"$kind\"" b.json || fail "no growth of $kind"
done
grep -q '"seconds_apart":' b.json || fail "prefixes are measured in one way only"
awk -v c="$(number computed_tokens_a_step)" -v t="$(number tokens_a_step)" 'BEGIN { exit !(c == t - 8) }' ||
    fail "share_prefix=false shares, or computes what no loss needs"

run 2 bench --set "$data" --steps 10
says '10'
run 2 bench --set "$data" --steps 0
run 3 bench --set data_json=none.json

finish
