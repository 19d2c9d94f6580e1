#!/bin/sh
# verify --resume: the steps before a checkpoint are made again, and what does not come out equal is named.
. "$(dirname "$0")/lib.sh"

run 0 init-model --family llama --preset tiny --tokenizer bytes --seed 1 --out model
cat >smgpt.json <<'END'
{"model": "model", "max_steps": 6, "batch_train": 4, "grad_accum": 1, "lora_r": 2, "threads": 1, "split_test_size": 0.05,
 "save_steps": 2, "keep_checkpoints": 4, "lr": 1e-3}
END
run 0 train --stage 1 --set data_json="$repo/configs/sample/gestures.json"

run 0 verify --resume stage1_mlm/checkpoint-6
grep -qx 'steps 5 to 6: equal' out || fail "not equal: $(cat out)"
run 0 verify --resume stage1_mlm/checkpoint-6/ --steps 3 --set threads=2
grep -qx 'steps 4 to 6: equal' out || fail "not equal with 2 threads: $(cat out)"
[ -d stage1_mlm/checkpoint-6 ] && [ ! -d stage1_mlm/superseded ] || fail "the run's own directory was changed"

# another value at the start is noticed by its hash, one at the end by the comparison, which names the tensor
cp -r stage1_mlm other
printf '\001' | dd of=other/checkpoint-4/adapter_model.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null
run 3 verify --resume other/checkpoint-6 --steps 2
grep -q 'checkpoint-4/adapter_model.safetensors does not hold the values that were saved' err ||
    fail "the start's value is not noticed: $(cat err)"
cp stage1_mlm/checkpoint-4/adapter_model.safetensors other/checkpoint-4
printf '\001' | dd of=other/checkpoint-6/adapter_model.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null
run 4 verify --resume other/checkpoint-6 --steps 2
grep -q 'DIFFERENT: tensor base_model.model' out || fail "the difference is not named: $(cat out)"

run 2 verify
run 2 verify --resume stage1_mlm --against x
run 2 verify --resume stage1_mlm
run 3 verify --resume stage1_mlm/checkpoint-2

finish
