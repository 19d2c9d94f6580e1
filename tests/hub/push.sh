#!/bin/bash
# push.sh PROGRAM REPOSITORY: hub push with one fault in one phase, for all of them: each ends well, with one commit of ours and
# the same files, and a refusal is told as one.
program=$1
repository=$2
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/checks.sh"

export SMGPT_HUB_PAUSE_S=0.05
hub_start --chunk 100000
export HF_TOKEN=hf_test_write HF_HOME=$tmp/home
cd "$tmp" || exit 1
repo=tester/signmotiongpt-stage2
point=checkpoint-10
make_point() { # another content each time
    mkdir -p $point/sub
    head -c 250001 /dev/urandom >$point/optimizer.pt
    head -c 90000 /dev/urandom >$point/adapter_model.safetensors
    echo "{\"n\": $RANDOM$RANDOM}" >$point/trainer_state.json
    echo "text $RANDOM" >$point/sub/note.txt
    : >$point/empty.txt
    echo '{"format": 1, "stage": 2, "step": 10}' >$point/smgpt_state.json
}

[ "$("$program" hub whoami)" = tester ] || fail whoami
make_point
push || fail "a push without faults: $(cat err)"
same_files $repo $point $point
push || fail "the same again"
grep -q 'as it was' err || fail "nothing was to be sent"
[ "$(commits $repo)" = 1 ] || fail "the same again made a commit"

n=1
for name in 429 500 503 reset truncate corrupt html halfjson lost expired parallel; do
    for phase in create info tree preupload batch put complete verify commit; do
        case $name-$phase in
        expired-create) continue ;;                                    # refused, but the repository is there
        expired-info | expired-preupload | expired-batch | expired-commit) continue ;; # a refusal: see below
        esac
        make_point
        fault $name $phase
        push || fail "$name in $phase: $(cat err)"
        control clear '{}' >/dev/null
        same_files $repo $point $point
        n=$((n + 1))
        [ "$(commits $repo)" = $n ] || fail "$name in $phase: $(commits $repo) commits of ours instead of $n"
    done
done

make_point
fault expired commit
code=0
push || code=$?
[ $code = 5 ] || fail "a refused commit ended with $code"
grep -q 'the Hub says 403' err && grep -q 'hint: the token may not do this' err || fail "a refusal is not told"
push || fail "after a refusal"

make_point
HF_TOKEN=hf_test_read push && fail "a token for reading may not write"
grep -q 403 err || fail "a token for reading: $(cat err)"
HF_TOKEN=hf_other push && fail "nobody's token"
grep -q 401 err || fail "nobody's token: $(cat err)"
HF_TOKEN='' push && fail "no token"
grep -q 'no token for the Hub' err || fail "no token: $(cat err)"
HF_HUB_OFFLINE=1 push && fail offline
grep -q HF_HUB_OFFLINE err || fail "offline: $(cat err)"

# Others' files and folders stay, ours rotate.
mkdir -p others/others && echo x >others/others/x.txt
seed $repo others >/dev/null
mkdir -p foreign/checkpoint-5 && echo x >foreign/checkpoint-5/model.txt
seed $repo foreign >/dev/null
for step in 20 30 40; do cp -r $point checkpoint-$step; done
for step in 20 30; do
    push checkpoint-$step || fail "step $step: $(cat err)"
done
[ "$(folders $repo)" = ".gitattributes checkpoint-20 checkpoint-30 checkpoint-5 others" ] ||
    fail "after rotation: $(folders $repo)"
# A server that answers in other forms: the same calls, and a folder of files down again.
hub_stop
rm -rf state log
hub_start --chunk 90000 --page 2 --other-forms
for step in 20 30 40; do
    push checkpoint-$step || fail "other forms, step $step: $(cat err)"
done
same_files $repo checkpoint-40 checkpoint-40
[ "$(folders $repo)" = ".gitattributes checkpoint-30 checkpoint-40" ] || fail "other forms, rotation: $(folders $repo)"
"$program" hub pull $repo down --folder checkpoint-40 2>err || fail "other forms, pull: $(cat err)"
diff -r down checkpoint-40 || fail "other forms: another content came"
for name in 503 truncate halfjson lost; do
    for phase in info tree preupload batch complete commit; do fault $name $phase; done
    make_point
    push || fail "other forms, $name: $(cat err)"
    control clear '{}' >/dev/null
    same_files $repo $point $point
done
no_token
hub_stop
echo "$n pushes"
