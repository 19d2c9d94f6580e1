#!/usr/bin/env python3
"""Runs the real huggingface_hub against the test Hub: create, upload a folder (regular, basic and multipart LFS), take a
snapshot, replace one folder by another in one commit, and the errors that it tells apart. Ends with 0 if all of it went as
it does on the real Hub. Called by client.sh with HF_ENDPOINT and HF_HOME set and xet off."""
import os
import sys
import tempfile

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

TOKEN = "hf_test_write"
REPO = "tester/fidelity"


def check(good, text):
    if not good:
        sys.exit("client: %s" % text)


def fails(kind, call):
    try:
        call()
    except kind:
        return True
    return False


def make_point(folder):
    os.makedirs(folder)
    for name, data in (("config.json", b'{"a": 1}\n'), ("empty.txt", b""), ("adapter.safetensors", os.urandom(100000)),
                       ("optimizer.pt", os.urandom(3000000))):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def read_all(root):
    out = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                out[os.path.relpath(path, root)] = f.read()
    return out


def main():
    api = HfApi(token=TOKEN)
    work = tempfile.mkdtemp(dir=os.environ["HF_HOME"])
    check(api.whoami()["name"] == "tester", "whoami")
    api.create_repo(REPO, private=True)
    api.create_repo(REPO, private=True, exist_ok=True)
    make_point(os.path.join(work, "up", "checkpoint-5"))
    api.upload_folder(repo_id=REPO, folder_path=os.path.join(work, "up"), commit_message="first")
    there = snapshot_download(REPO, token=TOKEN)
    got = read_all(there)
    check(got.pop(".gitattributes", None) is not None, ".gitattributes of a new repository")
    check(got == read_all(os.path.join(work, "up")), "a snapshot differs from what was uploaded")

    make_point(os.path.join(work, "second"))
    operations = [CommitOperationAdd("checkpoint-10/" + n, os.path.join(work, "second", n))
                  for n in sorted(os.listdir(os.path.join(work, "second")))]
    operations.append(CommitOperationDelete("checkpoint-5/", is_folder=True))
    head = api.model_info(REPO).sha
    done = api.create_commit(REPO, operations, commit_message="second", parent_commit=head)
    check(api.model_info(REPO).sha == done.oid, "the head is the commit's")
    names = set(api.list_repo_files(REPO))
    check({n.split("/")[0] for n in names} == {".gitattributes", "checkpoint-10"}, "one commit replaces a folder: %s" % names)
    check(len(api.list_repo_commits(REPO)) == 3, "three commits")
    check(fails(Exception, lambda: api.create_commit(REPO, operations, commit_message="late", parent_commit=head)),
          "412 on an old head")
    api.upload_folder(repo_id=REPO, folder_path=os.path.join(work, "second"), path_in_repo="checkpoint-10")
    check(len(api.list_repo_commits(REPO)) <= 4, "what is there is not sent again")

    check(fails(RepositoryNotFoundError, lambda: api.model_info("tester/nothing")), "a repository that is not there")
    check(fails(RepositoryNotFoundError, lambda: HfApi(token=False).model_info(REPO)), "a private one without a token")
    check(fails(RevisionNotFoundError, lambda: api.model_info(REPO, revision="v9")), "a revision that is not there")
    check(fails(GatedRepoError, lambda: snapshot_download("acme/gated", token="hf_test_read")), "a gated one")
    print("huggingface_hub %s: all as on the real Hub" % huggingface_hub.__version__)


main()
