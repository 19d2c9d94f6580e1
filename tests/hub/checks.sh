# shellcheck shell=bash
# What push.sh and train.sh look at; sourced after lib.sh, with $program set.
push() { # [DIR]
    "$program" hub push "${1-$point}" >out 2>err </dev/null
}

# history REPO PYTHON: `c` is the list of commits, each with its files.
history() {
    control "history?repo=$1" | python3 -c "import json, sys
c = json.load(sys.stdin) or []
$2"
}
# commits REPO: how many are ours
commits() { history "$1" 'print(sum(x["title"].startswith(("Upload", "Stage")) for x in c))'; }
# titles REPO: ours, in order
titles() { history "$1" 'print(";".join(x["title"] for x in c if x["title"].startswith(("Upload", "Stage"))))'; }
# folders REPO: top-level names at the head
folders() { history "$1" 'print(" ".join(sorted({f.split("/")[0] for f in c[-1]["files"]})) if c else "")'; }

# same_files REPO FOLDER DIR: the head's folder holds the directory's files and nothing else.
same_files() {
    history "$1" "import hashlib, os
want = {}
for d, _, names in os.walk('$3'):
    for n in names:
        b = open(os.path.join(d, n), 'rb').read()
        want[os.path.relpath(os.path.join(d, n), '$3')] = (hashlib.sha256(b).hexdigest(), hashlib.sha1(b'blob %d\0' % len(b) + b).hexdigest())
have = {f[len('$2/'):]: e for f, e in c[-1]['files'].items() if f.startswith('$2/')}
sys.exit(0 if have.keys() == want.keys() and all(e['lfs'] == want[f][0] if e['lfs'] else e['oid'] == want[f][1] for f, e in have.items()) else 1)
" || fail "$1/$2 differs from $3"
}

# The token stands in no file of ours; the server's own are its state and log.
no_token() {
    grep -rl "$HF_TOKEN" . --include='*' 2>/dev/null | grep -v '^./state\|^./log' && fail "the token stands in a file"
    return 0
}
