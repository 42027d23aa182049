"""Stands between a client and the S3 server: holds up commits, and loses the answer to a put that was stored."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_COMMIT = re.compile(r"/_delta_log/\d+\.json")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class S3Proxy:
    """Forwards every request as it is, signature and all; use it as a context manager.

    Lifecycle rules it keeps itself, as they came: the server behind knows no storage classes.
    A put of a commit is on its way for `commit_seconds`: that much later than it was sent does the server see it.
    Not for delta-rs in the same process, which holds the interpreter's lock while it waits: `main` is for that.
    """

    def __init__(self, server_port: int, commit_seconds: float = 0.0) -> None:
        self.server_port = server_port
        self.commit_seconds = commit_seconds
        self.lifecycles: dict[str, bytes] = {}
        self.lost: list[str] = []
        self.puts: list[tuple[str, int]] = []
        self._lose = ""
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def lose_answer_to(self, ending: str) -> None:
        """Lose the answer to the next put of an object whose name ends so, once it is stored."""
        with self._lock:
            self._lose = ending

    def loses(self, path: str, status: int) -> bool:
        """Note a put and its answer, and say whether that is the one to lose."""
        with self._lock:
            self.puts.append((path, status))
            if not self._lose or not path.endswith(self._lose) or status != http.client.OK:
                return False
            self._lose = ""
            self.lost.append(path)
            return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)


def main() -> None:
    """Serve in a process of its own until the input ends; prints the address."""
    with S3Proxy(int(sys.argv[1])) as proxy:
        print(proxy.url, flush=True)  # noqa: T201
        sys.stdin.read()


class _Handler(BaseHTTPRequestHandler):
    proxy: S3Proxy
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("?lifecycle"):
            self.keep_lifecycle(body)
            return
        if self.command == "PUT" and _COMMIT.search(self.path):
            time.sleep(self.proxy.commit_seconds)
        server = http.client.HTTPConnection("127.0.0.1", self.proxy.server_port, timeout=60)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                server.putheader(name, value)
        server.endheaders(body)
        answer = server.getresponse()
        content = answer.read()
        server.close()
        if self.command == "PUT" and self.proxy.loses(self.path.partition("?")[0], answer.status):
            # SO_LINGER with zero time-out makes close() send a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.answer(answer.status, content, answer.getheaders(), int(length or 0))

    def keep_lifecycle(self, body: bytes) -> None:
        bucket = self.path.strip("/").partition("?")[0]
        if self.command == "PUT":
            self.proxy.lifecycles[bucket] = body
        if self.command == "GET" and bucket not in self.proxy.lifecycles:
            self.answer(404, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>")
        else:
            self.answer(200, self.proxy.lifecycles[bucket] if self.command == "GET" else b"")

    def answer(
        self, status: int, content: bytes, headers: Sequence[tuple[str, str]] = (), length: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815 - their names in http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


if __name__ == "__main__":
    main()
