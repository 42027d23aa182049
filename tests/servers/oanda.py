"""OANDA's v20 instrument candles on loopback. Alone: `python -m tests.servers.oanda --port 0`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.servers.base import ProviderServer, Reply, Request, json_reply, run_standalone
from tests.servers.market import Bar, Market, weekday

TOKEN = "0a1b2c3d4e5f60718293a4b5c6d7e8f9-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
STEPS = {"M1": 60, "M5": 300, "M15": 900, "H1": 3600, "H4": 14400, "D": 86400}
MAX_CANDLES = 5000
HALF_SPREAD = {"mid": 0.0, "bid": -0.0001, "ask": 0.0001}
_SIDES = {"M": "mid", "B": "bid", "A": "ask"}
_PATH = re.compile(r"/v3/instruments/([^/]+)/candles")
_NEW_YORK_CLOSE = 22 * 3600


class OandaServer(ProviderServer):
    """Refuses wrong tokens, more than 5000 candles, unknown instruments and a `to` in the future.

    Days and 4h bars begin at 17:00 New York (22:00 UTC in winter) unless the request aligns them to 0 UTC.
    """

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(port, clock)
        self._markets = {
            f"{base}_{quote}": Market(base, quote, digits=5, trades=weekday)
            for base, quote in (("EUR", "USD"), ("GBP", "USD"), ("USD", "JPY"))
        }

    def truth(self, pair: str, start: datetime, end: datetime, step: int, side: str = "mid") -> list[Bar]:
        """Return the closed bars that open in [start, end), oldest first."""
        last = min(int(end.timestamp()), int(self.clock().timestamp()) - step + 1)
        bars = self._markets[pair].bars(int(start.timestamp()), last, step)
        return [_on_side(bar, side) for bar in bars]

    def spoiled(self, row: Any) -> Any:
        side = next(name for name in HALF_SPREAD if name in row)
        return {**row, side: {**row[side], "c": ["not", "a number"]}}

    def answer(self, request: Request, distort: str) -> Reply:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return json_reply({"errorMessage": "Insufficient authorization to perform request."}, 401)
        match = _PATH.fullmatch(request.path)
        market = self._markets.get(match[1]) if match else None
        if market is None:
            return json_reply({"errorMessage": "Invalid value specified for 'instrument'"}, 400)
        try:
            step = STEPS[request.query["granularity"]]
            side = _SIDES[request.query.get("price", "M")]
            first, end = (int(datetime.fromisoformat(request.query[name]).timestamp()) for name in ("from", "to"))
        except (KeyError, ValueError) as error:
            return json_reply({"errorMessage": f"Invalid value specified for {error}"}, 400)
        now = self.clock().timestamp()
        if end > now:
            return json_reply({"errorMessage": "Invalid value specified for 'to'. Time is in the future"}, 400)
        if (end - first) / step > MAX_CANDLES:
            return json_reply({"errorMessage": "Maximum value for 'count' exceeded"}, 400)
        aligned = request.query.get("dailyAlignment") == "0" and request.query.get("alignmentTimezone") == "UTC"
        shift = 0 if aligned or step < STEPS["H4"] else _NEW_YORK_CLOSE % step
        # One candle past `to` too: whether it is inclusive must not matter to a client.
        bars = market.bars(first - shift, end + 1 - shift, step)
        rows = [_candle(bar._replace(time=bar.time + shift), side, step, now) for bar in bars]
        return json_reply(
            {
                "instrument": f"{market.base}_{market.quote}",
                "granularity": request.query["granularity"],
                "candles": self.distorted(rows, distort),
            }
        )


def _on_side(bar: Bar, side: str) -> Bar:
    shift = HALF_SPREAD[side]
    opened, high, low, close = (round(price + shift, 5) for price in bar[1:5])
    return Bar(bar.time, opened, high, low, close, float(int(bar.volume) + 1))


def _candle(bar: Bar, side: str, step: int, now: float) -> dict[str, Any]:
    shown = _on_side(bar, side)
    moment = datetime.fromtimestamp(bar.time, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "complete": bar.time + step <= now,
        "volume": int(shown.volume),
        "time": f"{moment}.000000000Z",
        side: {key: f"{getattr(shown, name):.5f}" for key, name in zip("ohlc", Bar._fields[1:5], strict=True)},
    }


if __name__ == "__main__":
    run_standalone(OandaServer)
