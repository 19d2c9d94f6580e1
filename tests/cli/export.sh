#!/bin/sh
# export: the merged model is a plain one whose losses are the adapted model's, whatever the family and the new rows;
# what is refused leaves nothing behind.
. "$(dirname "$0")/lib.sh"

sample=$repo/configs/sample/gestures.json
# same A B: the losses of the evaluation rows, to the digits that another order of sums leaves
same() {
    run 0 loss --model_path "$1" --pack "$3" --group eval
    adapted=$(sed -n 's/^loss \([0-9.]*\) over.*/\1/p' out)
    run 0 loss --model_path "$2" --pack "$3" --group eval
    merged=$(sed -n 's/^loss \([0-9.]*\) over.*/\1/p' out)
    awk -v a="$adapted" -v m="$merged" 'BEGIN { d = a - m; if (d < 0) d = -d; exit !(a > 0 && d <= 2e-6 * a) }' ||
        fail "loss of $1 is '$adapted', of $2 '$merged'"
}

# case_of NAME FAMILY NEW_ROWS: trains, merges, compares
case_of() {
    run 0 init-model --family "$2" --preset tiny --tokenizer bytes --seed 5 --out "$1/model"
    cat >smgpt.json <<END
{"model": "$1/model", "work_dir": "$1", "max_steps": 3, "batch_train": 4, "grad_accum": 1, "lora_r": 2, "lr": 0.02, "warmup_ratio": 0,
 "threads": 2, "split_test_size": 0.2, "new_rows": "$3"}
END
    run 0 train --stage 1 --set data_json="$sample"
    run 0 export --model_path "$1/stage1_mlm" --merged "$1/merged"
    says "merged model in $1/merged"
    same "$1/stage1_mlm" "$1/merged" "$1/packs/stage1.h5"
}
case_of llama llama auto
case_of qwen qwen3 untied
case_of gemma gemma3_text auto

# another instruction set and the plain loops merge the same sums
for path in baseline reference; do
    run 0 export --model_path llama/stage1_mlm --merged $path --set cpu_path=$path
    same $path llama/merged llama/packs/stage1.h5
done

# refused: a place that is taken, an adapter that is none
run 2 export --model_path llama/stage1_mlm --merged llama/merged
says "exists already"
run 3 export --model_path nowhere --merged new
[ ! -e new ] && [ ! -e new.tmp-export ] || fail "a refused export left something behind"
finish
