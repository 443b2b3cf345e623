"""A web in a box: serves the pictures of a made-up web over real HTTP, on loopback, for as long as needed.

It acts as an HTTP proxy, so that URLs keep their names whatever port is free, and a URL it does not know
is a dead link.
"""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd

from augbench.images import load_bytes


@contextlib.contextmanager
def serve(pictures: pd.DataFrame) -> Iterator[str]:
    """Serve an image table by its column ``url``; yields the proxy's address, e.g. ``http://127.0.0.1:40123``."""
    rows = {row.url: row for row in pictures.itertuples()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # the name that http.server calls
            row = rows.get(self.path)
            if row is None:
                self.send_error(404)
                return
            data = load_bytes(row)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
