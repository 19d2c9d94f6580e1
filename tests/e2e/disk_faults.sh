#!/bin/bash
# disk_faults.sh PROGRAM REPOSITORY MPIEXEC: a save that fails ends the run with 4 and says why, the checkpoint before stays
# whole, and once the disk is in order again the run goes on to the bytes of the one that had no trouble.
. "$(dirname "$0")/lib.sh"
steps=10
common=(--set model=model-qwen3 --set "max_steps=$steps" --set batch_train=8 --set grad_accum=1 --set eval_steps=0
    --set lr=1e-3 --set max_seq_len=256 --stage 1 --set save_steps=2 --set keep_checkpoints=9)
need_model qwen3
expect 0 2 straight
checkpoint_bytes=$(du -sb "straight/stage1_mlm/checkpoint-$steps" | cut -f 1)
mounted=""
unmount() {
    [ -z "$mounted" ] || umount -l "$mounted"
    mounted=""
}
trap 'unmount; clean_up' EXIT

# whole DIR STEP: this is the newest checkpoint, and it has the bytes of the straight run.
whole() {
    [ "$(newest "$1")" = "$2" ] || fail "$1: the newest checkpoint is of step $(newest "$1"), not $2"
    same_state straight/stage1_mlm "$1" "$2"
}

# no_leftovers DIR: a failed save cleans up behind itself, where it may.
no_leftovers() {
    [ -z "$(ls -d "$1"/.tmp-checkpoint-* 2>/dev/null)" ] || fail "$1: $(ls -d "$1"/.tmp-checkpoint-*) is left"
}

# ends_well N DIR: it goes on to the end.
ends_well() {
    expect 0 "$1" "$2"
    whole "$2/stage1_mlm" "$steps"
    same_log straight/stage1_mlm "$2/stage1_mlm"
    no_leftovers "$2/stage1_mlm"
}

# small_disk KILOBYTES: a disk of that size at ./disk.
small_disk() {
    mkdir -p disk
    mount -t tmpfs -o "size=${1}k" tmpfs "$work/disk" 2>/dev/null || return 1
    mounted=$work/disk
}

full_disk() {
    # Saved are every second step and, as always, the one halfway: room for two of them.
    local kb=$(((checkpoint_bytes * 5 / 2 + 300000) / 1024))
    small_disk "$kb" || {
        echo "left out: full disk (no right to mount one)"
        return
    }
    expect 4 2 disk
    says 'error: stage 1: (rank 0 on [^ ]*: )?saving step 5: cannot write ".*": No space left on device'
    says 'hint: '
    whole disk/stage1_mlm 4
    no_leftovers disk/stage1_mlm
    # Not even a line of the log has room.
    head -c 100000000 /dev/zero >disk/ballast 2>/dev/null
    expect 4 3 disk
    says "cannot write '?\"?disk/stage1_mlm/.*No space left on device"
    whole disk/stage1_mlm 4
    rm disk/ballast
    mount -o "remount,size=100m" "$work/disk"
    ends_well 3 disk
    echo "full disk: ends with 4 at step 5, goes on from step 4"
    unmount
}

read_only_disk() {
    local i
    small_disk 100000 || return
    start 2 disk --set max_steps="$steps"
    wait_for_step disk/stage1_mlm 2
    for ((i = 0; i < 200; i++)); do # refused while a file is open for writing
        mount -o remount,ro "$work/disk" 2>/dev/null && break
        kill -0 "$launcher" 2>/dev/null || break
    done
    ended 30
    if [ "$code" = 0 ]; then
        echo "left out: read-only disk (the run was faster than the mount)"
    else
        [ "$code" = 4 ] || fail "read-only disk: exit code $code"
        says 'Read-only file system'
        expect 4 1 disk
        says 'Read-only file system'
        mount -o remount,rw "$work/disk"
        ends_well 1 disk
        echo "read-only disk: ends with 4, goes on when it can be written again"
    fi
    unmount
}

# Root writes where nobody may: the program then runs as somebody else.
no_permission() {
    local as=() dir=locked at=4 got=0 program=$smgpt
    if [ "$(id -u)" = 0 ]; then
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
        "${as[@]}" true 2>/dev/null || {
            echo "left out: no permission (cannot become another user)"
            return
        }
        chmod 755 "$work"
        cp "$smgpt" program && chmod 755 program
        program=$work/program
    fi
    cp "$data" data.json && chmod 644 data.json
    mkdir -p "$dir/stage1_mlm"
    cp -r "straight/stage1_mlm/checkpoint-$at" straight/stage1_mlm/train_log.jsonl "$dir/stage1_mlm"
    [ "$(id -u)" != 0 ] || chown -R 65534:65534 "$dir"
    for mode in 555 755; do
        chmod "$mode" "$dir/stage1_mlm"
        count=$((count + 1))
        got=0
        HOME=$work "${as[@]}" "$program" train --set work_dir="$dir" --set data_json=data.json "${common[@]}" \
            >out 2>err </dev/null || got=$?
        if [ "$mode" = 555 ]; then
            [ "$got" = 4 ] || fail "no permission: exit code $got"
            says 'error: .*Permission denied'
            says 'hint: '
            whole "$dir/stage1_mlm" "$at"
        else
            [ "$got" = 0 ] || fail "permission again: exit code $got"
            whole "$dir/stage1_mlm" "$steps"
        fi
    done
    # A directory that may not even be made.
    mkdir -m 555 shut
    got=0
    count=$((count + 1))
    [ "$(id -u)" != 0 ] || chown 65534:65534 shut
    HOME=$work "${as[@]}" "$program" train --set work_dir=shut --set data_json=data.json "${common[@]}" \
        >out 2>err </dev/null || got=$?
    [ "$got" = 4 ] || fail "a directory that may not be made: exit code $got"
    says 'error: .*shut.*Permission denied'
    echo "no permission: ends with 4, goes on when it is given"
}

# Something in the way, whoever runs it.
in_the_way() {
    mkdir way
    echo "no directory" >way/stage1_mlm
    expect 4 2 way
    says 'error: .*way/stage1_mlm'
    rm way/stage1_mlm
    ends_well 2 way
}

full_disk
read_only_disk
no_permission
in_the_way
finish
