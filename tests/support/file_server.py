"""A small local HTTP server that serves files like the hub, and fails on demand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server offers and what it was asked.

    files: path -> content.
    cuts: path -> after how many bytes each next answer breaks off.
    resumes: whether a Range is honoured.
    stalls: paths whose answers stop in the middle until `released`.
    requests: path and Range of every request for content.
    refused: every path that was asked for in vain.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    resumes: bool = True
    stalls: set[str] = field(default_factory=set)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)


def handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            content = served.files.get(self.path)
            if content is None:
                served.refused.add(self.path)
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.path.split("/")[4] if self.path.count("/") > 4 else "0" * 40)
            self.end_headers()

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.requests.append((self.path, asked))
            content = served.files.get(self.path)
            if content is None:
                served.refused.add(self.path)
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.resumes else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.send_body(content[start:])

        def send_body(self, body: bytes) -> None:
            cuts = served.cuts.get(self.path)
            if cuts:
                self.wfile.write(body[: cuts.pop(0)])
                self.close_connection = True
            elif self.path in served.stalls:
                self.wfile.write(body[: len(body) // 2])
                served.stalled.set()
                served.released.wait(60)
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def serving() -> Iterator[Served]:
    """The running server."""
    served = Served()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served)) as server:
        server.daemon_threads = True
        served.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield served
        finally:
            served.released.set()
            server.shutdown()
