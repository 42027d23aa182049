"""A receiver of Slack's incoming webhooks on loopback: strict about their format, and misbehaving on demand."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers.base import Fault

# Made up; the form is that of real ones, which are as good as passwords.
PATH = "/services/T00000000/B00000000/XXXXsecretXXXXsecretXXXX"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}|good|warning|danger")
_TEXTS = ("fallback", "title", "title_link", "text", "pretext", "footer", "author_name", "color")


@dataclass(frozen=True)
class Message:
    """One message as it was taken; `at` is monotonic seconds."""

    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    @property
    def attachment(self) -> dict[str, Any]:
        """Its one attachment."""
        (found,) = self.body["attachments"]
        return dict(found)

    @property
    def text(self) -> str:
        """All that a reader sees, and more."""
        return json.dumps(self.body, ensure_ascii=False)


class SlackServer:
    """Takes messages at `webhook`; use it as a context manager."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.requests = 0
        self._queue: deque[Fault] = deque()
        self._always: Fault | None = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    @property
    def webhook(self) -> str:
        """The address that is a secret."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def misbehave(self, *faults: Fault) -> None:
        """Answer the next requests so, one fault each."""
        self._queue.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Answer every request so, once the queue is empty; None ends it."""
        self._always = fault

    def wait_for(self, text: str, seconds: float) -> Message:
        """Return the first message that holds a text, as soon as it is there."""
        with self._changed:
            found: list[Message] = []

            def there() -> bool:
                found[:] = [each for each in self.messages if text in each.text]
                return bool(found)

            assert self._changed.wait_for(there, seconds), [each.text for each in self.messages]
            return found[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Handle one request."""
        self.requests += 1
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        fault = self._queue.popleft() if self._queue else self._always
        if fault is not None and (fault.hang or fault.reset):
            self._stopping.wait(fault.hang)
            handler.close_connection = True
            return
        if fault is not None and fault.reply is not None:
            _write(handler, fault.reply.status, fault.reply.body, dict(fault.reply.headers))
            return
        if handler.path != PATH:
            _write(handler, 404, b"no_service", {})
            return
        try:
            found = checked(body)
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            _write(handler, 400, f"invalid_payload: {error}".encode(), {})
            return
        with self._changed:
            self.messages.append(Message(found))
            self._changed.notify_all()
        _write(handler, 200, b"ok", {})


def checked(body: bytes) -> dict[str, Any]:
    """Return a message that Slack would take."""
    found: dict[str, Any] = json.loads(body)
    attachments = found.get("attachments", [])
    assert attachments or found.get("text"), "no_text"
    assert len(attachments) <= 100, "too_many_attachments"
    for attachment in attachments:
        for name in _TEXTS:
            assert isinstance(attachment.get(name, ""), str), name
        assert _COLOUR.fullmatch(attachment["color"]), attachment["color"]
        assert attachment.get("fallback") or attachment.get("text"), "no_text"
        for each in attachment.get("fields") or []:
            assert isinstance(each["title"], str)
            assert isinstance(each["value"], str)
            assert isinstance(each.get("short", False), bool)
    return found


def _write(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: clients that give up on purpose are part of the tests."""


def _handler_for(server: SlackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.take(self)

        def do_PUT(self) -> None:
            # Of a job that takes it for a Pushgateway.
            server.take(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    return Handler
