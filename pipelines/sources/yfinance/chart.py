"""Yahoo's chart API as the yfinance package asks for it and reads it, sent and screened by us."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from pipelines.errors import (
    MalformedAnswerError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.sources.http import RateLimitedError
from pipelines.sources.retry import parse_retry_after

if TYPE_CHECKING:
    import pandas as pd
    from curl_cffi.requests import Response, Session

    from pipelines.config import YfinanceSettings
    from pipelines.intervals import Interval

_OK, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 200, 404, 429, 500
# What the package fails with when an answer is not what it expects.
_PARSING = (LookupError, TypeError, ValueError, AttributeError)


class NoBars(Exception):  # noqa: N818 - an answer, that leaves the package's code the only way it can
    """Yahoo knows the symbol and has no bars in the range; `vouched` is false where it does not keep them so long."""

    def __init__(self, *, vouched: bool) -> None:
        super().__init__("no bars in this range")
        self.vouched = vouched


@dataclass(frozen=True)
class _Answer:
    """The part of a response that the package reads."""

    parsed: dict[str, object]
    text: str = ""

    def json(self) -> dict[str, object]:
        return self.parsed


class Chart:
    """Stands in for the package's own transport, which is one per process and keeps cookies and caches in the home.

    The chart API needs no cookie and no crumb. This one keeps to the settings' base address, and turns every answer of
    which the package would make an empty frame into an error.
    """

    def __init__(self, settings: YfinanceSettings) -> None:
        self._base = settings.base_url.rstrip("/")
        self._timeout = settings.timeout_seconds
        self._lock = threading.Lock()
        self._session: Session[Response] | None = None

    def open(self) -> None:
        """Import the package and make the session; late, as that takes two seconds and pulls in pandas and curl."""
        from curl_cffi.requests import Session  # noqa: PLC0415
        from yfinance import config  # noqa: PLC0415

        # The package's default is to log an error and return an empty frame.
        config.debug.hide_exceptions = False
        with self._lock:
            # Yahoo turns clients away whose TLS handshake is not a browser's.
            self._session = self._session or Session(impersonate="chrome")

    def history(self, symbol: str, interval: str, asked: Interval) -> pd.DataFrame | NoBars:
        """Return the package's frame of bars, indexed by their open in the exchange's zone; blocks, after `open`.

        Raises:
            Exception: what `classify` understands.
        """
        from yfinance.scrapers.history import PriceHistory  # noqa: PLC0415

        # The zone only matters to naive bounds; naming one saves the request that looks it up.
        prices = PriceHistory(self, symbol, tz="UTC", session=self._session)
        try:
            frame: pd.DataFrame = prices.history(
                start=asked.start,
                end=asked.end,
                interval=interval,
                prepost=False,
                actions=False,
                auto_adjust=False,
                timeout=self._timeout,
            )
        except NoBars as answer:
            return answer
        return frame

    def get(self, url: str, params: dict[str, object], timeout: float) -> _Answer:
        """Send one request for the package.

        Raises:
            SourceError: the answer is anything but bars.
        """
        address = self._base + quote(urlsplit(url).path, safe="/=")
        if self._session is None:
            raise SourceUnavailableError("yfinance: the source was closed")
        response = self._session.get(address, params=params, timeout=timeout, allow_redirects=False)
        status = int(response.status_code)
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            raise RateLimitedError(
                f"yfinance: Yahoo answered {status}", parse_retry_after(response.headers.get("retry-after"))
            )
        try:
            parsed = json.loads(response.content)
        except (ValueError, RecursionError):
            raise SourceUnavailableError(f"yfinance: Yahoo answered {status} with something not JSON") from None
        _refuse(status, parsed)
        return _Answer(parsed)

    cache_get = get

    def close(self) -> None:
        """Close the session's connections."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _refuse(status: int, parsed: object) -> None:
    """Raise what an answer without bars means."""
    chart = parsed.get("chart") if isinstance(parsed, dict) else None
    if not isinstance(chart, dict):
        raise MalformedAnswerError(f"yfinance: Yahoo answered {status} without a chart")
    error, results = chart.get("error"), chart.get("result")
    if error:
        said = str(error.get("description") if isinstance(error, dict) else error)
        raise _error(status, said)
    if status != _OK or not isinstance(results, list) or not results or not isinstance(results[0], dict):
        raise MalformedAnswerError(f"yfinance: Yahoo answered {status} without a result")
    if not isinstance(results[0].get("meta"), dict):
        raise MalformedAnswerError("yfinance: a chart without metadata")
    if not results[0].get("timestamp"):
        raise NoBars(vouched=True)


def _error(status: int, said: str) -> Exception:
    message = f"yfinance: Yahoo answered {status}: {said[:300]}"
    if "exist for startDate" in said:
        return NoBars(vouched=True)
    if "must be within the last" in said:
        return NoBars(vouched=False)
    kinds = {401: SourceAuthError, 403: SourceAuthError, _NOT_FOUND: UnsupportedError}
    return kinds.get(status, MalformedAnswerError)(message)


def classify(error: Exception) -> SourceError | None:
    """Turn what `Chart.history` raises into a SourceError; None for what is no failure of Yahoo's."""
    if isinstance(error, OSError):
        # curl's message names the address, which holds no secret, but help texts as well.
        return SourceUnavailableError(f"yfinance: the connection failed ({type(error).__name__})")
    vendor = type(error).__module__.startswith("yfinance.")
    if vendor or isinstance(error, _PARSING):
        return MalformedAnswerError(
            f"yfinance: the package could not read the answer ({type(error).__name__}: {error})"
        )
    return None
