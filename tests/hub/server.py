#!/usr/bin/env python3
"""A Hub for tests: the calls of the Hugging Face Hub that smgpt-dist and huggingface_hub make, over plain HTTP on this
machine, with faults on demand. Two servers run in one process: the Hub, and the store ("CDN") that signed URLs point to. The
store never wants a token: one that arrives there is a violation, and so is whatever the protocol does not know.

  server.py --state DIR [--port-file FILE] [--log FILE] [--token T] [--user NAME] [--read-token T] [--chunk BYTES]
            [--page N] [--faults FILE] [--other-forms]

--other-forms answers as a stricter or odder server may: JSON in chunks and in HTTP/1.0 without a length by turns, header names in small
letters, fields that nobody knows, numbers where text was, parts without zeros in front, a listing without order, several links
in a header, redirects to relative places.

FILE of --port-file is written when both listen: HF_ENDPOINT=... and CDN=... on two lines. The log has one JSON object a
request. It ends on SIGTERM, with 1 if there were violations.

Control, on the Hub's port, no token: POST /_control/fault (faults.py), /_control/clear, /_control/seed
{"repo","private","gated","files":{path: base64},"lfs":[paths],"delete":[paths]}, GET /_control/history?repo=..,
/_control/violations, /_control/faults.
"""
import argparse
import base64
import json
import os
import signal
import sys
import threading
import time
from http.server import ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from drive import Drive  # noqa: E402
from faults import Faults  # noqa: E402
from handler import CdnHandler, HubHandler  # noqa: E402
from store import Store, upload_mode  # noqa: E402


class Hub:
    """What both servers share."""

    def __init__(self, args):
        self.store = Store(args.state)
        self.faults = Faults()
        self.drive = Drive(args.state)
        self.token, self.read_token, self.user = args.token, args.read_token, args.user
        self.chunk, self.page = args.chunk, args.page
        self.other_forms, self.n_answers = args.other_forms, 0
        self.log_file = open(args.log, "a") if args.log else None
        self.log_lock = threading.Lock()
        self.violations = []
        self.n_parallel = 0
        self.secret = os.urandom(8).hex()
        self.base = self.cdn = ""
        if args.faults:
            self.faults.load(args.faults)

    def log(self, row):
        with self.log_lock:
            if row.get("violation"):
                self.violations.append(row)
            if self.log_file:
                self.log_file.write(json.dumps(row) + "\n")
                self.log_file.flush()

    def parallel_commit(self, repo, branch):
        """Somebody else's commit, as the fault "parallel" makes it."""
        self.n_parallel += 1
        value = {"path": "others/file-%d.txt" % self.n_parallel, "data": b"not yours\n"}
        self.store.commit(repo, branch, "Somebody else's commit", None, [("file", value)])

    def seed(self, request):
        repo = request["repo"]
        if self.store.load(repo) is None:
            self.store.create(repo, request.get("private", False), request.get("gated", False))
        operations = [("deletedFile", {"path": p}) for p in request.get("delete", [])]
        for path, content in request.get("files", {}).items():
            data = base64.b64decode(content)
            if path in request.get("lfs", []) or upload_mode(path, len(data)) == "lfs":
                entry = self.store.put_lfs(data)
                operations.append(("lfsFile", {"path": path, "oid": entry["lfs"], "size": len(data)}))
            else:
                operations.append(("file", {"path": path, "data": data}))
        return self.store.commit(repo, "main", request.get("title", "Seed"), None, operations)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def serve(handler, hub, port):
    server = Server(("127.0.0.1", port), handler)
    server.hub = hub
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return "http://127.0.0.1:%d" % server.server_address[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--port-file")
    parser.add_argument("--log")
    parser.add_argument("--token", default="hf_test_write")
    parser.add_argument("--read-token", default="hf_test_read")
    parser.add_argument("--user", default="tester")
    parser.add_argument("--chunk", type=int, default=16 << 20)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--other-forms", action="store_true")
    parser.add_argument("--faults")
    args = parser.parse_args()
    hub = Hub(args)
    hub.base = serve(HubHandler, hub, args.port)
    # Another name, not only another port: some versions of huggingface_hub send the token along when just the port changes.
    hub.cdn = serve(CdnHandler, hub, args.cdn_port).replace("127.0.0.1", "localhost")
    text = "HF_ENDPOINT=%s\nCDN=%s\n" % (hub.base, hub.cdn)
    if args.port_file:
        with open(args.port_file + ".new", "w") as f:
            f.write(text)
        os.replace(args.port_file + ".new", args.port_file)
    else:
        print(text, end="", flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    while not ended.is_set():
        time.sleep(0.05)
    for row in hub.violations:
        print("violation: %s" % json.dumps(row), file=sys.stderr)
    return 1 if hub.violations else 0


if __name__ == "__main__":
    sys.exit(main())
