"""Google Drive's public download as the test Hub plays it: /drive/uc?export=download&id=ID.

DIR/drive/ID is the file's content. A file above LARGE bytes is answered with the page that asks whether to go on without a
virus scan; its form leads to /drive/download with id, export, confirm and uuid. A file that is not there is a 404 page; an
ID that starts with "quota" is the page that says that too many people have asked for it, with status 200.
"""
import html
import os

LARGE = 1 << 16

PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="%s/drive/download" method="get">
<input type="submit" id="uc-download-link" class="goog-inline-block jfk-button" value="Download anyway"/>
<input type="hidden" name="id" value="%s"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="%s"></form></body></html>"""
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p></body></html>"""


class Drive:
    UUID = "6f0d2c1a-77aa-4c52-9f5e-000000000001"

    def __init__(self, root):
        self.root = os.path.join(root, "drive")
        os.makedirs(self.root, exist_ok=True)

    def answer(self, path, query, base):
        """(status, content type, bytes)"""
        name = query.get("id", "")
        if name.startswith("quota"):
            return 200, "text/html", QUOTA.encode()
        if not name or "/" in name or not os.path.exists(os.path.join(self.root, name)):
            return 404, "text/html", b"<html><body>Not found</body></html>"
        with open(os.path.join(self.root, name), "rb") as f:
            data = f.read()
        if path == "/drive/uc" and len(data) > LARGE:
            return 200, "text/html; charset=utf-8", (PAGE % (base, html.escape(name), self.UUID)).encode()
        if path == "/drive/download" and (query.get("confirm") != "t" or query.get("uuid") != self.UUID):
            return 400, "text/html", b"<html><body>Bad request</body></html>"
        return 200, "application/octet-stream", data
