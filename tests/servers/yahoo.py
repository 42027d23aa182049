"""Yahoo Finance's chart API on loopback. Alone: `python -m tests.servers.yahoo --port 0`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.servers.base import ProviderServer, Reply, Request, json_reply, run_standalone
from tests.servers.market import Bar, Market

STEPS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}
DAY = 86_400
# As Yahoo words and counts them: days of history, and days a request for 1m bars may span.
DEPTH = {"1m": 30, "5m": 60, "15m": 60, "1h": 730}
MINUTES_SPAN = 8
_PATH = re.compile(r"/v8/finance/chart/([^/]+)")


@dataclass(frozen=True)
class Listing:
    """One symbol: its market, zone, kind, and daily session in local time (None: around the clock)."""

    market: Market
    zone: str
    kind: str
    session: tuple[time, time] | None = None
    every_day: bool = False
    volume: bool = True


LISTINGS = {
    "AAPL": Listing(Market("AAPL", "USD"), "America/New_York", "EQUITY", (time(9, 30), time(16))),
    "^TNX": Listing(Market("TNX", "USD", digits=3), "America/Chicago", "INDEX", (time(7, 20), time(14)), volume=False),
    "BTC-USD": Listing(Market("BTC", "USD"), "UTC", "CRYPTOCURRENCY", every_day=True),
    "EURUSD=X": Listing(Market("EUR", "USD", digits=5), "Europe/London", "CURRENCY", volume=False),
}


class YahooServer(ProviderServer):
    """Refuses unknown symbols and ranges that Yahoo does not keep; shows the bar still open.

    `adjclose` is half of `close`, so that adjusted prices would be noticed.
    """

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(port, clock)
        self.listed_from = date(1990, 1, 1)

    # ---- truth

    def truth(self, symbol: str, start: datetime, end: datetime, step: int) -> list[Bar]:
        """Return the closed bars that open in [start, end), oldest first; a day at 00:00 UTC of its local date."""
        listing, now = LISTINGS[symbol], int(self.clock().timestamp())
        first, last = int(start.timestamp()), int(end.timestamp())
        found = []
        for stamp, day in _opens(listing, first - DAY, last + DAY, step):
            opens = _midnight(day) if step == DAY else stamp
            if first <= opens < last and opens + step <= now:
                found.append(_bar(listing, stamp, step)._replace(time=opens))
        return found

    def spoiled(self, row: Any) -> Any:
        return row._replace(close={"not": "a number"})

    # ---- answers

    def answer(self, request: Request, distort: str) -> Reply:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return json_reply({"finance": {"result": None, "error": {"code": "Not Found"}}}, 404)
        listing = LISTINGS.get(match[1])
        if listing is None:
            return _refusal(404, "Not Found", "No data found, symbol may be delisted")
        interval = request.query["interval"]
        first, end = int(request.query["period1"]), int(request.query["period2"])
        why = self._too_far(interval, first, end)
        if why:
            return _refusal(422, "Unprocessable Entity", f"{interval} data not available for {why}")
        if end <= _midnight(self.listed_from):
            return _refusal(400, "Bad Request", f"Data doesn't exist for startDate = {first}, endDate = {end}")
        now = int(self.clock().timestamp())
        rows = self.distorted(list(self._rows(listing, first, min(end, now), STEPS[interval], now)), distort)
        return json_reply({"chart": {"result": [_result(match[1], listing, interval, rows)], "error": None}})

    def _too_far(self, interval: str, first: int, end: int) -> str:
        asked = f"startTime={first} and endTime={end}. "
        days = DEPTH.get(interval)
        if interval == "1m" and end - first > MINUTES_SPAN * DAY:
            return f"{asked}Only 8 days worth of 1m granularity data are allowed to be fetched per request."
        if days is not None and first < self.clock().timestamp() - days * DAY:
            return f"{asked}The requested range must be within the last {days} days."
        return ""

    def _rows(self, listing: Listing, first: int, end: int, step: int, now: int) -> Iterator[Bar]:
        for stamp, _ in _opens(listing, first, end, step):
            bar = _bar(listing, stamp, step)
            running = listing.volume and stamp + step > now
            yield bar._replace(volume=1.0) if running else bar


def _opens(listing: Listing, first: int, end: int, step: int) -> Iterator[tuple[int, date]]:
    """Yield when bars that open in [first, end) do so, in Unix seconds, with their local date."""
    zone = ZoneInfo(listing.zone)
    day = datetime.fromtimestamp(first, zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(end, zone).date()
    while day <= last:
        if listing.every_day or day.weekday() < 5:
            began, closed = _session(listing, day, zone)
            for opens in [began] if step == DAY else range(began, closed, step):
                if first <= opens < end:
                    yield opens, day
        day += timedelta(days=1)


def _session(listing: Listing, day: date, zone: ZoneInfo) -> tuple[int, int]:
    opened, closed = listing.session or (time(0), time(0))
    following = day if listing.session else day + timedelta(days=1)
    both = datetime.combine(day, opened, zone), datetime.combine(following, closed, zone)
    return int(both[0].timestamp()), int(both[1].timestamp())


def _bar(listing: Listing, opens: int, step: int) -> Bar:
    bar = listing.market.bar(opens, step)
    return bar._replace(volume=float(int(bar.volume) + 1) if listing.volume else 0.0)


def _result(symbol: str, listing: Listing, interval: str, rows: list[Bar]) -> dict[str, Any]:
    zone = ZoneInfo(listing.zone)
    meta = {
        "currency": "USD",
        "symbol": symbol,
        "instrumentType": listing.kind,
        "exchangeTimezoneName": listing.zone,
        "priceHint": 2,
        "dataGranularity": interval,
        "validRanges": ["1d", "5d", "1mo", "max"],
    }
    if not rows:
        return {"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}
    if interval != "1d":
        days = sorted({datetime.fromtimestamp(bar.time, zone).date() for bar in rows})
        sessions = [_session(listing, day, zone) for day in days]
        meta["tradingPeriods"] = [
            [{"timezone": "X", "start": start, "end": end, "gmtoffset": 0}] for start, end in sessions
        ]
    quote = {name: [getattr(bar, name) for bar in rows] for name in Bar._fields[1:]}
    halves = [bar.close / 2 if isinstance(bar.close, float) else None for bar in rows]
    return {
        "meta": meta,
        "timestamp": [bar.time for bar in rows],
        "indicators": {"quote": [quote], "adjclose": [{"adjclose": halves}]},
    }


def _refusal(status: int, code: str, description: str) -> Reply:
    return json_reply({"chart": {"result": None, "error": {"code": code, "description": description}}}, status)


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(0), UTC).timestamp())


if __name__ == "__main__":
    run_standalone(YahooServer)
