"""The one door to a provider over HTTP: pace, quota, retries, circuit breaker, time-outs, metrics; leaks no key."""

from __future__ import annotations

import asyncio
import contextvars
import ssl
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import httpx

from pipelines.errors import ConfigError, SourceError, SourceUnavailableError
from pipelines.sources.answers import Classify, is_html, parsed_json, path_of, refusal
from pipelines.sources.calls import CallPolicy, Try
from pipelines.sources.redaction import is_secret_name, redact, redact_http_logs
from pipelines.sources.retry import RateLimitedError

if TYPE_CHECKING:
    from pipelines.config import ProviderSettings
    from pipelines.sources.breaker import CircuitBreaker
    from pipelines.sources.limits import DailyQuota, TokenBucket

__all__ = ["HttpClient", "RateLimitedError"]

T = TypeVar("T")
Params: TypeAlias = Mapping[str, str | int | float]
Check: TypeAlias = Callable[[object], None]
ClassifyVendor: TypeAlias = Callable[[Exception], SourceError | None]

# More sockets than any sensible number of windows in flight, so that the pool is never what one waits for.
_CONNECTIONS = httpx.Limits(max_connections=128, max_keepalive_connections=64, keepalive_expiry=30.0)
_VENDOR_THREADS = 16
_REDIRECT = 300

_vendor_loop: contextvars.ContextVar[asyncio.AbstractEventLoop] = contextvars.ContextVar("vendor_loop")


class HttpClient:
    """Asks one provider, politely and persistently; may be used from several event loops, one after another.

    Args:
        name: the provider's name in metrics and messages.
        settings: base address, pace, quota, time-out, retry and breaker settings.
        headers: sent to the base address only, never to another host.
        classify: turns the status and the provider's message of a 4xx answer into an error, where the status alone
            misleads; None leaves the default: 401 and 403 SourceAuthError, 404 UnsupportedError, else
            MalformedAnswerError.
        breaker: shared or tuned by the caller.
        limiter: same.
        quota: same.

    Raises:
        ConfigError: the base address is no http or https URL.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        headers: Mapping[str, str] | None = None,
        *,
        classify: Classify | None = None,
        breaker: CircuitBreaker | None = None,
        limiter: TokenBucket | None = None,
        quota: DailyQuota | None = None,
    ) -> None:
        self.name = name
        self._base = _base_url(name, settings.base_url)
        self._headers = dict(headers or {})
        self._timeout = settings.timeout_seconds
        self._classify = classify
        self._policy = CallPolicy(name, settings, breaker=breaker, limiter=limiter, quota=quota)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._threads: ThreadPoolExecutor | None = None
        redact_http_logs()

    async def get_json(
        self,
        path: str,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        check: Check | None = None,
    ) -> object:
        """GET a path (or whole address) and return its parsed JSON.

        Args:
            path: below the base address, each segment already quoted; or an absolute URL.
            params: query parameters.
            headers: further request headers.
            check: sees the parsed answer and raises a SourceError for an error that came with status 200; a
                retryable one (RateLimitedError, SourceUnavailableError) is tried again.

        Raises:
            SourceUnavailableError: no useful answer after all retries.
            CircuitOpenError: the provider failed too often lately.
            QuotaExhaustedError: the daily quota is used up.
            SourceAuthError: the key was refused.
            UnsupportedError: the provider does not know what was asked for.
            MalformedAnswerError: the request was refused, or answered outside the documented format.
        """

        async def attempt() -> object:
            response = await self._send(path, params, headers)
            answer = parsed_json(self.name, response)
            if check is not None:
                check(answer)
            return answer

        return await self._policy.call(attempt)

    async def get_text(
        self,
        path: str,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        check: Callable[[str], None] | None = None,
    ) -> str:
        """GET a path and return its text, as `get_json` does for JSON; HTML is refused and retried too."""

        async def attempt() -> str:
            response = await self._send(path, params, headers)
            if is_html(response):
                raise SourceUnavailableError(f"{self.name}: {path_of(response)} answered HTML")
            if check is not None:
                check(response.text)
            return response.text

        return await self._policy.call(attempt)

    async def get_response(
        self,
        path: str,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        check: Callable[[httpx.Response], None] | None = None,
    ) -> httpx.Response:
        """GET a path and return the read response (status below 300) with headers and cookies, whatever its type."""

        async def attempt() -> httpx.Response:
            response = await self._send(path, params, headers)
            if check is not None:
                check(response)
            return response

        return await self._policy.call(attempt)

    async def call_vendor(
        self, call: Callable[[], T], classify: ClassifyVendor | None = None, *, seconds: float | None = None
    ) -> T:
        """Run a blocking vendor call in a thread under the same pace, quota, retries, breaker and metrics.

        Use it where the vendor package sends its own requests. Where its HTTP function can be replaced by one that
        uses `wait`, use `in_thread`: the policy then applies to each request it sends.

        Args:
            call: does one request; runs again for each try.
            classify: turns a vendor's exception into a SourceError (retryable or not); None leaves it as it is,
                then it is raised at once. OSError and TimeoutError are connection failures without it.
            seconds: time limit of one try; the settings' time-out by default.

        Raises:
            SourceError: as `get_json`.
        """

        async def attempt() -> T:
            with Try(self.name) as this:
                try:
                    result = await asyncio.wait_for(self.in_thread(call), seconds or self._timeout)
                except TimeoutError:
                    this.status = "timeout"
                    raise SourceUnavailableError(f"{self.name}: the vendor package did not answer in time") from None
                except SourceError:
                    raise
                except Exception as error:
                    known = (classify and classify(error)) or self._connection_failure(error)
                    if known is None:
                        raise
                    raise known from None
                this.status = "200"
                return result

        return await self._policy.call(attempt)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run blocking code in one of this client's own threads; inside it, `wait` reaches back to the event loop."""
        if self._threads is None:
            # Not the loop's default pool: name look-ups run there, and calls that wait for them would fill it.
            self._threads = ThreadPoolExecutor(_VENDOR_THREADS, thread_name_prefix=f"{self.name}-vendor")
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(_vendor_loop.set, loop)
        return await loop.run_in_executor(self._threads, lambda: context.run(call))

    def wait(self, request: Coroutine[object, object, T]) -> T:
        """Block until one of this client's coroutines is done, as in `client.wait(client.get_text(url))`.

        For vendor packages' threads (`in_thread`); with no event loop to reach back to, it runs its own.
        """
        loop = _vendor_loop.get(None)
        if loop is None or not loop.is_running():
            return asyncio.run(self._alone(request))
        return asyncio.run_coroutine_threadsafe(request, loop).result()

    def get_circuit_breaker_stats(self) -> dict[str, object]:
        """Return the breaker's `state`, `failure_count`, `opened_at`, `last_error` and `retry_in_seconds`."""
        return self._policy.breaker.get_circuit_breaker_stats()

    async def aclose(self) -> None:
        """Close this event loop's connections and let idle vendor threads end."""
        await self._close_connections()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _alone(self, request: Coroutine[object, object, T]) -> T:
        try:
            return await request
        finally:
            await self._close_connections()

    async def _close_connections(self) -> None:
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _send(self, path: str, params: Params | None, headers: Mapping[str, str] | None) -> httpx.Response:
        url = self._base.join(path if "://" in path else path.lstrip("/"))
        own = self._headers if _origin(url) == _origin(self._base) else {}
        with Try(self.name) as this:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._client().get(url, params=params, headers={**own, **(headers or {})})
            except (TimeoutError, httpx.TimeoutException):
                this.status = "timeout"
                raise SourceUnavailableError(
                    f"{self.name}: {url.path} did not answer within {self._timeout:g} s"
                ) from None
            except httpx.RequestError as error:
                reason = redact(str(error) or type(error).__name__, self._secrets(url, params))
                raise SourceUnavailableError(f"{self.name}: {url.path} failed: {reason}") from None
            this.status = str(response.status_code)
        if response.status_code >= _REDIRECT:
            raise refusal(self.name, response, self._secrets(url, params), self._classify)
        return response

    def _connection_failure(self, error: Exception) -> SourceError | None:
        if isinstance(error, OSError):
            return SourceUnavailableError(f"{self.name}: the connection failed ({type(error).__name__})")
        return None

    def _secrets(self, url: httpx.URL, params: Params | None) -> list[str]:
        named = [*self._headers.items(), *url.params.items(), *(params or {}).items()]
        return [part for name, value in named if is_secret_name(name) for part in str(value).split()]

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            timeout = httpx.Timeout(self._timeout, pool=None)
            client = self._clients[loop] = httpx.AsyncClient(timeout=timeout, limits=_CONNECTIONS, verify=_tls())
        return client


def _base_url(name: str, address: str) -> httpx.URL:
    try:
        url = httpx.URL(address.rstrip("/") + "/")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"providers.{name}.base_url: write a whole address, as https://host/path")
    return url


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificates takes longer than a request, so they are read once.
    return httpx.create_ssl_context()


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
