"""The HTTP door against a server that misbehaves: what conformance does not already ask of every provider."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from pipelines.config import ProviderSettings
from pipelines.errors import (
    CircuitOpenError,
    ConfigError,
    MalformedAnswerError,
    QuotaExhaustedError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.sources.http import HttpClient, RateLimitedError
from tests.servers import base as faults
from tests.servers.base import Fault, ProviderServer, Reply, Request, json_reply
from tests.sources.conformance import BRISK

SECRET = "k3yk3yk3yk3y"


class Echo(ProviderServer):
    """Answers with what was asked."""

    def answer(self, request: Request, distort: str) -> Reply:
        return json_reply({"path": request.path, "query": request.query, "headers": request.headers})


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as server:
        yield server


def client(server: Echo, headers: dict[str, str] | None = None, path: str = "", **settings: Any) -> HttpClient:
    values = {**BRISK, "base_url": server.url + path, **settings}
    return HttpClient("echo", ProviderSettings(**values), headers)


async def ask(server: Echo, *args: Any, **settings: Any) -> Any:
    http = client(server, **settings)
    try:
        return await http.get_json(*args)
    finally:
        await http.aclose()


def counted(status: str) -> float:
    return REGISTRY.get_sample_value("external_api_requests_total", {"api": "echo", "status": status}) or 0.0


# ---- addresses and headers


@pytest.mark.parametrize(("prefix", "path"), [("", "/a/b"), ("/v1", "a/b"), ("/v1/", "/a/b"), ("/v1/x", "/a%2Fb")])
async def test_base_and_path_are_joined(server: Echo, prefix: str, path: str) -> None:
    answer = await ask(server, path, {"q": "1 +&"}, path=prefix)
    expected = "/a/b"
    assert answer["path"] == prefix.rstrip("/") + expected
    assert answer["query"] == {"q": "1 +&"}


async def test_own_headers_stay_with_the_base_address(server: Echo) -> None:
    http = client(server, {"Authorization": f"Bearer {SECRET}"})
    with Echo() as other:
        own: Any = await http.get_json(f"{server.url}/here?x=1")
        foreign: Any = await http.get_json(f"{other.url}/there", headers={"X-Extra": "1"})
    await http.aclose()
    assert own["headers"]["authorization"] == f"Bearer {SECRET}"
    assert own["query"] == {"x": "1"}
    assert "authorization" not in foreign["headers"]
    assert foreign["headers"]["x-extra"] == "1"


@pytest.mark.parametrize(
    "address", ["", "localhost:80", "ftp://host", "http://", "http://host:port", "file:///etc/passwd"]
)
def test_a_base_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.echo\.base_url"):
        HttpClient("echo", ProviderSettings(base_url=address))


# ---- retries


@pytest.mark.parametrize("code", [500, 503])
async def test_retry_after_of_a_server_error(server: Echo, code: int) -> None:
    server.misbehave(faults.status(code, retry_after="1"))
    await ask(server, "/")
    assert server.log[1].at - server.log[0].at >= 0.99


async def test_retry_after_as_a_date(server: Echo) -> None:
    when = datetime.now(UTC) + timedelta(seconds=2)
    server.misbehave(faults.too_many(format_datetime(when, usegmt=True).replace("+0000", "GMT")))
    await ask(server, "/")
    assert 0.9 <= server.log[1].at - server.log[0].at < 3


async def test_retry_after_is_capped(server: Echo) -> None:
    server.misbehave(faults.too_many(86_400))
    began = time.monotonic()
    await ask(server, "/", max_retry_after_seconds=0.2)
    assert 0.19 <= time.monotonic() - began < 3


async def test_retry_after_holds_back_all_windows(server: Echo) -> None:
    server.misbehave(faults.too_many(1))
    http = client(server)
    first = asyncio.create_task(http.get_json("/first"))
    await asyncio.sleep(0.2)
    await http.get_json("/second")
    await first
    await http.aclose()
    assert server.log[1].at - server.log[0].at >= 0.99


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, MalformedAnswerError),
        (401, SourceAuthError),
        (403, SourceAuthError),
        (404, UnsupportedError),
        (410, MalformedAnswerError),
        (302, MalformedAnswerError),
    ],
)
async def test_refusals_are_not_retried(server: Echo, code: int, error: type[SourceError]) -> None:
    server.always(faults.status(code, b'{"message":"no such thing"}', Location="http://127.0.0.1:9/x"))
    with pytest.raises(error, match=f"echo: /path answered {code}: no such thing"):
        await ask(server, "/path", {"apikey": SECRET})
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errorMessage": "one"}', "one"),
        (b'{"error_message": "two"}', "two"),
        (b'{"code": 3}', "{'code': 3}"),
        (b"plain\n text", "plain text"),
        (b"<html>page</html>", "answered 400"),
        (b"\xff\xfe", "answered 400"),
        (b"x" * 10_000, "x" * 300),
        (b"[" * 100_000, "[" * 300),
    ],
)
async def test_what_the_provider_says(server: Echo, body: bytes, said: str) -> None:
    server.always(faults.status(400, body))
    with pytest.raises(MalformedAnswerError) as caught:
        await ask(server, "/")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_the_source_may_know_better_than_the_status(server: Echo) -> None:
    server.always(faults.status(400))
    settings = ProviderSettings(**{**BRISK, "base_url": server.url})
    http = HttpClient("echo", settings, classify=lambda _, said: SourceAuthError(said) if "broken" in said else None)
    with pytest.raises(SourceAuthError):
        await http.get_json("/")
    await http.aclose()


async def test_nothing_listens() -> None:
    with Echo() as server:
        pass
    with pytest.raises(SourceUnavailableError, match="gave up after 3 tries"):
        await ask(server, "/")


async def test_a_slow_drip_is_a_time_out(server: Echo) -> None:
    class Drip(Echo):
        def serve(self, handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(1000):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                if self._stopping.wait(0.05):
                    return

    began = time.monotonic()
    with Drip() as drip, pytest.raises(SourceUnavailableError, match="did not answer within"):
        await ask(drip, "/", timeout_seconds=0.3, max_retries=1)
    assert time.monotonic() - began < 3


async def test_an_open_circuit_ends_retries_under_way(server: Echo) -> None:
    server.always(faults.status(500))
    http = client(server, breaker_failures=1, max_retries=1, backoff_seconds=0.4, backoff_cap_seconds=0.4)
    results = await asyncio.gather(*(http.get_json("/") for _ in range(6)), return_exceptions=True)
    await http.aclose()
    assert {type(result) for result in results} <= {SourceUnavailableError, CircuitOpenError}
    assert len(server.log) < 12
    assert http.get_circuit_breaker_stats()["state"] == "open"


# ---- errors with status 200


async def test_check_decides_about_answers_with_status_200(server: Echo) -> None:
    http, answers = client(server), []

    def check(answer: object) -> None:
        answers.append(answer)
        if len(answers) == 1:
            raise RateLimitedError("echo: slow down", retry_after=0.3)

    began = time.monotonic()
    assert await http.get_json("/", check=check) == answers[-1]
    assert len(answers) == 2
    assert time.monotonic() - began >= 0.29

    def refuse(answer: object) -> None:
        raise SourceAuthError("echo: wrong key")

    with pytest.raises(SourceAuthError):
        await http.get_json("/", check=refuse)
    await http.aclose()
    assert len(server.log) == 3


async def test_text_and_response(server: Echo) -> None:
    http = client(server)
    server.misbehave(faults.HTML, Fault("csv", Reply(200, b"a,b\n1,2\n", kind="text/csv")))
    assert await http.get_text("/csv") == "a,b\n1,2\n"
    server.misbehave(faults.HTML)
    response = await http.get_response("/page")
    assert isinstance(response, httpx.Response)
    assert response.content == faults.PAGE
    await http.aclose()


# ---- quota, metrics, secrets


async def test_retries_use_up_the_quota_too(server: Echo) -> None:
    server.always(faults.status(500))
    refused = counted("refused")
    with pytest.raises(QuotaExhaustedError):
        await ask(server, "/", requests_per_day=2)
    assert len(server.log) == 2
    assert counted("refused") - refused == 1


async def test_a_used_up_quota_does_not_open_the_circuit(server: Echo) -> None:
    http = client(server, requests_per_day=1, breaker_failures=1)
    await http.get_json("/")
    for _ in range(3):
        with pytest.raises(QuotaExhaustedError):
            await http.get_json("/")
    await http.aclose()
    assert http.get_circuit_breaker_stats()["state"] == "closed"


@pytest.mark.parametrize(
    ("fault", "status"), [(faults.hang(), "timeout"), (faults.RESET, "error"), (faults.status(418), "418")]
)
async def test_each_kind_of_failure_is_counted(server: Echo, fault: Fault, status: str) -> None:
    before = counted(status)
    server.always(fault)
    with pytest.raises(SourceError):
        await ask(server, "/", timeout_seconds=0.2, max_retries=0)
    assert counted(status) - before == 1


async def test_keys_in_queries_are_not_logged(server: Echo, caplog: pytest.LogCaptureFixture) -> None:
    for name in (None, "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    await ask(server, "/query", {"apikey": SECRET, "symbol": "BTC"})
    await ask(server, f"{server.url}/query?api_key={SECRET}&symbol=BTC")
    assert "symbol=BTC" in caplog.text, "the request itself is logged"
    assert SECRET not in caplog.text


# ---- vendor packages


async def test_vendor_calls_are_paced_retried_and_counted(server: Echo) -> None:
    http = client(server, requests_per_minute=600, burst=1)
    calls: list[str] = []
    before = counted("200"), counted("error")

    def call() -> str:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise ConnectionResetError
        if len(calls) == 2:
            raise KeyError("rate")
        return "bars"

    def classify(error: Exception) -> SourceError | None:
        return RateLimitedError("echo: rate") if isinstance(error, KeyError) else None

    began = time.monotonic()
    assert await http.call_vendor(call, classify) == "bars"
    assert time.monotonic() - began >= 0.19
    assert all(name.startswith("echo-vendor") for name in calls)
    assert (counted("200") - before[0], counted("error") - before[1]) == (1, 2)
    await http.aclose()


async def test_an_unknown_vendor_exception_comes_as_it_is(server: Echo) -> None:
    http = client(server)

    def call() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await http.call_vendor(call)
    await http.aclose()


async def test_a_vendor_that_hangs_is_a_time_out(server: Echo) -> None:
    http, release = client(server, timeout_seconds=0.1, max_retries=1), threading.Event()
    with pytest.raises(SourceUnavailableError, match="in time"):
        await http.call_vendor(lambda: release.wait(20))
    release.set()
    await http.aclose()


async def test_vendor_failures_open_the_circuit(server: Echo) -> None:
    http = client(server, breaker_failures=2, max_retries=0)

    def call() -> None:
        raise OSError("https://host/q?apikey=" + SECRET)

    for _ in range(2):
        with pytest.raises(SourceUnavailableError) as caught:
            await http.call_vendor(call)
        assert SECRET not in str(caught.value)
    with pytest.raises(CircuitOpenError):
        await http.call_vendor(call)
    await http.aclose()


async def test_a_vendor_thread_reaches_back_to_the_loop(server: Echo) -> None:
    http = client(server)
    server.misbehave(faults.status(500), faults.TRUNCATED)

    def package(number: int) -> Callable[[], Any]:
        return lambda: http.wait(http.get_json(f"/from/{number}"))

    # More than there are threads: each waits for a request that the loop sends.
    answers = await asyncio.gather(*(http.in_thread(package(n)) for n in range(40)))
    assert [answer["path"] for answer in answers] == [f"/from/{n}" for n in range(40)]
    await http.aclose()
    assert len(server.log) == 42


def test_wait_works_without_any_loop(server: Echo) -> None:
    http = client(server)
    for _ in range(2):
        answer: Any = http.wait(http.get_json("/alone"))
        assert answer["path"] == "/alone"


# ---- event loops


def test_one_client_for_several_event_loops(server: Echo) -> None:
    http = client(server, requests_per_minute=60_000, burst=1)

    async def many() -> None:
        await asyncio.gather(*(http.get_json("/") for _ in range(5)))

    for _ in range(3):
        asyncio.run(many())
    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(server.log) == 30


async def test_a_cancelled_request_leaves_the_client_usable(server: Echo) -> None:
    http = client(server)
    server.misbehave(faults.hang(1))
    task = asyncio.create_task(http.get_json("/"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await http.get_json("/")
    await http.aclose()
    assert http.get_circuit_breaker_stats()["failure_count"] == 0
