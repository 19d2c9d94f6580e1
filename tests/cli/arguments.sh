#!/bin/sh
# Wrong usage: exit code 2, the culprit and the nearest name on stderr, nothing on stdout.
. "$(dirname "$0")/lib.sh"

# commands
run 0 help; prints "usage: smgpt-dist"; prints "init-model"; prints "Exit codes"
run 0 --help; prints "usage: smgpt-dist"
run 0 -h; prints "usage: smgpt-dist"
run 0 help pack; prints "--data"
run 0 pack --help; prints "--data"
run 0 init-model --seed x --help; prints "gemma3_text"
run 0 help options; prints "batch_train (variable BATCH_TRAIN) = 8 (1 to 65536)"; prints "gen_top_p"
run 0 help train; prints "--resume"
run 0 --stage 1 --help; prints "--resume"
run 0 version; prints "smgpt-dist "
run 0 --version; prints "smgpt-dist "
run 2 help nothing; says "unknown command 'nothing'"; silent
run 2 help pack train; says "one argument too many"
run 2 tokenise; says "unknown command 'tokenise', the nearest is 'tokenize'"; silent
run 2 initmodel; says "the nearest is 'init-model'"
run 2 "" ; says "unknown command ''"
run 2 version --verbose; says "unknown argument '--verbose'"
run 0 help
for c in $(sed -n 's/^  \([a-z-]*\) .*(not built yet)$/\1/p' out); do
    run 2 $c; says "$c is not built yet"; silent
    run 0 help $c; prints "not built yet"
done

# arguments
run 2 train --stag 1; says "train: unknown argument '--stag', the nearest is '--stage'"; silent
run 2 --stag 1; says "train: unknown argument '--stag'"
run 2 train --stage 4; says "--stage '4' is not one of"
run 2 train --stage; says "--stage needs a value"
run 2 train --stage --dry-run; says "--stage needs a value"; says "--stage=VALUE"
run 2 train --dry-run=yes; says "--dry-run takes no value"
run 2 train here; says "'here' is one argument too many"
run 2 train -- --stage; says "'--stage' is one argument too many"
run 2 train --device tpu; says "is not one of auto|cpu|cuda"
run 2 -x; says "unknown argument '-x'"
run 2 train --token hf_abcdefghijklmnopqrstuvwx; says "unknown argument '--token'"
grep -q hf_abcdef err && fail "the token is repeated"
run 2 pack; says "--out is missing"
run 2 pack --out ""; says "--out is empty"
run 2 tokenize; says "--model is missing"
run 2 tokenize --model a b c; says "'c' is one argument too many"
run 2 init-model --family qwen2 --preset tiny --tokenizer bytes --seed 1 --out m; says "--family 'qwen2' is not one of qwen3|gemma3_text|llama"
run 2 init-model --family qwen3 --preset big --tokenizer bytes --seed 1 --out m; says "--preset 'big'"
run 2 init-model --family llama --preset 0.6b --tokenizer bytes --seed 1 --out m; says "--preset 0.6b is a shape of qwen3, not of llama"
run 2 init-model --preset tiny --tokenizer bytes --seed 1 --out m; says "--family is missing"
run 2 init-model --family qwen3 --preset tiny --tokenizer bytes --out m; says "--seed is missing"
run 2 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 1; says "--out is missing"
run 2 init-model --family qwen3 --preset tiny --tokenizer bytes --seed -1 --out m; says "--seed -1 is out of range"
run 2 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 1x --out m; says "--seed '1x' is not a whole number"
run 2 init-model --family qwen3 --preset tiny --tokenizer bytes --seed 99999999999999999999 --out m; says "is not a whole number"
[ ! -e m ] || fail "a directory was made"

# options
run 2 train --set lr; says "key=value"
run 2 train --set learningrate=1; says "unknown option 'learningrate'"
run 2 train --set lr=abc; says "--set: lr 'abc' is not a finite number"
run 2 train --set=batch_train=0; says "batch_train 0 is out of range"
run 2 train --set hf_token=x; says "never an option"
run 2 train --set model=hf_abcdefghijklmnopqrstuvwx; says "looks like an access token"
grep -q hf_abcdef err && fail "the token is repeated"
run 2 train --set optim=adamw_8bit; says "optim adamw_8bit is not built yet"
run 2 train --set work_dir="{data_dir}"; says "cannot stand here"
run 2 train --config none.json; says "none.json"
# the preset is read: what it lacks is the data
run 3 train --config "$repo/configs/signmotiongpt.json" --dry-run; says "data/motion_llm_dataset.json' does not exist"
run 2 train --config; says "--config needs a value"
run 2 pack --set pack=x.h5 --out o; says "makes packs from data_json"

# where options come from: the last of file, environment, command line; the file by name, variable or ./smgpt.json
echo '{"lr": "1"}' >smgpt.json
run 2 train; says "smgpt.json: lr must be a number"
run 2 pack --out o; says "smgpt.json: lr must be a number"
echo '{"seed": 1.5}' >other.json
SMGPT_CONFIG=other.json; export SMGPT_CONFIG
run 2 train; says "other.json: seed must be a whole number"
echo '{"schedule": "none"}' >third.json
run 2 train --config third.json; says "third.json: schedule 'none'"
unset SMGPT_CONFIG
echo '{"data_json": "from_file.json", "model": "m"}' >smgpt.json
run 3 pack --out o; says "from_file.json"
DATA_JSON_PATH=from_variable.json; export DATA_JSON_PATH
run 3 pack --out o; says "from_variable.json"
run 3 pack --out o --set data_json=from_set.json; says "from_set.json"
run 3 pack --data from_argument.json --out o; says "from_argument.json"
LR=fast; export LR
run 2 pack --out o; says "environment variable LR: lr 'fast'"
unset LR DATA_JSON_PATH
rm smgpt.json
run 2 pack --temperature 1 --out o; says "unknown argument '--temperature'"

finish
