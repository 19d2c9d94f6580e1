#!/bin/bash
# From a fresh Debian 12 to a trained model and its first motion: installs what is missing, builds, trains the
# three stages on the sample data with two ranks, generates once. Run again, it goes on from what is there.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. launch/common.sh

run=run/quickstart
config=configs/quickstart.json
prompt="thank you"

install_packages
build_program smgpt-dist

if [ ! -f $run/model/config.json ]; then
    say "base model: $run/model, a tiny one with random weights"
    ./smgpt-dist init-model --family qwen3 --preset tiny --tokenizer bytes --seed 1 --out $run/model
fi
run_ranks 2 ./smgpt-dist --config $config

generate=(./smgpt-dist generate --config "$config" --model_path "$run"/stage3_t2m_sft --prompt "$prompt" --seed 1)
say "${generate[*]}"
"${generate[@]}"
say "done; the adapters, logs and packs are in $run"
