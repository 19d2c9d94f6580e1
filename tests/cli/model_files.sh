#!/bin/sh
# init-model, tokenize and pack on the sample data set: what is written, what is refused.
. "$(dirname "$0")/lib.sh"

for family in qwen3 gemma3_text llama; do
    run 0 init-model --family $family --preset tiny --tokenizer bytes --seed 3 --out $family/model; silent
    for f in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json; do
        [ -s $family/model/$f ] || fail "$family has no $f"
    done
    grep -q "\"model_type\": \"$family\"" $family/model/config.json || fail "config.json does not say $family"
    [ "$(ls $family)" = model ] || fail "something was left beside the model: $(ls $family)"
done

# equal seeds, equal files; other seeds, other weights
run 0 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 3 --out again/
cmp -s qwen3/model/model.safetensors again/model.safetensors || fail "equal seeds gave other weights"
run 0 init-model --family qwen3 --preset tiny --tokenizer qwen3/model --seed 4 --out other
cmp -s qwen3/model/model.safetensors other/model.safetensors && fail "another seed gave equal weights"
cmp -s qwen3/model/tokenizer.json other/tokenizer.json || fail "the tokenizer was not copied"

# never over something
mkdir full empty && echo mine >full/file && echo mine >file
run 2 init-model --family llama --preset tiny --tokenizer bytes --seed 1 --out full; says "'full' is there and not empty"
run 2 init-model --family llama --preset tiny --tokenizer bytes --seed 1 --out file; says "no directory"
run 0 init-model --family llama --preset tiny --tokenizer bytes --seed 1 --out empty
[ "$(cat full/file)" = mine ] || fail "a file was changed"
run 3 init-model --family llama --preset tiny --tokenizer nowhere --seed 1 --out x; says "'nowhere' is no directory"
run 3 init-model --family llama --preset tiny --tokenizer full --seed 1 --out x; says "tokenizer.json"
[ -z "$(ls -d x* 2>/dev/null)" ] || fail "a failed run left $(ls -d x*)"

# texts to ids and back
echo '["abc", "", "<|im_start|>x"]' >in
run 0 tokenize --model qwen3/model
cp out ids.json
[ "$(head -1 ids.json | tr -d ' ')" = "[[97,98,99]," ] || fail "bytes are not their own ids: $(head -1 ids.json)"
cp ids.json in
run 0 tokenize --model qwen3/model --decode
tr -d '\n' <out | grep -qF '["abc", "", "<|im_start|>x"]' || fail "decoding does not give the texts back"
cp out texts.json
run 0 tokenize --model qwen3/model texts.json; cmp -s out ids.json || fail "a file gives other ids than stdin"
for text in '{}' '[1]' '["a", 2]' '["a"' '' ; do
    echo "$text" >in
    run 3 tokenize --model qwen3/model; silent
done
says "standard input"
for ids in '["a"]' '[[-1]]' '[[1.5]]' '[[99999999999]]' '[[100000]]'; do
    echo "$ids" >in
    run 3 tokenize --model qwen3/model --decode; says "item 0"; silent
done
rm in
run 3 tokenize --model qwen3/model missing.json; says "missing.json"
run 3 tokenize --model nowhere; says "nowhere"

# packs
sample=$repo/configs/sample/gestures.json
run 0 pack --data "$sample" --model qwen3/model --stage all --out packs
[ "$(ls packs | tr '\n' ' ')" = "stage1.h5 stage2.h5 stage3.h5 " ] || fail "packs: $(ls packs)"
cp packs/stage3.h5 before.h5
run 0 pack --data "$sample" --model qwen3/model --stage 3 --out packs; says "unchanged"
cmp -s packs/stage3.h5 before.h5 || fail "an unchanged pack was written again"
run 0 pack --data "$sample" --model qwen3/model --stage 3 --out packs --set split_seed=1
cmp -s packs/stage3.h5 before.h5 && fail "another split gave the same pack"
run 3 pack --data "$sample" --model nowhere --stage 1 --out packs; says "nowhere"

finish
