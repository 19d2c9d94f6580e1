"""The HTTP side of the test Hub: one answer a request, faults, the log. What each call means is in calls.py."""
import json
import re
import socket
import struct
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler

import calls
from store import Refused

HTML = b"<!DOCTYPE html><html><body><h1>Hello</h1>Please sign in to this network.</body></html>"
EXPIRED = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
PIECE = 1 << 18


class Answer:
    """What is sent: a status, headers, and bytes or (path, start, length) of a file."""

    def __init__(self, status=200, headers=None, body=b"", file=None):
        self.status, self.headers, self.body, self.file = status, dict(headers or {}), body, file

    @staticmethod
    def of_json(value, status=200, headers=None, kind="application/json; charset=utf-8"):
        return Answer(status, dict({"Content-Type": kind}, **(headers or {})), json.dumps(value).encode())

    @staticmethod
    def refused(e):
        headers = {"X-Error-Message": e.text.replace("\n", " ")}
        if e.code:
            headers["X-Error-Code"] = e.code
        return Answer.of_json({"error": e.text}, e.status, headers)

    def length(self):
        return self.file[2] if self.file else len(self.body)

    def bytes(self):
        if not self.file:
            return self.body
        with open(self.file[0], "rb") as f:
            f.seek(self.file[1])
            return f.read(self.file[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "TestHub/1"
    disable_nagle_algorithm = True
    timeout = 900
    host_name = "hub"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def read_body(self):
        """The body's bytes; the store's PUT reads its own."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.violation("a chunked request body")
            raise Refused(411, None, "Length required")
        n = int(self.headers.get("Content-Length", "0"))
        data = b""
        while len(data) < n:
            piece = self.rfile.read(min(n - len(data), PIECE))
            if not piece:
                raise ConnectionError("the body ends early")
            data += piece
        self.bytes_in = len(data)
        return data

    def violation(self, text):
        self.row["violation"] = text

    def cut(self, reset):
        """Ends the connection, with RST if asked."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.connection.close()
        self.close_connection = True

    def stall(self, fault):
        time.sleep(fault.get("stall_s", 600))
        self.cut(False)

    def serve(self):
        start = time.time()
        self.bytes_in = 0
        parts = urllib.parse.urlsplit(self.path)
        self.url_path = parts.path
        self.query = dict(urllib.parse.parse_qsl(parts.query))
        self.row = {"host": self.host_name, "method": self.command, "path": self.path,
                    "auth": "Authorization" in self.headers, "range": self.headers.get("Range")}
        phase = self.phase_of()
        control = phase == "control"
        fault = None if control else self.hub.faults.take(phase)
        self.row.update(phase=phase, fault=fault["fault"] if fault else None)
        try:
            if not control:
                self.check_headers()
            self.act(phase, fault)
        except (ConnectionError, TimeoutError, ValueError) as e:
            self.row["broken"] = str(e)
            self.close_connection = True
        self.row.update(ms=round(1000 * (time.time() - start)), bytes_in=self.bytes_in, t=round(start, 3))
        if not control:
            self.hub.log(self.row)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def check_headers(self):
        raise NotImplementedError

    def act(self, phase, fault):
        name = fault["fault"] if fault else None
        if name == "stall" and "at" not in fault:
            return self.stall(fault)
        if name == "reset" and "at" not in fault:
            return self.cut(True)
        if name == "parallel":
            calls.parallel(self)
        early = self.early_answer(name, fault)
        if early is not None:
            # The body is read all the same: a client that is still sending would see a reset in place of the answer.
            self.read_body()
            return self.send(early, None)
        try:
            answer = self.answer(phase)
        except Refused as e:
            answer = Answer.refused(e)
        if name == "lost":
            self.row["status"] = answer.status
            return self.cut(True)
        return self.send(answer, fault)

    def early_answer(self, name, fault):
        if name is None:
            return None
        if name.isdigit():
            headers = {"Content-Type": "application/json"}
            if name in ("429", "503"):
                headers["Retry-After"] = str(fault.get("retry_after", 1))
            if name == "429":
                headers["RateLimit"] = '"api";r=0;t=%d' % fault.get("retry_after", 1)
            for key, value in fault.get("headers", {}).items():
                headers[key] = value
            return Answer(int(name), headers, json.dumps({"error": fault.get("text", "Made by a fault")}).encode())
        if name == "html":
            return Answer(200, {"Content-Type": "text/html"}, HTML)
        if name == "expired":
            return Answer(403, {"Content-Type": "application/xml"}, EXPIRED)
        return None

    def send(self, answer, fault):
        name = fault["fault"] if fault else None
        self.row["status"] = answer.status
        head = self.command == "HEAD"
        if name == "halfjson":
            answer = Answer(answer.status, answer.headers, answer.bytes()[:answer.length() // 2])
        if name == "lie":
            rows = json.loads(answer.bytes())
            row = next(r for r in rows if r["type"] == "file" and "lfs" not in r)
            row[fault["field"]] = "../" * 12 + "evil"
            answer = Answer(answer.status, answer.headers, json.dumps(rows).encode())
        if name == "corrupt" and answer.length():
            data = bytearray(answer.bytes())
            data[len(data) // 2] ^= 1
            answer = Answer(answer.status, answer.headers, bytes(data))
        if self.hub.other_forms and answer.headers.get("Content-Type", "").endswith(("json", "utf-8")) and not head:
            return self.send_otherwise(answer, fault)
        self.send_response(answer.status)
        zipped = (answer.headers.pop("X-Test-Text", None) and not head and answer.status == 200 and
                  "gzip" in self.headers.get("Accept-Encoding", ""))
        for key, value in answer.headers.items():
            if not (zipped and key == "Accept-Ranges"):
                self.send_header(key, value)
        self.send_header("RateLimit-Policy", '"fixed window";"api";q=1000;w=300')
        if zipped:
            return self.send_zipped(answer.bytes())
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(answer.length()))
        self.end_headers()
        if not head:
            self.send_content(answer, fault if name in ("truncate", "reset", "stall") else None)

    def send_otherwise(self, answer, fault):
        """The same answer in a form that clients seldom meet: in chunks, or as HTTP/1.0 that ends with the connection."""
        data = answer.bytes()
        if fault:
            data = data[:len(data) // 2]
        self.hub.n_answers += 1
        chunked = self.hub.n_answers % 2 == 0
        lines = ["HTTP/1.%d %d" % (chunked, answer.status), "connection: close"]
        lines += ["%s: %s" % (k.lower(), v) for k, v in answer.headers.items()] + ["transfer-encoding: chunked"] * chunked
        self.wfile.write("\r\n".join(lines + ["", ""]).encode())
        for at in range(0, len(data), 700) if chunked else ():
            piece = data[at:at + 700]
            self.wfile.write(b"%X;odd=1\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\nx-trailer: 1\r\n\r\n" if chunked and not fault else b"" if chunked else data)
        self.wfile.flush()
        self.cut(False)

    def send_zipped(self, data):
        """As the real Hub sends text to those who offer gzip: compressed, chunked, without a length."""
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        data = packer.compress(data) + packer.flush()
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    def send_content(self, answer, fault):
        stop = answer.length()
        if fault:
            stop = min(stop, fault.get("at", stop // 2))
        if answer.file:
            with open(answer.file[0], "rb") as f:
                f.seek(answer.file[1])
                left = stop
                while left:
                    piece = f.read(min(PIECE, left))
                    self.wfile.write(piece)
                    left -= len(piece)
        else:
            self.wfile.write(answer.body[:stop])
        self.wfile.flush()
        if fault:
            # What was sent has to arrive before the reset throws away what is still on its way.
            time.sleep(0.1)
            if fault["fault"] == "stall":
                return self.stall(fault)
            self.cut(fault["fault"] == "reset")

    def file_answer(self, path, headers):
        """A file, or the piece of it that Range asks for."""
        import os
        size = os.path.getsize(path)
        headers = dict(headers, **{"Accept-Ranges": "bytes"})
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return Answer(200, headers, file=(path, 0, size))
        first = int(match.group(1))
        if self.row.get("fault") == "range":
            first = 0
        last = min(int(match.group(2)) if match.group(2) else size - 1, size - 1)
        if first >= size:
            return Answer(416, dict(headers, **{"Content-Range": "bytes */%d" % size}))
        headers["Content-Range"] = "bytes %d-%d/%d" % (first, last, size)
        return Answer(206, headers, file=(path, first, last - first + 1))


class HubHandler(Handler):
    host_name = "hub"

    def phase_of(self):
        return calls.phase_of(self.command, self.url_path)

    def check_headers(self):
        value = self.headers.get("Authorization")
        if value is not None and not value.startswith("Bearer "):
            self.violation("Authorization is no bearer")
        if "hf_" in self.path:
            self.violation("a token in the URL")
        if value and value[7:] and value[7:] in self.path:
            self.violation("a token in the URL")

    def answer(self, phase):
        return calls.answer(self, phase)


class CdnHandler(Handler):
    host_name = "cdn"

    def phase_of(self):
        return "put" if self.command == "PUT" else "cdn"

    def check_headers(self):
        if "Authorization" in self.headers:
            self.violation("Authorization was sent to the store")

    def answer(self, phase):
        if "Authorization" in self.headers:
            raise Refused(400, None, "Only one auth mechanism allowed")
        return calls.cdn_answer(self)
