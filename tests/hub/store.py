"""The repositories of the test Hub: everything it knows lies in one directory, so that it can be killed and started again.

DIR/repos/<owner>/<name>.json   commits, each with its whole list of files; branches; private, gated
DIR/objects/<sha>               contents: 64 hex for LFS objects, 40 hex (git blob sha1) for regular files
DIR/parts/<upload>/<number>     parts of multipart uploads that are under way
"""
import hashlib
import json
import os
import threading
import time

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".h5", ".zip", ".gz", ".npy")
REGULAR_LIMIT = 10 << 20
TEXT_LIMIT = 1 << 20
ATTRIBUTES = "".join("*%s filter=lfs diff=lfs merge=lfs -text\n" % s for s in LFS_SUFFIXES).encode()


class Refused(Exception):
    """A request that is answered with an error: status, X-Error-Code or None, text."""

    def __init__(self, status, code, text):
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer_of(sha256, size):
    return ("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256, size)).encode()


def upload_mode(path, size):
    """How a file has to travel; an empty one is always regular."""
    if size == 0:
        return "regular"
    if path.endswith(LFS_SUFFIXES) or size > REGULAR_LIMIT:
        return "lfs"
    if size > TEXT_LIMIT and not path.endswith((".json", ".txt", ".md", ".jsonl")):
        return "lfs"
    return "regular"


def path_is_good(path):
    parts = path.split("/")
    return bool(path) and all(p not in ("", ".", "..", ".git", ".cache") for p in parts) and "\\" not in path


class Store:
    def __init__(self, root):
        self.root = root
        self.lock = threading.RLock()
        for name in ("repos", "objects", "parts"):
            os.makedirs(os.path.join(root, name), exist_ok=True)

    # repositories

    def _file(self, repo):
        owner, name = repo.split("/")
        return os.path.join(self.root, "repos", owner, name + ".json")

    def load(self, repo):
        """The repository, or None. The real Hub does not tell upper from lower case; the tests do."""
        if repo.count("/") != 1 or ".." in repo:
            return None
        try:
            with open(self._file(repo)) as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def save(self, repo, state):
        path = self._file(repo)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as f:
            json.dump(state, f)
        os.replace(path + ".new", path)

    def create(self, repo, private, gated=False):
        with self.lock:
            state = {"private": private, "gated": gated, "branches": {}, "commits": []}
            entry = self.put_regular(ATTRIBUTES)
            self._append(state, repo, "main", "initial commit", {".gitattributes": entry})
            self.save(repo, state)

    def _append(self, state, repo, branch, title, files):
        parent = state["branches"].get(branch)
        seed = json.dumps([repo, parent, title, len(state["commits"]), files, time.time()], sort_keys=True)
        oid = hashlib.sha1(seed.encode()).hexdigest()
        state["commits"].append({"oid": oid, "parent": parent, "title": title, "files": files,
                                 "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())})
        state["branches"][branch] = oid
        return oid

    @staticmethod
    def commit_of(state, revision):
        oid = state["branches"].get(revision, revision)
        for commit in state["commits"]:
            if commit["oid"] == oid:
                return commit
        raise Refused(404, "RevisionNotFound", "Invalid rev id: %s" % revision)

    # contents

    def object_path(self, oid):
        return os.path.join(self.root, "objects", oid)

    def has(self, oid, size):
        try:
            return os.path.getsize(self.object_path(oid)) == size
        except OSError:
            return False

    def put_bytes(self, oid, data):
        path = self.object_path(oid)
        temporary = "%s.%d.new" % (path, threading.get_ident())
        with open(temporary, "wb") as f:
            f.write(data)
        os.replace(temporary, path)

    def put_regular(self, data):
        oid = git_sha1(data)
        self.put_bytes(oid, data)
        return {"oid": oid, "size": len(data), "lfs": None}

    def put_lfs(self, data):
        sha = hashlib.sha256(data).hexdigest()
        self.put_bytes(sha, data)
        return self.lfs_entry(sha, len(data))

    @staticmethod
    def lfs_entry(sha, size):
        return {"oid": git_sha1(pointer_of(sha, size)), "size": size, "lfs": sha}

    # commits

    def commit(self, repo, branch, title, parent, operations):
        """operations: list of (kind, value) as the commit request has them, without the header. Gives the new head."""
        with self.lock:
            state = self.load(repo)
            if branch not in state["branches"]:
                raise Refused(404, "RevisionNotFound", "Invalid rev id: %s" % branch)
            head = state["branches"][branch]
            if parent is not None and parent != head:
                raise Refused(412, None, "The branch was updated since you opened this page, please refresh and try again.")
            files = dict(self.commit_of(state, head)["files"])
            for kind, value in operations:
                self._apply(files, kind, value)
            oid = self._append(state, repo, branch, title, files)
            self.save(repo, state)
            return oid

    def _apply(self, files, kind, value):
        path = value["path"]
        if kind == "deletedFolder":
            prefix = path.rstrip("/") + "/"
            gone = [p for p in files if p.startswith(prefix)]
            if not gone:
                raise Refused(404, "EntryNotFound", "A folder with this name doesn't exist: %s" % path)
            for p in gone:
                del files[p]
        elif kind == "deletedFile":
            if path not in files:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist: %s" % path)
            del files[path]
        elif not path_is_good(path):
            raise Refused(400, None, "Invalid path: %s" % path)
        elif kind == "lfsFile":
            size = value.get("size")
            if size is None and os.path.exists(self.object_path(value["oid"])):
                size = os.path.getsize(self.object_path(value["oid"]))
            if size is None or not self.has(value["oid"], size):
                raise Refused(400, None, "LFS object %s of %s was not uploaded" % (value["oid"], path))
            files[path] = self.lfs_entry(value["oid"], size)
        else:
            files[path] = self.put_regular(value["data"])

    # listings

    @staticmethod
    def tree(files, folder, recursive):
        """Entries below a folder as the listing call gives them, sorted by path."""
        prefix = folder.rstrip("/") + "/" if folder else ""
        entries = {}
        for path, entry in files.items():
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix):].split("/")
            for n in range(1, len(parts)):
                name = prefix + "/".join(parts[:n])
                if recursive or n == 1:
                    oid = hashlib.sha1(name.encode()).hexdigest()
                    entries[name] = {"type": "directory", "oid": oid, "size": 0, "path": name}
            if recursive or len(parts) == 1:
                row = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": path}
                if entry["lfs"]:
                    row["lfs"] = {"oid": entry["lfs"], "size": entry["size"],
                                  "pointerSize": len(pointer_of(entry["lfs"], entry["size"]))}
                entries[path] = row
        if folder and not entries:
            raise Refused(404, "EntryNotFound", "%s does not exist" % folder)
        return [entries[k] for k in sorted(entries)]
