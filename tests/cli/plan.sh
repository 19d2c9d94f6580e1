#!/bin/sh
# plan: what it says of memory is what a run takes, and what it says of steps and tokens is what a run does.
. "$(dirname "$0")/lib.sh"

run 0 init-model --family llama --preset small --tokenizer bytes --seed 1 --out model
data="data_json=$repo/configs/sample/gestures.json"
cat >smgpt.json <<'END'
{"model": "model", "max_steps": 3, "batch_train": 16, "grad_accum": 1, "virtual_shards": 2, "lora_r": 8, "threads": 1,
 "eval_steps": 0, "max_seq_len": 512}
END
# number FILE KEY: the first number behind a key
number() {
    sed -n "s/^ *\"$2\": \\([-+0-9.eE]*\\),*\$/\\1/p" "$1" | head -n 1
}

for how in float32/false bfloat16/true; do
    set -- --stage 2 --set "$data" --set "compute=${how%/*}" --set "share_prefix=${how#*/}"
    run 0 plan "$@" --json p.json
    prints 'stage 2'
    run 0 bench "$@" --steps 2 --warmup 0 --json b.json
    # bench saves nothing; sanitizers take memory of their own
    awk -v plan="$(number p.json peak_rank0_bytes)" -v copy="$(number p.json save_copy_bytes)" \
        -v training="$(number p.json training_bytes)" \
        -v reading="$(number p.json reading_bytes)" -v rss="$(number b.json peak_rss_bytes)" 'BEGIN {
            want = training - copy
            if (reading > want) want = reading
            printf "planned %.1f MiB, measured %.1f MiB\n", want / 1048576, rss / 1048576
            exit !(plan >= want && want > 5e7 && rss > 0.85 * want && rss < 1.15 * want)
        }' >ratio || [ -n "$(nm -C "$smgpt" 2>/dev/null | grep -m 1 '__[at]san_init')" ] ||
        fail "$how: $(cat ratio)"
    echo "$how: $(cat ratio)"
done

# shared prefixes make the last plan's steps smaller; without them only the last token of a row is left out
shared=$(sed -n '/"shared"/,/}/s/.*"computed_tokens_a_step": \([0-9.]*\).*/\1/p' p.json)
apart=$(sed -n '/"apart"/,/}/s/.*"computed_tokens_a_step": \([0-9.]*\).*/\1/p' p.json)
awk -v s="$shared" -v a="$apart" -v t="$(number p.json tokens_a_step)" -v r="$(number p.json rows_a_step)" \
    'BEGIN { exit !(s < a && a - (t - r) < 1e-6 && (t - r) - a < 1e-6) }' ||
    fail "shared $shared, apart $apart"

# a limit: between what it takes to keep all activations and to compute all again, and below that
limit=$(awk -v kept="$(number p.json workspace_kept_bytes)" -v again="$(number p.json workspace_again_bytes)" \
    -v host="$(number p.json host_bytes)" 'BEGIN { printf "%d", host - (kept - again) / 2 }')
run 0 plan "$@" --set "memory_limit=$limit" --json limited.json
prints 'layers computed again'
awk -v limit="$limit" -v host="$(number limited.json host_bytes)" -v again="$(number limited.json layers_again)" \
    -v n="$(number limited.json layers)" 'BEGIN { exit !(host <= limit && again > 0 && again < n) }' ||
    fail "$(number limited.json layers_again) layers computed again below $limit bytes: $(number limited.json host_bytes)"
[ "$(number p.json layers_again)" = 0 ] || fail "layers are computed again without need"
run 0 plan "$@" --set memory_limit=1M
prints 'too little for it'

# the steps of a run
run 0 plan --stage 1 --set "$data" --json p1.json
run 0 train --stage 1 --set "$data"
[ "$(number p1.json steps)" = 3 ] || fail "not 3 steps"
awk -v planned="$(number p1.json tokens_a_step)" -v got="$(sed -n 's/.*"tokens":\([0-9]*\).*/\1/p' stage1_mlm/train_log.jsonl |
    awk '{ sum += $1 } END { print sum / NR }')" 'BEGIN { exit !(planned - got < 0.01 && got - planned < 0.01) }' ||
    fail "tokens are not those of the run"

# all stages; more ranks keep more
run 0 plan --set "$data" --ranks 2 --json p2.json
[ "$(grep -c '"stage":' p2.json)" = 3 ] || fail "not three stages"
awk -v one="$(number p.json host_bytes)" -v two="$(number p2.json host_bytes)" 'BEGIN { exit !(two > one) }' ||
    fail "two ranks of a host take no more than one"
run 2 plan --set "$data" --ranks 3
says 'virtual_shards'
run 2 plan --set "$data" --ranks 1 --ranks_of_a_host 2
run 3 plan --set data_json=none.json

finish
