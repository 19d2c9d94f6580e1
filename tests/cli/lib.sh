# Helpers of the scripts beside: run the program in an empty directory and environment, check code and words.
# Sourced with $1 the program and $2 the repository.
set -u
smgpt=$1
repo=$2
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
unset SMGPT_CONFIG HF_USER HF_TOKEN WORK_DIR DATA_DIR DATA_JSON_PATH MODEL_NAME SEED LR BATCH_TRAIN GDRIVE_ID
bad=0
count=0

fail() {
    echo "FAIL: $*" >&2
    echo "  stdout: $(head -c 400 out)" >&2
    echo "  stderr: $(head -c 800 err)" >&2
    bad=$((bad + 1))
    [ "$bad" -lt 20 ] || finish
}

# run CODE ARGS...: runs the program, stdin from ./in when it is there; output to ./out, errors to ./err
run() {
    want=$1
    shift
    count=$((count + 1))
    if [ -f in ]; then "$smgpt" "$@" <in >out 2>err; else "$smgpt" "$@" </dev/null >out 2>err; fi
    got=$?
    [ "$got" -eq "$want" ] || fail "exit code $got instead of $want: $*"
}

# what the last run wrote to stderr / stdout contains a text
says() {
    grep -qF -- "$1" err || fail "stderr does not say '$1'"
}
prints() {
    grep -qF -- "$1" out || fail "stdout does not have '$1'"
}
silent() {
    [ ! -s out ] || fail "stdout is not empty"
}

finish() {
    [ "$count" -gt 0 ] || bad=1
    echo "$count runs, $bad failures"
    [ "$bad" -eq 0 ] || exit 1
    exit 0
}
