#!/usr/bin/env python3
"""huggingface_hub's side of cache_shared.sh. HF_ENDPOINT, HF_HOME and HF_HUB_DISABLE_XET are set.

  cache_shared.py fill REPO           a snapshot of the whole repository, its directory printed
  cache_shared.py fill-needed REPO    the same without what the program does not load
  cache_shared.py read REPO DIR       offline: the cache has the files of DIR, byte for byte, and a scan of it finds nothing odd
"""
import os
import sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

action, repo = sys.argv[1:3]
if action == "fill":
    print(snapshot_download(repo))
elif action == "fill-needed":
    print(snapshot_download(repo, allow_patterns=["*.json", "model*.safetensors"]))
else:
    names = [n for n in os.listdir(sys.argv[3]) if n.endswith((".json", ".safetensors"))]
    if not names:
        sys.exit("cache_shared.py: nothing to compare in %s" % sys.argv[3])
    root = snapshot_download(repo, allow_patterns=names, local_files_only=True)
    for name in names:
        path = hf_hub_download(repo, name, local_files_only=True)
        with open(path, "rb") as got, open(os.path.join(sys.argv[3], name), "rb") as want:
            if got.read() != want.read():
                sys.exit("cache_shared.py: %s differs" % name)
        if os.path.dirname(path) != root or not os.path.islink(path) or os.path.isabs(os.readlink(path)):
            sys.exit("cache_shared.py: %s is no relative link of the snapshot" % path)
    found = scan_cache_dir()
    if found.warnings or [r.repo_id for r in found.repos] != [repo]:
        sys.exit("cache_shared.py: a scan of the cache: %s %s" % (found.warnings, found.repos))
