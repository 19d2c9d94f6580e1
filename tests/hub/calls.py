"""What each call of the test Hub does. A call takes the request's handler and gives an Answer or raises Refused."""
import base64
import hashlib
import json
import math
import os
import re
import urllib.parse

import handler as http
from store import Refused, upload_mode

LFS = "application/vnd.git-lfs+json"
NAME = r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+"
SHA = re.compile(r"[0-9a-f]{64}")

# (method, path, phase); the first that fits counts
ROUTES = [(m, re.compile(p), phase) for m, p, phase in (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "other"),
    ("POST", r"/api/validate-yaml", "other"),
    ("GET", r"/api/agent-harnesses", "other"),
    ("POST", r"/api/complete_multipart", "complete"),
    ("GET", r"/api/models/(?P<repo>%s)/refs" % NAME, "refs"),
    ("GET", r"/api/models/(?P<repo>%s)/commits/(?P<rev>[^/]+)" % NAME, "info"),
    ("GET", r"/api/models/(?P<repo>%s)/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?" % NAME, "tree"),
    ("POST", r"/api/models/(?P<repo>%s)/preupload/(?P<rev>[^/]+)" % NAME, "preupload"),
    ("POST", r"/api/models/(?P<repo>%s)/commit/(?P<rev>[^/]+)" % NAME, "commit"),
    ("POST", r"/api/models/(?P<repo>%s)/paths-info/(?P<rev>[^/]+)" % NAME, "tree"),
    ("GET", r"/api/models/(?P<repo>%s)(?:/revision/(?P<rev>[^/]+))?" % NAME, "info"),
    ("POST", r"/(?P<repo>%s)\.git/info/lfs/objects/batch" % NAME, "batch"),
    ("POST", r"/(?P<repo>%s)\.git/info/lfs/objects/verify" % NAME, "verify"),
    ("HEAD", r"/(?P<repo>%s)/resolve/(?P<rev>[^/]+)/(?P<path>.+)" % NAME, "head"),
    ("GET", r"/(?P<repo>%s)/resolve/(?P<rev>[^/]+)/(?P<path>.+)" % NAME, "get"),
    ("HEAD", r"/api/resolve-cache/models/(?P<repo>%s)/(?P<rev>[^/]+)/(?P<path>.+)" % NAME, "head"),
    ("GET", r"/api/resolve-cache/models/(?P<repo>%s)/(?P<rev>[^/]+)/(?P<path>.+)" % NAME, "regular"),
    ("GET", r"/drive/(?:uc|download)", "drive"),
)]


def route(method, path):
    for m, pattern, phase in ROUTES:
        match = pattern.fullmatch(path) if m == method else None
        if match:
            return phase, {k: urllib.parse.unquote(v) for k, v in match.groupdict().items() if v is not None}
    return "other", None


def phase_of(method, path):
    return "control" if path.startswith("/_control/") else route(method, path)[0]


def answer(h, phase):
    if phase == "control":
        return control(h)
    _, fields = route(h.command, h.url_path)
    if fields is None:
        h.read_body()
        h.violation("the Hub has no such call")
        raise Refused(404, None, "Not found: %s %s" % (h.command, h.url_path))
    if phase == "other":
        return other(h)
    return CALLS[phase](h, fields)


def control(h):
    hub, name = h.hub, h.url_path[len("/_control/"):]
    body = h.read_body()
    if name == "fault":
        try:
            hub.faults.add(json.loads(body))
        except ValueError as e:
            raise Refused(400, None, str(e))
    elif name == "clear":
        hub.faults.clear()
    elif name == "seed":
        return http.Answer.of_json({"oid": hub.seed(json.loads(body))})
    elif name == "history":
        state = hub.store.load(h.query["repo"])
        return http.Answer.of_json(state and state["commits"])
    elif name == "violations":
        return http.Answer.of_json(hub.violations)
    elif name == "faults":
        return http.Answer.of_json(hub.faults.left())
    else:
        raise Refused(404, None, "no control is named %s" % name)
    return http.Answer.of_json({})


def parallel(h):
    _, fields = route(h.command, h.url_path)
    if fields and "repo" in fields and h.hub.store.load(fields["repo"]):
        h.hub.parallel_commit(fields["repo"], fields["rev"])


# who asks

def role(h):
    """write, read or None; a token that nobody has is refused whatever the call."""
    value = h.headers.get("Authorization")
    if value is None:
        return None
    if value == "Bearer " + h.hub.token:
        return "write"
    if value == "Bearer " + h.hub.read_token:
        return "read"
    raise Refused(401, None, "Invalid credentials in Authorization header")


def repo_of(h, fields, write=False, files=False):
    who = role(h)
    state = h.hub.store.load(fields["repo"])
    mine = fields["repo"].startswith(h.hub.user + "/")
    if state is None or (state["private"] and (who is None or not mine)):
        if who is None:
            raise Refused(401, "RepoNotFound", "Invalid username or password.")
        raise Refused(404, "RepoNotFound", "Repository not found")
    if write and (who != "write" or not mine):
        raise Refused(403 if who else 401, None, "You don't have the right to write to %s" % fields["repo"])
    if files and state["gated"] and not mine:
        raise Refused(403 if who else 401, "GatedRepo", "Access to model %s is restricted. You must have access to it and be "
                      "authenticated to access it. Please log in." % fields["repo"])
    return state


def need_type(h, wanted, accept=None):
    if h.headers.get("Content-Type", "").split(";")[0].strip() != wanted:
        h.violation("Content-Type is %s and not %s" % (h.headers.get("Content-Type"), wanted))
        raise Refused(415, None, "Content-Type has to be %s" % wanted)
    if accept and accept not in h.headers.get("Accept", ""):
        h.violation("Accept is %s and not %s" % (h.headers.get("Accept"), accept))
        raise Refused(406, None, "Accept has to be %s" % accept)


def json_body(h, kind="application/json", accept=None):
    body = h.read_body()
    need_type(h, kind, accept)
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        h.violation("the body is no JSON object")
        raise Refused(400, None, "Bad JSON")
    return value


# the calls

def whoami(h, _):
    who = role(h)
    if who is None:
        raise Refused(401, None, "Invalid username or password.")
    return http.Answer.of_json({"type": "user", "id": "0" * 24, "name": h.hub.user, "fullname": h.hub.user, "isPro": False,
                                "canPay": False, "orgs": [],
                                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": who}}})


def create(h, _):
    body = json_body(h)
    who = role(h)
    if who is None:
        raise Refused(401, None, "Invalid username or password.")
    repo = "%s/%s" % (body.get("organization") or h.hub.user, body.get("name"))
    reply = {"url": "%s/%s" % (h.hub.base, repo), "name": repo, "id": "1" * 24}
    if who != "write" or not repo.startswith(h.hub.user + "/"):
        raise Refused(403, None, "You don't have the rights to create a model under the namespace \"%s\"" % repo.split("/")[0])
    if not re.fullmatch(NAME, repo) or "--" in repo or ".." in repo or body.get("type", "model") != "model":
        h.violation("a repository cannot be named so, or is no model")
        raise Refused(400, None, "Invalid repository")
    if h.hub.store.load(repo) is not None:
        return http.Answer.of_json(dict(reply, error="You already created this model repo"), 409)
    h.hub.store.create(repo, body.get("private") is True or body.get("visibility") == "private")
    return http.Answer.of_json(reply)


def other(h):
    if h.command == "GET":  # huggingface_hub 1.x asks for a list of its own use, and does without
        raise Refused(404, None, "Not found")
    if h.url_path == "/api/repos/delete":
        body = json_body(h)
        fields = {"repo": "%s/%s" % (body.get("organization") or h.hub.user, body.get("name"))}
        repo_of(h, fields, write=True)
        os.unlink(h.hub.store._file(fields["repo"]))
        return http.Answer.of_json({})
    body = json_body(h)
    if not isinstance(body.get("content"), str):
        h.violation("validate-yaml without content")
    return http.Answer.of_json({"errors": [], "warnings": []})


def info(h, fields):
    state = repo_of(h, fields)
    commit = h.hub.store.commit_of(state, fields.get("rev", "main"))
    if "/commits/" in h.url_path:
        rows = [{"id": c["oid"], "title": c["title"], "message": "", "date": c["date"], "authors": []}
                for c in reversed(state["commits"])]
        return http.Answer.of_json(rows)
    return http.Answer.of_json({
        "_id": "1" * 24, "id": fields["repo"], "modelId": fields["repo"], "sha": commit["oid"], "private": state["private"],
        "gated": "manual" if state["gated"] else False, "disabled": False, "lastModified": commit["date"],
        "createdAt": state["commits"][0]["date"], "tags": [], "downloads": 0, "likes": 0,
        "siblings": [{"rfilename": p} for p in sorted(commit["files"])]})


def refs(h, fields):
    state = repo_of(h, fields)
    rows = [{"name": b, "ref": "refs/heads/" + b, "targetCommit": c} for b, c in state["branches"].items()]
    return http.Answer.of_json({"branches": rows, "tags": [], "converts": []})


def tree(h, fields):
    state = repo_of(h, fields)
    commit = h.hub.store.commit_of(state, fields["rev"])
    if h.command == "POST":
        paths = urllib.parse.parse_qs(h.read_body().decode()).get("paths", [])
        rows = [r for r in h.hub.store.tree(commit["files"], "", True) if r["path"] in paths]
        return http.Answer.of_json(rows)
    recursive = h.query.get("recursive", "false").lower() in ("true", "1")
    rows = h.hub.store.tree(commit["files"], fields.get("path", ""), recursive)
    if h.hub.other_forms:
        rows = [dict(r, lastCommit=None, xetHash="0" * 64, securityFileStatus={"status": "safe"}) for r in
                sorted(rows, key=lambda r: hashlib.sha1(r["path"].encode()).hexdigest())]
    start = int(h.query.get("cursor", "0"))
    page = rows[start:start + h.hub.page]
    headers = {}
    if start + h.hub.page < len(rows):
        query = dict(h.query, cursor=str(start + h.hub.page))
        headers["Link"] = '<%s%s?%s>; rel="next"' % (h.hub.base, h.url_path, urllib.parse.urlencode(query))
        if h.hub.other_forms:
            headers["Link"] = '</first>; rel="first", <%s?%s>; title="a"; rel=next' % (h.url_path, urllib.parse.urlencode(query))
    return http.Answer.of_json(page, headers=headers)


def preupload(h, fields):
    body = json_body(h)
    state = repo_of(h, fields, write=True)
    commit = h.hub.store.commit_of(state, fields["rev"])
    asked = body.get("files")
    if not isinstance(asked, list) or len(asked) > 256:
        h.violation("preupload takes at most 256 files")
        raise Refused(400, None, "Too many files")
    rows = []
    for row in asked:
        size, sample = row["size"], base64.b64decode(row["sample"], validate=True)
        if len(sample) != min(512, size):
            h.violation("the sample of %s has %d bytes of %d" % (row["path"], len(sample), size))
        there = commit["files"].get(row["path"])
        rows.append({"path": row["path"], "uploadMode": upload_mode(row["path"], size), "shouldIgnore": False,
                     "oid": (there["lfs"] or there["oid"]) if there else None})
    return http.Answer.of_json({"files": rows})


def batch(h, fields):
    body = json_body(h, LFS, LFS)
    repo_of(h, fields, write=True)
    asked = body.get("objects")
    if body.get("operation") != "upload" or not isinstance(asked, list) or len(asked) > 256:
        h.violation("a batch is an upload of at most 256 objects")
        raise Refused(422, None, "Bad batch")
    if body.get("hash_algo", "sha256") not in ("sha256", "sha_256"):
        h.violation("hash_algo is %s" % body.get("hash_algo"))
    rows = []
    for row in asked:
        oid, size = row["oid"], row["size"]
        out = {"oid": oid, "size": size, "authenticated": True}
        rows.append(out)
        if not SHA.fullmatch(oid) or not isinstance(size, int) or size <= 0:
            h.violation("no LFS object: %s %s" % (oid, size))
            out["error"] = {"code": 422, "message": "Bad object"}
        elif not h.hub.store.has(oid, size):
            out["actions"] = actions(h, fields["repo"], oid, size, "multipart" in body.get("transfers", ["basic"]))
    multipart = any("chunk_size" in r.get("actions", {}).get("upload", {}).get("header", {}) for r in rows)
    return http.Answer.of_json({"transfer": "multipart" if multipart else "basic", "objects": rows}, kind=LFS)


def sign(hub, text):
    return hashlib.sha256((hub.secret + text).encode()).hexdigest()[:32]


def actions(h, repo, oid, size, multipart):
    hub = h.hub
    verify = {"href": "%s/%s.git/info/lfs/objects/verify" % (hub.base, repo), "header": {}}
    if not multipart or size <= hub.chunk:
        href = "%s/object/%s?size=%d&sig=%s" % (hub.cdn, oid, size, sign(hub, "%s %d" % (oid, size)))
        return {"upload": {"href": href, "header": {}, "expires_in": 900}, "verify": verify}
    upload = os.urandom(6).hex()
    os.makedirs(os.path.join(hub.store.root, "parts", upload))
    header = {"chunk_size": hub.chunk if hub.other_forms else str(hub.chunk)}
    for n in range(1, math.ceil(size / hub.chunk) + 1):
        want = min(hub.chunk, size - (n - 1) * hub.chunk)
        header[("%d" if hub.other_forms else "%05d") % n] = "%s/part/%s/%d?size=%d&sig=%s" % (hub.cdn, upload, n, want,
                                                               sign(hub, "%s %d %d" % (upload, n, want)))
    href = "%s/api/complete_multipart?uploadId=%s&oid=%s&size=%d&sig=%s" % (hub.base, upload, oid, size,
                                                                           sign(hub, upload + oid + str(size)))
    return {"upload": {"href": href, "header": header, "expires_in": 900}, "verify": verify}


def store_put(h):
    """PUT to the store: an object or a part, which has to have the size that was signed."""
    hub, size = h.hub, int(h.query.get("size", "-1"))
    length = h.headers.get("Content-Length")
    match = re.fullmatch(r"/object/([0-9a-f]{64})|/part/([0-9a-f]{12})/(\d+)", h.url_path)
    if match and match.group(1):
        text, target = "%s %d" % (match.group(1), size), hub.store.object_path(match.group(1))
    elif match:
        text = "%s %s %d" % (match.group(2), match.group(3), size)
        target = os.path.join(hub.store.root, "parts", match.group(2), match.group(3))
    if not match or h.query.get("sig") != sign(hub, text):
        h.violation("a URL that was not signed")
        raise Refused(403, None, "SignatureDoesNotMatch")
    if length is None or int(length) != size:
        h.violation("Content-Length is %s and not %d" % (length, size))
        raise Refused(400, None, "Wrong length")
    etag, sha = hashlib.md5(), hashlib.sha256()
    temporary = "%s.%s" % (target, os.urandom(4).hex())
    with open(temporary, "wb") as f:
        while h.bytes_in < size:
            piece = h.rfile.read(min(http.PIECE, size - h.bytes_in))
            if not piece:
                os.unlink(temporary)
                raise ConnectionError("the body ends early")
            h.bytes_in += len(piece)
            f.write(piece)
            etag.update(piece)
            sha.update(piece)
    if match.group(1) and sha.hexdigest() != match.group(1):
        os.unlink(temporary)
        raise Refused(400, None, "The content is not what its name says")
    os.replace(temporary, target)
    return http.Answer(200, {"ETag": '"%s"' % etag.hexdigest()})


def complete(h, _):
    body = json_body(h, LFS, LFS)
    hub, upload, oid, size = h.hub, h.query.get("uploadId", ""), h.query.get("oid", ""), int(h.query.get("size", "0"))
    if h.query.get("sig") != sign(hub, upload + oid + str(size)) or body.get("oid") != oid:
        h.violation("a completion that was not signed, or of another object")
        raise Refused(403, None, "SignatureDoesNotMatch")
    folder = os.path.join(hub.store.root, "parts", upload)
    numbers = [p["partNumber"] for p in body["parts"]]
    if numbers != list(range(1, math.ceil(size / hub.chunk) + 1)):
        h.violation("the parts are not 1 to %d" % math.ceil(size / hub.chunk))
        raise Refused(400, None, "InvalidPartOrder")
    sha, whole = hashlib.sha256(), os.path.join(folder, "whole")
    with open(whole, "wb") as out:
        for part in body["parts"]:
            try:
                with open(os.path.join(folder, str(part["partNumber"])), "rb") as f:
                    data = f.read()
            except FileNotFoundError:
                raise Refused(400, None, "InvalidPart: %s was not uploaded" % part["partNumber"])
            if part["etag"] != '"%s"' % hashlib.md5(data).hexdigest():
                h.violation("the etag of part %s" % part["partNumber"])
                raise Refused(400, None, "InvalidPart: etag of %s" % part["partNumber"])
            sha.update(data)
            out.write(data)
    if sha.hexdigest() != oid:
        raise Refused(400, None, "The content is not what its name says")
    os.replace(whole, hub.store.object_path(oid))
    return http.Answer.of_json({"success": True}, kind=LFS)


def verify(h, fields):
    body = json_body(h)
    repo_of(h, fields, write=True)
    if not h.hub.store.has(body["oid"], body["size"]):
        raise Refused(404, None, "The object was not uploaded")
    return http.Answer.of_json({})


def commit(h, fields):
    body = h.read_body()
    need_type(h, "application/x-ndjson")
    state = repo_of(h, fields, write=True)
    try:
        rows = [json.loads(line) for line in body.decode().split("\n") if line]
        header = rows[0]["value"] if rows[0]["key"] == "header" else None
        operations = [operation(h, r["key"], dict(r["value"])) for r in rows[1:]]
    except (ValueError, KeyError, IndexError, TypeError) as e:
        header, operations = None, [str(e)]
    if header is None or not isinstance(header.get("summary"), str):
        h.violation("the commit is no ndjson with a header first: %s" % operations[:1])
        raise Refused(400, None, "Bad commit")
    if not header["summary"]:
        raise Refused(400, None, "A commit needs a summary")
    oid = h.hub.store.commit(fields["repo"], fields["rev"], header["summary"], header.get("parentCommit"), operations)
    del state
    return http.Answer.of_json({"success": True, "commitOid": oid, "hookOutput": "",
                                "commitUrl": "%s/%s/commit/%s" % (h.hub.base, fields["repo"], oid)})


def operation(h, kind, value):
    if kind == "file":
        if value.get("encoding") != "base64":
            raise ValueError("a file that is not base64")
        value["data"] = base64.b64decode(value["content"], validate=True)
        if upload_mode(value["path"], len(value["data"])) == "lfs":
            h.violation("%s is sent as a regular file, preupload said lfs" % value["path"])
            raise Refused(400, None, "%s has to be an LFS file" % value["path"])
    elif kind == "lfsFile":
        if value.get("algo") != "sha256" or not SHA.fullmatch(value["oid"]):
            raise ValueError("an lfsFile without sha256")
    elif kind not in ("deletedFile", "deletedFolder"):
        raise ValueError("no operation is named %s" % kind)
    return kind, value


def resolve(h, fields):
    """LFS: 302 to the store. Regular: 307 on the same host, and the content there."""
    hub, cached = h.hub, h.url_path.startswith("/api/resolve-cache/")
    state = repo_of(h, fields, files=True)
    found = hub.store.commit_of(state, fields["rev"])
    entry = found["files"].get(fields["path"])
    if entry is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": found["oid"], "ETag": '"%s"' % entry["oid"], "Content-Type": "application/octet-stream"}
    if entry["lfs"]:
        sha = entry["lfs"]
        headers.update({"X-Linked-Etag": '"%s"' % sha, "X-Linked-Size": str(entry["size"]), "X-Xet-Hash": sha[::-1],
                        "Location": "%s/object/%s?sig=%s" % (hub.cdn, sha, sign(hub, "get " + sha))})
        return http.Answer(302, headers)
    if not cached:
        target = "/api/resolve-cache/models/%s/%s/%s?%s=&etag=%%22%s%%22" % (
            fields["repo"], found["oid"], urllib.parse.quote(fields["path"]), urllib.parse.quote(h.url_path, safe=""),
            entry["oid"])
        if hub.other_forms:  # from /owner/name/resolve/commit/path
            target = "../" * (4 + fields["path"].count("/")) + target[1:]
        return http.Answer(308 if hub.other_forms else 307, {"Location": target, "X-Repo-Commit": found["oid"]})
    if fields["path"].endswith((".json", ".txt", ".md", ".jinja", ".gitattributes")):
        headers["X-Test-Text"] = "1"
    return h.file_answer(hub.store.object_path(entry["oid"]), headers)


def drive(h, _):
    if "Authorization" in h.headers:
        h.violation("Authorization was sent to Drive")
    status, kind, data = h.hub.drive.answer(h.url_path, h.query, h.hub.base)
    path = os.path.join(h.hub.drive.root, h.query.get("id", "").replace("/", "_"))
    if kind == "application/octet-stream":
        return h.file_answer(path, {"Content-Type": kind})
    return http.Answer(status, {"Content-Type": kind}, data)


def cdn_answer(h):
    if h.command == "PUT":
        return store_put(h)
    match = re.fullmatch(r"/object/([0-9a-f]{64})", h.url_path)
    if h.command not in ("GET", "HEAD") or not match:
        h.violation("the store has no such call")
        raise Refused(404, None, "Not found")
    sha = match.group(1)
    if h.query.get("sig") != sign(h.hub, "get " + sha):
        h.violation("a URL that was not signed")
        raise Refused(403, None, "SignatureDoesNotMatch")
    # 64 hex digits that are not the content's sha256, as the real store has them
    return h.file_answer(h.hub.store.object_path(sha), {"ETag": '"%s"' % hashlib.sha256(sha.encode()).hexdigest()})


CALLS = {"whoami": whoami, "create": create, "info": info, "refs": refs, "tree": tree, "preupload": preupload,
         "batch": batch, "complete": complete, "verify": verify, "commit": commit, "head": resolve, "get": resolve,
         "regular": resolve, "drive": drive}
