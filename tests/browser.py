"""Headless Chromium, driven over its own debugging protocol: what a page logs, what it asks for, how it looks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_WAIT = 30.0


@dataclass(slots=True)
class Page:
    """What came of opening a page: complaints of the console, and every address that was asked for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    width: int = 0
    scroll_width: int = 0
    title: str = ""
    text: str = ""

    @property
    def outside(self) -> list[str]:
        """Addresses that a page without a network would miss."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "about:"))]


def need_chromium() -> str:
    """Return the browser, or skip: on CI a skip is a failure."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium fonts-dejavu-core")
    return CHROMIUM


def open_page(address: str | Path, *, width: int = 1280, height: int = 900, screenshot: Path | None = None) -> Page:
    """Open a page in a fresh browser of that width in pixels, wait until it is loaded, and look at it.

    Args:
        address: a URL, or a local file.
        width: of the window; 390 is a phone's.
        height: of the window; a screenshot shows the whole page.
        screenshot: where to put one, as PNG.
    """
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    with _browser() as socket:
        session = _Session(socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            session.call(f"{domain}.enable")
        mobile = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        session.call("Emulation.setDeviceMetricsOverride", **metrics)
        session.call("Page.navigate", url=url)
        session.wait_for("Page.loadEventFired")
        session.settle(0.5)
        page = session.page
        page.width = width
        page.scroll_width = int(session.value("document.documentElement.scrollWidth"))
        page.title = str(session.value("document.title"))
        page.text = str(session.value("document.body.innerText"))
        if screenshot:
            shot = session.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            screenshot.write_bytes(base64.b64decode(shot["data"]))
        return page


class _Session:
    """One page's debugging session; events are noted while answers are waited for."""

    def __init__(self, socket: ClientConnection) -> None:
        self.page = Page()
        self._socket = socket
        self._number = 0
        self._seen: set[str] = set()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = self._next(_WAIT)
            if message is None:
                raise TimeoutError(f"chromium did not answer {method}")
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def value(self, expression: str) -> object:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, event: str) -> None:
        end = time.monotonic() + _WAIT
        while event not in self._seen:
            if time.monotonic() > end or self._next(_WAIT) is None:
                raise TimeoutError(f"the page never came to {event}")

    def settle(self, seconds: float) -> None:
        """Go on listening: scripts may complain after the page has loaded."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._next(left)

    def _next(self, seconds: float) -> dict[str, Any] | None:
        try:
            message: dict[str, Any] = json.loads(self._socket.recv(timeout=seconds))
        except TimeoutError:
            return None
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        self._seen.add(method)
        if method == "Runtime.exceptionThrown":
            self.page.errors.append(str(params["exceptionDetails"].get("text")))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.page.errors.append(str([each.get("value", each.get("description")) for each in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.page.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.page.requests.append(params["request"]["url"])
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.page.errors.append(f"loading failed: {params['errorText']}")


@contextmanager
def _browser() -> Iterator[ClientConnection]:
    """Start a browser with an empty profile, and end it by process id."""
    chromium = need_chromium()
    with tempfile.TemporaryDirectory(prefix="lakehouse-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                chromium,
                "--headless",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--remote-debugging-address=127.0.0.1",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with connect(_address_of_page(Path(profile), process), max_size=None) as socket:
                yield socket
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def _address_of_page(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the debugging address of the one page; the browser writes the port it chose into its profile."""
    written, end = profile / "DevToolsActivePort", time.monotonic() + _WAIT
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"chromium ended with {process.returncode}")
        if written.exists() and (lines := written.read_text().splitlines()):
            pages = httpx.get(f"http://127.0.0.1:{lines[0]}/json/list", trust_env=False).json()
            for page in pages:
                if page["type"] == "page":
                    return str(page["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise TimeoutError("chromium did not open its debugging port")
