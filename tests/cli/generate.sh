#!/bin/sh
# generate and complete on a model trained for a few steps: forms of output, what seeds and neighbours change and
# what they do not, what is refused.
. "$(dirname "$0")/lib.sh"

sample=$repo/configs/sample/gestures.json
run 0 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 1 --out model
cat >smgpt.json <<'END'
{"model": "model", "max_steps": 1, "batch_train": 4, "grad_accum": 1, "lora_r": 2, "threads": 1, "split_test_size": 0}
END
run 0 train --stage 1 --set data_json="$sample"
gen() {
    code=$1
    shift
    run "$code" generate --model_path stage1_mlm "$@"
}

# ids as in the data: a line a sample, codes of this text, within its lengths
gen 0 --prompt "thank you" --n 5 --seed 3
cp out five
[ "$(wc -l <five)" -eq 5 ] || fail "5 samples are not 5 lines"
grep -F '"text_query": "thank you"' "$sample" | sed 's/.*"motion_tokens": "\([0-9 ]*\)".*/\1/' >rows
awk 'NR == FNR { for (i = 1; i <= NF; i++) known[$i] = 1
                 length_of[FNR] = NF; n = FNR; next }
     FNR == 1  { for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (length_of[j] < length_of[i]) {
                     t = length_of[i]; length_of[i] = length_of[j]; length_of[j] = t }
                 m = n % 2 ? length_of[(n + 1) / 2] : int((length_of[n / 2] + length_of[n / 2 + 1]) / 2)
                 low = int(0.6 * m); high = int(1.4 * m) }
     { if (NF < low || NF > high) { print "line " FNR " has " NF " ids"; bad = 1 }
       for (i = 1; i <= NF; i++) if (!($i in known)) { print "unknown code " $i; bad = 1 } }
     END { exit bad || n == 0 }' rows five || fail "samples of 'thank you' against its rows"
[ "$(sort -u five | wc -l)" -gt 1 ] || fail "samples are all the same"

# the seed decides, not what else is asked for
gen 0 --prompt "thank you" --n 5 --seed 3; cmp -s out five || fail "the same seed gave other samples"
gen 0 --prompt "thank you" --n 5 --seed 4; cmp -s out five && fail "another seed gave the same samples"
gen 0 --prompt "thank you" --n 2 --seed 3; head -2 five | cmp -s - out || fail "fewer samples are others"
printf 'point left\r\n\nthank you\nnobody said this\nthank you' >texts
gen 0 --prompts texts --n 5 --seed 3
[ "$(wc -l <out)" -eq 20 ] || fail "4 prompts with 5 samples are not 20 lines"
sed -n 6,10p out | cmp -s - five || fail "other prompts in the file changed the samples"
sed -n 16,20p out | cmp -s - five && fail "a text that is asked for twice has the same samples twice"
cp out twenty
echo ' ["point left", "thank you", "nobody said this", "thank you"]' >list
gen 0 --prompts list --n 5 --seed 3; cmp -s out twenty || fail "a JSON list gives other samples than lines"
printf '[thank you]\nhello\n' >brackets
gen 0 --prompts brackets; [ "$(wc -l <out)" -eq 2 ] || fail "a line in brackets is no list"
gen 0 --prompt "thank you" --greedy --n 2
[ "$(sort -u out | wc -l)" -eq 1 ] || fail "greedy samples differ"
gen 0 --prompt "thank you" --n 40 --seed 3 --per_prompt_vocab false
tr ' ' '\n' <rows | sort -u >known; tr ' ' '\n' <out | sort -u >used
[ -n "$(comm -13 known used)" ] || fail "with all codes only those of the text came"

# limits and files
gen 0 --prompt "thank you" --n 9 --max_new_tokens 7
awk 'NF < 1 || NF > 5 { exit 1 }' out || fail "more tokens than max_new_tokens: $(head -1 out)"
gen 0 --prompt "thank you" --n 5 --seed 3 --output lines.txt; silent
cmp -s lines.txt five || fail "the file has other lines than stdout"
gen 0 --prompts texts --n 5 --seed 3 --output all.json; silent
gen 0 --prompt "thank you" --seed 3 --participant_id p2 --output one.json
for words in '"prompt": "thank you"' '"participant_id": "p2"' '"motion_tokens": "' '"n_tokens": ' '"logprob": -' '"ended": true'; do
    [ "$(grep -cF -- "$words" one.json)" -eq 1 ] || fail "one.json has not $words once"
done
for words in '"ended": true' '"participant_id": null'; do
    [ "$(grep -cF -- "$words" all.json)" -eq 20 ] || fail "all.json has not $words 20 times"
done
sed -n 's/.*"motion_tokens": "\(.*\)".*/\1/p' all.json | cmp -s - twenty || fail "JSON and lines differ"

# refused, and nothing left behind
gen 2 --prompt a --participant_id nobody; silent; says "'nobody' is not known"; says "it knows 'p1', 'p2'"
gen 2; says "--prompt or --prompts is missing"
gen 2 --prompt a --prompts texts; says "both given"
gen 2 --prompt a --n 0; says "out of range"
gen 2 --prompts texts --n 1000000; says "more than 1000000 samples"
gen 2 --prompt a --max_new_tokens 2 --output kept.json; says "max_new_tokens 2 is too few"
gen 2 --prompt a --top_p 0; says "--top_p"
run 2 generate --prompt a; says "--model_path is missing"
gen 4 --prompt a --output nowhere/x.json; says "nowhere/x.json"
run 3 generate --model_path model --prompt a; says "no smgpt_data.json"
run 3 generate --model_path nowhere --prompt a; says "'nowhere' is not a directory"
gen 3 --prompts missing; says "missing"
: >empty; printf '\n\r\n' >blank; echo '["a", 3]' >mixed.json; echo '{}' >object.json; printf 'a\0b\n' >nul
printf 'ok\n\377\376\n' >latin
gen 3 --prompts empty; says "no prompt in it"
gen 3 --prompts blank; says "no prompt in it"
gen 3 --prompts mixed.json; says "item 1 is not a text"
gen 3 --prompts object.json; says "not a JSON list of texts"
gen 3 --prompts nul; says "byte 1 is a NUL"
gen 3 --prompts latin --output kept.json; says "UTF-8"
[ -z "$(ls kept.json* nowhere 2>/dev/null)" ] || fail "a failed run left $(ls kept.json* nowhere)"

# complete
com() {
    code=$1
    shift
    run "$code" complete --model_path stage1_mlm "$@"
}
echo '[[104, 105], [7]]' >ids.json
com 0 --ids ids.json --greedy --max_new_tokens 6 --json done.json; silent
[ "$(tr -d ' \n' <done.json | grep -o '"ids":\[[0-9,]*\],"logprob":-[0-9.]*' | wc -l)" -eq 2 ] || fail "$(cat done.json)"
com 0 --ids ids.json --greedy --max_new_tokens 6
cp out lists
tr -d ' \n' <done.json | grep -o '\[[0-9,]*\]' | tr -d '[]' | tr ',' ' ' | cmp -s - lists || fail "JSON and stdout differ"
echo '[[7]]' >ids.json
com 0 --ids ids.json --greedy --max_new_tokens 6
sed -n 2p lists | cmp -s - out || fail "a list alone is continued in another way"
com 0 --text hi --greedy --max_new_tokens 6 --json text.json # bytes: h is 104, i is 105
[ "$(tr -d ' \n' <text.json | grep -o '\[[0-9,]*\]' | head -1)" = "[$(sed 's/ /,/g' lists | head -1)]" ] ||
    fail "text and its ids are continued in different ways"
com 0 --text hi --max_new_tokens 6; [ -s out ] || fail "no text came"
first=$(head -1 lists | cut -d' ' -f1)
cp model/generation_config.json before.json
echo "{\"eos_token_id\": [3, $first]}" >model/generation_config.json
com 0 --text hi --greedy --max_new_tokens 6 --json text.json
[ "$(tr -d ' \n' <text.json | grep -o '\[[0-9,]*\]' | head -1)" = "[$first]" ] || fail "generation does not stop at eos"
echo '{"eos_token_id": "end"}' >model/generation_config.json
com 3 --text hi; says "eos_token_id"
cp before.json model/generation_config.json
com 2; says "--text or --ids is missing"
com 2 --text a --ids ids.json; says "both given"
for ids in '{}' '[1]' '[[]]' '[["a"]]' '[[-1]]' '[[1.5]]' '[[1], [70000]]' '[[1]'; do
    echo "$ids" >bad.json
    com 3 --ids bad.json; silent
done
com 3 --ids missing.json; says "missing.json"
rm model/tokenizer.json model/tokenizer_config.json
echo '[[7]]' >ids.json
run 0 complete --model_path model --ids ids.json --max_new_tokens 3 # ids need no tokenizer
run 3 complete --model_path model --text hi; says "tokenizer.json"

finish
