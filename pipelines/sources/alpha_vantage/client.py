"""Asks Alpha Vantage: its package builds each request and names the answer's keys, our HTTP client sends it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from pipelines.errors import MalformedAnswerError, QuotaExhaustedError, SourceAuthError, SourceError, UnsupportedError
from pipelines.sources.http import HttpClient, RateLimitedError
from pipelines.sources.redaction import redact

if TYPE_CHECKING:
    from pipelines.config import AlphaVantageSettings

MISSING_KEY = "no API key: set providers.alpha_vantage.api_key or ALPHA_VANTAGE_API_KEY"

_TROUBLE = ("Error Message", "Information", "Note")
_NOTHING_FOUND = "no articles found"
# Order matters: the throttling notes also speak of daily limits and premium plans.
_BURST = re.compile(r"spreading out|per second|burst", re.IGNORECASE)
_PER_MINUTE = re.compile(r"per minute|minute-level|call frequency", re.IGNORECASE)
_PREMIUM = re.compile(r"premium (endpoint|feature)", re.IGNORECASE)
_PER_DAY = re.compile(r"(requests|calls) per day", re.IGNORECASE)
_BAD_KEY = re.compile(r"api ?key|demo purposes", re.IGNORECASE)
_BAD_CALL = re.compile(r"invalid (api call|inputs?)", re.IGNORECASE)
_BURST_PAUSE, _MINUTE_PAUSE = 1.0, 15.0


class _Unsent:
    """Mixed into a class of the package: its request is handed over as parameters instead of being sent."""

    def _handle_api_call(self, url: str) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(url).query))


@dataclass(frozen=True)
class Endpoint:
    """One function of the Alpha Vantage API: where the package builds its request."""

    module: str
    class_name: str
    method: str

    def request(self, **arguments: str) -> tuple[dict[str, str], str]:
        """Return the query parameters (without the key) and the key of the answer that holds the data."""
        # Imported late: the package pulls in pandas and requests.
        vendor = getattr(import_module(f"alpha_vantage.{self.module}"), self.class_name)
        # The package keeps its key in every URL it builds, so it is not given the real one.
        builder = type(self.class_name, (_Unsent, vendor), {})(key="unused")
        # Below the outer decorator, which would reshape the answer (news into a misaligned frame).
        params, data_key, _ = getattr(vendor, self.method).__wrapped__(builder, **arguments)
        return {name: value for name, value in params.items() if name != "apikey"}, data_key


class AlphaVantageClient:
    """Sends the package's requests through the shared limiter, quota, retries, breaker and metrics."""

    def __init__(self, settings: AlphaVantageSettings, api_key: str | None) -> None:
        self._key = api_key
        self.http = HttpClient("alpha_vantage", settings)

    async def ask(self, endpoint: Endpoint, **arguments: str) -> tuple[Mapping[str, object], str]:
        """Return the whole answer and the key under which it holds the data.

        The data is missing only where the provider says that it found no articles.

        Raises:
            SourceError: as `HttpClient.get_json`; errors that Alpha Vantage sends with status 200 included.
        """
        if not self._key:
            raise SourceAuthError(f"alpha_vantage: {MISSING_KEY}")
        params, data_key = endpoint.request(**arguments)
        answer = await self.http.get_json(
            "query", {**params, "apikey": self._key}, check=lambda parsed: self._check(parsed, data_key)
        )
        assert isinstance(answer, dict)  # noqa: S101 - `_check` refused anything else
        return answer, data_key

    def _check(self, answer: object, data_key: str) -> None:
        if not isinstance(answer, dict):
            raise MalformedAnswerError(f"alpha_vantage: a JSON object was due, not {type(answer).__name__}")
        if data_key in answer:
            return
        said = next((answer[name] for name in _TROUBLE if name in answer), None)
        if said is None:
            raise MalformedAnswerError(f"alpha_vantage: the answer has no {data_key!r}")
        if _NOTHING_FOUND not in str(said).lower():
            raise self._error(str(said))

    def _error(self, said: str) -> SourceError:
        # The daily-limit note quotes the key.
        message = "alpha_vantage: " + redact(said, [self._key or ""])
        if _BURST.search(said):
            return RateLimitedError(message, _BURST_PAUSE)
        if _PER_MINUTE.search(said):
            return RateLimitedError(message, _MINUTE_PAUSE)
        kinds: list[tuple[re.Pattern[str], type[SourceError]]] = [
            (_PREMIUM, SourceAuthError),
            (_PER_DAY, QuotaExhaustedError),
            (_BAD_KEY, SourceAuthError),
            (_BAD_CALL, UnsupportedError),
        ]
        kind = next((kind for pattern, kind in kinds if pattern.search(said)), MalformedAnswerError)
        return kind(message)
