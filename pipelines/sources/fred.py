"""FRED: macroeconomic series of the St. Louis Fed, with a free key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import FredSettings
from pipelines.errors import MalformedAnswerError, SourceAuthError, SourceError, UnsupportedError
from pipelines.intervals import Interval
from pipelines.sources.bars import days, instants, rows_inside
from pipelines.sources.base import Capabilities, Page, Window, raw_table
from pipelines.sources.http import HttpClient
from pipelines.sources.network import HttpSource
from pipelines.timeframes import utc_now

MACRO = "macro_indicators"
_MAX_OBSERVATIONS = 100_000
_MISSING = "."
_REALTIME = ("realtime_start", "realtime_end")
# A yearly figure appears in the year after; an absent observation younger than this may yet come.
_SLOWEST_PUBLICATION = timedelta(days=500)


class FredSource(HttpSource):
    """Observations of `GET /fred/series/observations` as they are current today; the subject is a series id.

    The real-time period is left to the server, whose today it is. Asking for all vintages at once fails for daily
    series (the limit is 2000 vintage dates) and would store several versions of an observation at one instant.
    """

    name = "fred"
    capabilities = Capabilities(datasets=frozenset({MACRO}))

    def __init__(self, settings: FredSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        settings = settings or FredSettings()
        self._key = settings.api_key.get_secret_value() if settings.api_key else None
        self._http = HttpClient(self.name, settings, classify=_classify)
        self._clock = clock

    def unavailable_reason(self) -> str | None:
        """Say so if there is no key."""
        return None if self._key else "no API key; set FRED_API_KEY or providers.fred.api_key"

    def span(self, window: Window) -> timedelta:  # noqa: ARG002
        """Return the days of one answer's worth of daily observations."""
        return timedelta(days=_MAX_OBSERVATIONS)

    async def fetch(self, window: Window) -> Page:
        """Fetch the observations dated inside the window, in as many pages as it takes; raises a SourceError."""
        now = self._clock()
        asked = Interval(window.start, max(window.start, min(window.end, now)))
        rows: list[dict[str, Any]] = []
        answer: dict[str, Any] = {"count": 1 if asked else 0}
        while len(rows) < answer["count"]:
            answer = await self._observations(window.subject, asked, len(rows))
            if not answer["observations"] and len(rows) < answer["count"]:
                raise MalformedAnswerError("fred: an empty page although observations are left")
            rows += answer["observations"]
        table = _table(window.subject, rows, answer.get("units"))
        table = table.filter(rows_inside(table["timestamp"], asked))
        return Page(table, _vouched(asked, table["timestamp"], now))

    async def _observations(self, series: str, asked: Interval, offset: int) -> dict[str, Any]:
        answer = await self._http.get_json(
            "/fred/series/observations",
            {
                "series_id": series,
                "observation_start": asked.start.date().isoformat(),
                # Inclusive there.
                "observation_end": (asked.end - timedelta.resolution).date().isoformat(),
                "limit": _MAX_OBSERVATIONS,
                "offset": offset,
                "file_type": "json",
                "api_key": self._key or "",
            },
        )
        known = answer if isinstance(answer, dict) else {}
        if not isinstance(known.get("observations"), list) or not isinstance(known.get("count"), int):
            raise MalformedAnswerError("fred: the answer lacks observations or their count")
        return known


def _table(series: str, rows: list[dict[str, Any]], units: object) -> pa.Table:
    try:
        dates, values, *realtime = ([row[name] for row in rows] for name in ("date", "value", *_REALTIME))
    except (KeyError, TypeError) as error:
        raise MalformedAnswerError(f"fred: an observation lacks a documented key ({error})") from None
    loose = raw_table({"value": [None if value == _MISSING else value for value in values]})["value"]
    return pa.table(
        {
            "series_id": pa.array([series] * len(rows), pa.string()),
            "timestamp": instants([f"{date}T00:00:00Z" for date in dates]),
            "value": loose,
            "units": pa.array([None if units is None else str(units)] * len(rows), pa.string()),
            **dict(zip(_REALTIME, map(days, realtime), strict=True)),
        }
    )


def _vouched(asked: Interval, times: pa.ChunkedArray, now: datetime) -> Interval:
    """Leave out the tail in which an observation may be missing only because it is not published yet."""
    sure = now - _SLOWEST_PUBLICATION
    seen = pc.max(times).as_py()
    if isinstance(seen, datetime):
        sure = max(sure, seen + timedelta(days=1))
    return Interval(asked.start, max(asked.start, min(asked.end, sure)))


def _classify(_status: int, message: str) -> SourceError | None:
    """A wrong key and an unknown series are both refused with status 400."""
    if "api_key" in message:
        return SourceAuthError(message)
    return UnsupportedError(message) if "does not exist" in message else None
