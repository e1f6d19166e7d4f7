"""Serves bytes by HTTP: GET /bytes/N answers N bytes. The data server of one node."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = os.urandom(256 * 1024)
PORT = 8080


class Handler(BaseHTTPRequestHandler):
    """One answer per connection; the length is in the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the number of bytes asked for."""
        try:
            left = int(self.path.removeprefix("/bytes/"))
        except ValueError:
            self.send_error(404, "ask for /bytes/N")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        while left > 0:
            self.wfile.write(CHUNK[:left])
            left -= len(CHUNK)

    def log_message(self, format: str, *args: object) -> None:
        """A line per request would be most of the log."""


class Server(ThreadingHTTPServer):
    """Many readers at once."""

    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    Server(("", PORT), Handler).serve_forever()
