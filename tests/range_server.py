"""Serve one file by byte ranges; prints the port. GDAL holds the lock: a process of its own."""

import http.server
import re
import sys
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    content = Path(sys.argv[1]).read_bytes()

    def do_HEAD(self):
        self.answer(self.content, 200, body=False)

    def do_GET(self):
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not found:
            self.answer(self.content, 200)
            return
        first, last = (int(g) for g in found.groups())
        self.answer(self.content[first : last + 1], 206, first)

    def answer(self, part, status, first=0, body=True):
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if status == 206:
            end = first + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(self.content)}")
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
