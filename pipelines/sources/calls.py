"""The policy around every call to a provider: quota, pace, retries and circuit breaker; and the metrics of each try."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Self, TypeVar

from prometheus_client import Counter, Histogram

from pipelines.errors import CircuitOpenError, QuotaExhaustedError, SourceError, SourceUnavailableError
from pipelines.monitoring.metrics import api_request_duration_seconds, external_api_requests_total
from pipelines.sources.breaker import CircuitBreaker
from pipelines.sources.limits import DailyQuota, TokenBucket
from pipelines.sources.retry import RateLimitedError, RetryPolicy

if TYPE_CHECKING:
    from pipelines.config import ProviderSettings

T = TypeVar("T")


class CallPolicy:
    """Runs calls to one provider as its settings allow; each part may be given to share or tune it."""

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        breaker: CircuitBreaker | None = None,
        limiter: TokenBucket | None = None,
        quota: DailyQuota | None = None,
    ) -> None:
        self.name = name
        self.breaker = breaker or CircuitBreaker(name, settings.breaker_failures, settings.breaker_reset_seconds)
        self.limiter = limiter or TokenBucket(settings.requests_per_minute, settings.burst)
        self.quota = quota or DailyQuota(name, settings.requests_per_day)
        self._retry = RetryPolicy(
            settings.max_retries,
            settings.backoff_seconds,
            settings.backoff_cap_seconds,
            settings.max_retry_after_seconds,
        )

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt` until it succeeds, fails for good or the retries are used up.

        Raises:
            SourceUnavailableError: the last try failed too.
            CircuitOpenError: the circuit is, or was meanwhile, opened.
            QuotaExhaustedError: the daily quota is used up.
            SourceError: what a try raised that is not retryable.
        """
        try:
            with self.breaker.guard():
                return await self._with_retries(attempt)
        except (CircuitOpenError, QuotaExhaustedError):
            _requests(self.name, "refused").inc()
            raise

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            self.quota.take()
            await self.limiter.acquire()
            tries += 1
            try:
                return await attempt()
            except SourceError as error:
                if not error.retryable:
                    raise
                if tries > self._retry.max_retries:
                    raise SourceUnavailableError(f"{error} (gave up after {tries} tries)") from error
                await self._pause(tries, error)

    async def _pause(self, tries: int, error: SourceError) -> None:
        asked = error.retry_after if isinstance(error, RateLimitedError) else None
        delay = self._retry.delay(tries, asked)
        if asked is not None:
            self.limiter.hold(delay)
        await asyncio.sleep(delay)
        self.breaker.refuse_if_open()


class Try:
    """Counts and times one try, however it ends; `status` is the HTTP code, timeout or error."""

    def __init__(self, api: str) -> None:
        self._api = api
        self.status = "error"

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        _durations(self._api).observe(time.perf_counter() - self._began)
        _requests(self._api, self.status).inc()


@cache
def _durations(api: str) -> Histogram:
    """Return a provider's histogram; to find one by its labels takes longer than to count."""
    return api_request_duration_seconds.labels(api=api)


@cache
def _requests(api: str, status: str) -> Counter:
    return external_api_requests_total.labels(api=api, status=status)
