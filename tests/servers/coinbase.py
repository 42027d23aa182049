"""Coinbase Exchange's public candles on loopback. Alone: `python -m tests.servers.coinbase --port 0`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.servers.base import ProviderServer, Reply, Request, json_reply, run_standalone
from tests.servers.market import Bar, Market

GRANULARITIES = {60, 300, 900, 3600, 21600, 86400}
MAX_CANDLES = 300
PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "XRP-USD", "ETH-BTC", "LTC-BTC")
_PATH = re.compile(r"/products/([^/]+)/candles")


class CoinbaseServer(ProviderServer):
    """Refuses more than 300 candles, unknown granularities and products; shows the still-open candle too.

    `market(product).gaps` can be filled; `before_start` sends that many candles from before `start`, as the
    documentation warns.
    """

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(port, clock)
        self.before_start = 0
        self._markets = {
            f"{base}-{quote}": Market(base, quote, digits=8 if quote == "BTC" else 2)
            for base, quote in (product.split("-") for product in PRODUCTS)
        }

    def market(self, product: str) -> Market:
        return self._markets[product]

    def truth(self, product: str, start: datetime, end: datetime, step: int) -> list[Bar]:
        """Return the closed bars that open in [start, end), oldest first."""
        last = min(int(end.timestamp()), int(self.clock().timestamp()) - step + 1)
        return list(self.market(product).bars(int(start.timestamp()), last, step))

    def spoiled(self, row: Any) -> Any:
        return [*row[:4], {"not": "a number"}, *row[5:]]

    def answer(self, request: Request, distort: str) -> Reply:
        match = _PATH.fullmatch(request.path)
        if not match:
            return json_reply({"message": "NotFound"}, 404)
        market = self._markets.get(match[1])
        if market is None:
            return json_reply({"message": "NotFound"}, 404)
        try:
            step = int(request.query["granularity"])
            first, last = (_seconds(request.query[name]) for name in ("start", "end"))
        except (KeyError, ValueError) as error:
            return json_reply({"message": f"Invalid argument {error}"}, 400)
        if step not in GRANULARITIES:
            return json_reply({"message": "Unsupported granularity"}, 400)
        first = -(-first // step) * step
        if (last - first) // step + 1 > MAX_CANDLES:
            return json_reply({"message": "granularity too small for the requested time range."}, 400)
        end = min(last, int(self.clock().timestamp())) + 1
        bars = market.bars(first - self.before_start * step, end, step)
        rows = [[bar.time, bar.low, bar.high, bar.open, bar.close, bar.volume] for bar in bars]
        return json_reply(self.distorted(rows[::-1], distort))


def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


if __name__ == "__main__":
    run_standalone(CoinbaseServer)
