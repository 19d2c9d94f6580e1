"""The faults that the test Hub can be told to make.

One fault is a JSON object: {"fault": NAME, "phase": PHASE, "count": N, "skip": M, ...}. The next M requests of the phase go
through, the N after them are hit, then it is used up. PHASE is one of whoami create info refs tree preupload batch put
complete verify commit head get regular cdn drive, or "*". NAME is one of

  a number        that status; 429 and 503 with "Retry-After: retry_after" (1)
  reset           the connection is reset: before the body is read, or after "at" bytes of the answer's body
  stall           nothing comes for stall_s seconds (600): before the answer, or after "at" bytes of its body
  truncate        half of the body (or "at" bytes) under the full Content-Length, then the connection closes
  corrupt         one bit of the body is wrong
  html            200 with a page of HTML
  halfjson        200 with the first half of the right answer, complete as far as HTTP goes
  range           a Range is answered with the piece from the beginning, and the headers say so
  lie             in a listing, "field" of the first file leads out of the directory
  expired         403 as a store answers when a signed URL has run out
  lost            the request is carried out and the connection is closed without an answer
  parallel        before a commit is looked at, somebody else's commit lands on the branch
"""
import json
import threading

NAMES = {"reset", "stall", "truncate", "corrupt", "html", "halfjson", "expired", "lost", "parallel", "range", "lie"}
PHASES = {"whoami", "create", "info", "refs", "tree", "preupload", "batch", "put", "complete", "verify", "commit", "head",
          "get", "regular", "cdn", "drive", "other", "*"}


class Faults:
    def __init__(self):
        self.lock = threading.Lock()
        self.rows = []

    def add(self, row):
        row = dict(row)
        name = str(row.get("fault"))
        if name not in NAMES and not (name.isdigit() and 100 <= int(name) <= 599):
            raise ValueError("no fault is named %s" % name)
        if row.get("phase") not in PHASES:
            raise ValueError("no phase is named %s" % row.get("phase"))
        row["fault"] = name
        row.setdefault("count", 1)
        row.setdefault("skip", 0)
        with self.lock:
            self.rows.append(row)

    def load(self, path):
        with open(path) as f:
            for row in json.load(f):
                self.add(row)

    def clear(self):
        with self.lock:
            self.rows = []

    def left(self):
        with self.lock:
            return [dict(r) for r in self.rows if r["count"] > 0]

    def take(self, phase):
        """The fault that hits this request, or None."""
        with self.lock:
            for row in self.rows:
                if row["phase"] not in (phase, "*") or row["count"] <= 0:
                    continue
                if row["skip"] > 0:
                    row["skip"] -= 1
                    continue
                row["count"] -= 1
                return row
        return None
