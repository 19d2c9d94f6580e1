#!/bin/bash
# kill50.sh PROGRAM REPOSITORY MPIEXEC [KILLS [SEED]]: kills one rank or all of them at random moments, saving included, and
# goes on with a random number of ranks, KILLS times (12). A quarter of the kills is followed by damage to the newest
# checkpoint, as a power cut leaves it. What was said must fit what was there, and the end must have the bytes of the
# run that nobody disturbed. Runs that reach their end before all kills are made are begun anew.
. "$(dirname "$0")/lib.sh"
n_kills=${4:-12}
seed=${5:-1}
RANDOM=$seed
steps=25
common=(--set model=model-qwen3 --set "max_steps=$steps" --set save_steps=1 --set batch_train=8 --set grad_accum=1
    --set eval_steps=10 --set lr=1e-3 --set max_seq_len=256 --set keep_checkpoints=3)
stages="stage1_mlm stage2_multitask stage3_t2m_sft"
need_model qwen3
expect 0 2 straight

kills=0 one=0 all=0 saving=0 damaged=0 before=0 rounds=0 attempts=0
dir=run

# stage_now: the last stage that has a checkpoint; empty when none has.
stage_now() {
    local s last=""
    for s in $stages; do
        [ "$(newest "$dir/$s")" = 0 ] || last=$s
    done
    echo "$last"
}

# damage DIR: one file of the checkpoint is cut short, emptied or gone. Sets $how.
damage() {
    local files=(adapter_model.safetensors optimizer.pt scheduler.pt trainer_state.json adapter_config.json) f size
    f=$1/${files[RANDOM % 5]}
    size=$(stat -c %s "$f")
    case $((RANDOM % 3)) in
        0) truncate -s $((size * (RANDOM % 90 + 5) / 100)) "$f" && how="cut short: $f" ;;
        1) : >"$f" && how="emptied: $f" ;;
        *) rm "$f" && how="removed: $f" ;;
    esac
}

# look_around: what the next start must find, in $found (a checkpoint) and $skipped; both may be empty.
look_around() {
    local s n
    found="" skipped="" leftover=""
    s=$(stage_now)
    [ -n "$s" ] || return
    n=$(newest "$dir/$s")
    found=$dir/$s/checkpoint-$n
    [ "$(sed -n 's/^ *"global_step": \([0-9]*\).*/\1/p' "$found/trainer_state.json" | head -n 1)" = "$n" ] ||
        fail "kill $kills: $found is not whole"
    for leftover in "$dir/$s"/.tmp-checkpoint-*; do
        [ ! -e "$leftover" ] || saving=$((saving + 1))
    done
    # Damaged while a whole one is left; of the last stage only, the one before is taken as it is.
    if [ $((RANDOM % 4)) = 0 ] && [ "$n" -gt 1 ] && [ "$n" -lt "$steps" ] && [ -d "$dir/$s/checkpoint-$((n - 1))" ]; then
        damage "$found"
        damaged=$((damaged + 1))
        skipped=$found
        found=$dir/$s/checkpoint-$((n - 1))
    fi
}

# check_said: the start that has just ended, or was killed, spoke of what look_around had found.
check_said() {
    local s=stage1_mlm k
    [ -z "$found" ] || s=$(basename "$(dirname "$found")")
    k=${s#stage}
    k=${k%%_*}
    # Else it was killed before it came to it.
    grep -qE "resuming from $dir/$s/|stage $k (starts|done| step)|saved $dir/$s/" err || return 1
    [ -z "$skipped" ] || says "checkpoint \"$skipped\" is skipped: ."
    [ -z "$found" ] || says "resuming from $found\$"
    return 0
}

check_round() {
    local s
    for s in $stages; do
        same_state "straight/$s" "$dir/$s" "$steps"
        same_log "straight/$s" "$dir/$s"
        ls -d "$dir/$s"/.tmp-checkpoint-* "$dir/$s"/.old-checkpoint-* 2>/dev/null && fail "$dir/$s: rubbish is left"
    done
    rounds=$((rounds + 1))
    rm -rf "$dir"
}

found="" skipped="" how=""
while [ "$kills" -lt "$n_kills" ]; do
    n=$((RANDOM % 4 + 1))
    attempts=$((attempts + 1))
    start "$n" "$dir"
    # About half a second goes by until the first step; what comes later is steps and saves in turn.
    sleep "$(printf '0.%03d' $((RANDOM % 1000)))"
    [ $((RANDOM % 2)) = 0 ] || sleep 0.5
    victims=($(ranks))
    if kill -0 "$launcher" 2>/dev/null && [ "${#victims[@]}" -gt 0 ]; then
        kills=$((kills + 1))
        if [ $((RANDOM % 2)) = 0 ]; then
            kill -9 "${victims[RANDOM % ${#victims[@]}]}" && one=$((one + 1))
        else
            kill -9 "${victims[@]}" "$launcher" && all=$((all + 1))
        fi
        ended 30
        [ "$code" -ne 124 ] || fail "kill $kills: the other ranks did not end in 30 s"
        for v in "${victims[@]}"; do
            for ((i = 0; i < 100; i++)); do
                case $(sed 's/.*) //' "/proc/$v/stat" 2>/dev/null) in '' | Z*) break ;; esac
                sleep 0.05
            done
            [ "$i" -lt 100 ] || fail "kill $kills: rank process $v lives on"
        done
    else
        ended 60
        [ "$code" = 0 ] || fail "attempt $attempts: nobody was killed, exit code $code"
    fi
    if [ "$code" = 0 ]; then
        check_said || fail "attempt $attempts said nothing of where it started"
        check_round
        found="" skipped=""
        continue
    fi
    # A stage that is over starts the next one from memory: then nothing of it is there to be found.
    if check_said; then skipped=""; else before=$((before + 1)); fi
    [ -z "$skipped" ] || continue # the damaged one is still the newest
    look_around
done
attempts=$((attempts + 1))
expect 0 $((RANDOM % 4 + 1)) "$dir"
check_said || fail "the last start said nothing"
check_round
echo "seed $seed: $kills kills in $attempts starts: $one of one rank, $all of all; $saving while a checkpoint was written," \
    "$before before the start was through; $damaged newest checkpoints damaged and passed over; $rounds runs to their end"
finish
