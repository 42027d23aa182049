"""A provider on loopback: strict about its format, with a log of what was asked and a queue of misbehaviour."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

JSON = "application/json"
PAGE = b"<!DOCTYPE html><html><body>Gateway says hello</body></html>"


@dataclass(frozen=True)
class Request:
    """One request as it came; `at` is monotonic seconds."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = JSON


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Fault:
    """One misbehaviour: a fixed reply, a broken connection, or rows distorted before they are written."""

    name: str
    reply: Reply | None = None
    hang: float = 0.0
    reset: bool = False
    truncate: bool = False
    distort: str = ""


def too_many(retry_after: str | int | None = None) -> Fault:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault("too many", Reply(429, b'{"message":"slow down"}', headers))


def status(code: int, body: bytes = b'{"message":"broken"}', **headers: str) -> Fault:
    return Fault(f"status {code}", Reply(code, body, headers))


def hang(seconds: float = 30.0) -> Fault:
    return Fault("hang", hang=seconds)


HTML = Fault("html", Reply(200, PAGE, kind="text/html"))
GARBAGE = Fault("garbage", Reply(200, b"\x00\xff{not json"))
DEEP = Fault("deep", Reply(200, b"[" * 200_000))
WRONG_SHAPE = Fault("wrong shape", Reply(200, b'{"surprise":[[1,2],3]}'))
RESET = Fault("reset", reset=True)
TRUNCATED = Fault("truncated", truncate=True)
EMPTY = Fault("empty", distort="empty")
REPEATED = Fault("repeated", distort="repeated")
WRONG_TYPE = Fault("wrong type", distort="wrong type")


class ProviderServer(ABC):
    """Runs in threads on a free port of 127.0.0.1; use it as a context manager.

    A subclass answers requests in `answer`, and passes its list of rows through `distorted` before writing them.
    """

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self.log: list[Request] = []
        self.keep_log = True
        self._queue: deque[Fault] = deque()
        self._always: Fault | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = _Http(("127.0.0.1", port), _handler_for(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @abstractmethod
    def answer(self, request: Request, distort: str) -> Reply:
        """Answer a request in the provider's format; `distort` goes to `distorted` with the rows."""

    def spoiled(self, row: Any) -> Any:
        """Return the row with one value of a wrong type."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def misbehave(self, *faults: Fault) -> None:
        """Answer the next requests so, one fault each."""
        with self._lock:
            self._queue.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Answer every request so, once the queue is empty; None ends it."""
        with self._lock:
            self._always = fault

    def distorted(self, rows: list[Any], distort: str) -> list[Any]:
        if distort == "empty":
            return []
        if distort == "repeated":
            return [*rows, *rows[:3]]
        if distort == "wrong type" and rows:
            return [self.spoiled(rows[0]), *rows[1:]]
        return rows

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Handle one request: log it, then answer or misbehave."""
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(unquote(parts.path), query, {k.lower(): v for k, v in handler.headers.items()})
        with self._lock:
            if self.keep_log:
                self.log.append(request)
            fault = self._queue.popleft() if self._queue else self._always
        if fault is not None and self._broke(handler, fault):
            return
        reply = fault.reply if fault and fault.reply else self.answer(request, fault.distort if fault else "")
        _write(handler, reply, truncate=bool(fault and fault.truncate))

    def _broke(self, handler: BaseHTTPRequestHandler, fault: Fault) -> bool:
        if fault.hang:
            self._stopping.wait(fault.hang)
        if fault.reset:
            # SO_LINGER with zero time-out makes close() send a reset.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault.hang or fault.reset:
            handler.close_connection = True
            handler.connection.close()
            return True
        return False


def _write(handler: BaseHTTPRequestHandler, reply: Reply, *, truncate: bool) -> None:
    handler.send_response(reply.status)
    handler.send_header("Content-Type", reply.kind)
    handler.send_header("Content-Length", str(len(reply.body)))
    for name, value in reply.headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(reply.body[: len(reply.body) // 2] if truncate else reply.body)
    if truncate:
        handler.close_connection = True


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: clients that give up on purpose are part of the tests."""


def _handler_for(server: ProviderServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One packet per answer: otherwise head and body wait for each other (Nagle and delayed ACK).
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.serve(self)
            if not self.wfile.closed and not self.connection._closed:
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    return Handler


def run_standalone(make: Callable[[int], ProviderServer]) -> None:
    """Serve until interrupted; prints the port on the first line."""
    parser = argparse.ArgumentParser(description="A provider on loopback, for benchmarks and trials.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    with make(arguments.port) as server:
        server.keep_log = False
        # A shell has its background processes ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(server.port, flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
