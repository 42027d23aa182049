"""Alpha Vantage's query API on loopback. Alone: `python -m tests.servers.alpha_vantage --port 0`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.servers.base import Fault, ProviderServer, Reply, Request, json_reply, run_standalone
from tests.servers.market import Bar, Market, weekday

KEY = "AV7K2QX9WZ4M8T3L"
NEW_YORK = ZoneInfo("America/New_York")
STEPS = {"1min": 60, "5min": 300, "15min": 900, "30min": 1800, "60min": 3600}
DAY = 86_400
ARTICLES_EVERY = 600
_ASK = "Please claim your free API key on (https://www.alphavantage.co/support/#api-key)."
_PLANS = "You may subscribe to any of the premium plans at https://www.alphavantage.co/premium/ to instantly"

BAD_KEY = {"Error Message": f"the parameter apikey is invalid or missing. {_ASK} It should take less than 20 seconds."}
BAD_CALL = {
    "Error Message": "Invalid API call. Please retry or visit the documentation "
    "(https://www.alphavantage.co/documentation/) for {function}."
}
PREMIUM = {"Information": f"Thank you for using Alpha Vantage! This is a premium endpoint. {_PLANS} unlock all of them"}
PREMIUM_SIZE = {
    "Information": "Thank you for using Alpha Vantage! The outputsize=full parameter value is a premium feature for "
    f"the TIME_SERIES_DAILY endpoint. {_PLANS} unlock all premium features"
}
DAILY_LIMIT = {
    "Information": f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day. "
    "Please subscribe to any of the premium plans to instantly remove all daily rate limits."
}
BURST = {
    "Information": "Thank you for using Alpha Vantage! Please consider spreading out your free API requests more "
    f"sparingly (1 request per second). {_PLANS} lift the free key rate limit (25 requests per day), raise the "
    "per-second burst limit, and instantly unlock all premium endpoints"
}
PER_MINUTE = {
    "Note": "Thank you for using Alpha Vantage! Our standard API call frequency is 5 calls per minute and 500 calls "
    "per day. Please visit https://www.alphavantage.co/premium/ to target a higher API call frequency."
}
DEMO = {"Information": f"The **demo** API key is for demo purposes only. {_ASK}"}
NO_ARTICLES = {
    "Information": "No articles found. Please adjust the time range or refer to the API documentation "
    "https://www.alphavantage.co/documentation#newsapi and try again."
}


def says(answer: dict[str, Any]) -> Fault:
    """Answer so with status 200, as Alpha Vantage tells its errors."""
    return Fault(next(iter(answer)), json_reply(answer))


class AlphaVantageServer(ProviderServer):
    """Knows a few symbols, and needs the parameters that the documentation marks as required.

    `trailing` is how far back intraday forex and crypto go, `zone` the one they come in, `spoil_from` the first instant
    of which a bar may be the one with the wrong type.
    """

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(port, clock)
        self.trailing = timedelta(days=30)
        self.daily_history = timedelta(days=700)
        self.zone = "UTC"
        self.spoil_from = datetime(1970, 1, 1, tzinfo=UTC)
        self.equities = {symbol: Market(symbol, "USD", digits=2) for symbol in ("AAPL", "MSFT")}
        self.forex = {("EUR", "USD"): Market("EUR", "USD", digits=5, trades=weekday)}
        self.crypto = {(base, "USD"): Market(base, "USD", digits=2) for base in ("BTC", "ETH")}

    # ---- truth

    def truth(self, market: Market, start: datetime, end: datetime, step: int) -> list[Bar]:
        """Return the closed bars that open in [start, end), oldest first; the regular session's of an equity."""
        last = min(_seconds(end), _seconds(self.clock()) - step + 1)
        trades = _session(step) if market in self.equities.values() else lambda _: True
        return [bar for bar in market.bars(_seconds(start), last, step) if trades(bar.time)]

    def articles(self, start: datetime, end: datetime) -> list[int]:
        """Return when articles were published in [start, end) and up to now, in Unix seconds."""
        last = min(_seconds(end), _seconds(self.clock()) + 1)
        return list(range(-(-_seconds(start) // ARTICLES_EVERY) * ARTICLES_EVERY, last, ARTICLES_EVERY))

    def distorted(self, rows: list[Any], distort: str) -> list[Any]:
        if distort == "wrong type" and rows and "row" in rows[0]:
            at = next(index for index, row in enumerate(rows) if row["time"] >= _seconds(self.spoil_from))
            return [*rows[:at], self.spoiled(rows[at]), *rows[at + 1 :]]
        return super().distorted(rows, distort)

    def spoiled(self, row: Any) -> Any:
        wrong = {"not": "a number"}
        if "ticker_sentiment" in row:
            own = [{**one, "ticker_sentiment_score": wrong} for one in row["ticker_sentiment"]]
            return {**row, "ticker_sentiment": own}
        stamp, values = row["row"]
        return {**row, "row": (stamp, {**values, "4. close": wrong})}

    # ---- answers

    def answer(self, request: Request, distort: str) -> Reply:
        query = request.query
        if request.path != "/query":
            return json_reply({"message": "not found"}, 404)
        if query.get("apikey") != KEY:
            return json_reply(BAD_KEY)
        functions = {
            "TIME_SERIES_INTRADAY": self._equity_intraday,
            "TIME_SERIES_DAILY": self._equity_daily,
            "FX_INTRADAY": self._forex,
            "FX_DAILY": self._forex,
            "CRYPTO_INTRADAY": self._crypto,
            "DIGITAL_CURRENCY_DAILY": self._crypto,
            "NEWS_SENTIMENT": self._news,
        }
        function = query.get("function", "")
        try:
            return json_reply(functions[function](query, distort))
        except KeyError:
            return json_reply({key: text.format(function=function) for key, text in BAD_CALL.items()})

    def _equity_intraday(self, query: dict[str, str], distort: str) -> dict[str, Any]:
        market, step, interval = self.equities[query["symbol"]], STEPS[query["interval"]], query["interval"]
        now = _seconds(self.clock())
        first, end = now - 30 * DAY, now
        if "month" in query:
            began = datetime.strptime(query["month"], "%Y-%m").replace(tzinfo=NEW_YORK)
            first, end = _seconds(began), min(now, _seconds((began + timedelta(days=32)).replace(day=1)))
        trades = _session(step, extended=query.get("extended_hours", "true") == "true")
        bars = (bar for bar in market.bars(first, end, step) if trades(bar.time))
        if query.get("adjusted", "true") == "true":
            bars = (_halved(bar) for bar in bars)
        return self._series(f"Time Series ({interval})", ("6. Time Zone", "US/Eastern"), bars, query, distort)

    def _equity_daily(self, query: dict[str, str], distort: str) -> dict[str, Any]:
        bars = self._days(self.equities[query["symbol"]], lambda at: _moment(at).weekday() < 5)
        return self._series("Time Series (Daily)", ("5. Time Zone", "US/Eastern"), bars, query, distort, daily=True)

    def _forex(self, query: dict[str, str], distort: str) -> dict[str, Any]:
        market = self.forex[query["from_symbol"], query["to_symbol"]]
        if query["function"] == "FX_DAILY":
            name, bars = "Time Series FX (Daily)", self._days(market, lambda at: _moment(at).weekday() < 5)
            return self._series(name, ("6. Time Zone", self.zone), bars, query, distort, daily=True, volume=False)
        bars = self._trail(market, STEPS[query["interval"]])
        name = f"Time Series FX ({query['interval']})"
        return self._series(name, ("7. Time Zone", self.zone), bars, query, distort, volume=False)

    def _crypto(self, query: dict[str, str], distort: str) -> dict[str, Any]:
        market = self.crypto[query["symbol"], query["market"]]
        if query["function"] == "DIGITAL_CURRENCY_DAILY":
            bars = self._days(market, lambda _: True)
            full = {**query, "outputsize": "full"}
            name = "Time Series (Digital Currency Daily)"
            return self._series(name, ("7. Time Zone", self.zone), bars, full, distort, daily=True)
        bars = self._trail(market, STEPS[query["interval"]])
        return self._series(
            f"Time Series Crypto ({query['interval']})", ("9. Time Zone", self.zone), bars, query, distort
        )

    def _trail(self, market: Market, step: int) -> Iterator[Bar]:
        now = _seconds(self.clock())
        return market.bars(now - int(self.trailing.total_seconds()), now, step)

    def _days(self, market: Market, trades: Callable[[int], bool]) -> Iterator[Bar]:
        now = _seconds(self.clock())
        for opens in range((now - int(self.daily_history.total_seconds())) // DAY * DAY, now, DAY):
            if trades(opens):
                yield market.bar(opens, DAY)

    def _series(
        self,
        name: str,
        zone: tuple[str, str],
        bars: Iterator[Bar],
        query: dict[str, str],
        distort: str,
        *,
        daily: bool = False,
        volume: bool = True,
    ) -> dict[str, Any]:
        local = ZoneInfo(zone[1])
        shape = "%Y-%m-%d" if daily else "%Y-%m-%d %H:%M:%S"
        rows = []
        for bar in bars:
            moment = _moment(bar.time) if daily else _moment(bar.time).astimezone(local)
            values = {f"{n}. {key}": str(getattr(bar, key)) for n, key in enumerate(Bar._fields[1:5], 1)}
            if volume:
                values["5. volume"] = str(bar.volume)
            rows.append({"time": bar.time, "row": (moment.strftime(shape), values)})
        if query.get("outputsize") != "full":
            rows = rows[-100:]
        shown = dict(row["row"] for row in reversed(self.distorted(rows, distort)))
        return {"Meta Data": {"1. Information": name, zone[0]: zone[1]}, name: shown}

    def _news(self, query: dict[str, str], distort: str) -> dict[str, Any]:
        first, last = (_minute(query[name]) for name in ("time_from", "time_to"))
        published = self.articles(_moment(first), _moment(last + 1))
        if query.get("sort", "LATEST") != "EARLIEST":
            published.reverse()
        published = published[: int(query.get("limit", "50"))]
        feed = self.distorted([article(at, query["tickers"]) for at in published], distort)
        return {"items": str(len(feed)), "feed": feed} if feed or distort else NO_ARTICLES


def article(at: int, ticker: str) -> dict[str, Any]:
    """Return the article of an instant, which is as much about IBM."""
    score = round((at // ARTICLES_EVERY % 19 - 9) / 10, 2)
    return {
        "title": f"Something happened at {at}",
        "url": f"https://news.example/{at}",
        "time_published": _moment(at).strftime("%Y%m%dT%H%M%S"),
        "authors": ["A. Writer"],
        "summary": "It did.",
        "source": "Example News",
        "topics": [{"topic": "Blockchain", "relevance_score": "0.3"}, {"topic": "Earnings", "relevance_score": "0.9"}],
        "overall_sentiment_score": 0.99,
        "overall_sentiment_label": "Bullish",
        "ticker_sentiment": [
            {
                "ticker": "IBM",
                "relevance_score": "0.01",
                "ticker_sentiment_score": "-0.99",
                "ticker_sentiment_label": "Bearish",
            },
            {
                "ticker": ticker,
                "relevance_score": "0.5",
                "ticker_sentiment_score": str(score),
                "ticker_sentiment_label": "Neutral",
            },
        ],
    }


def _session(step: int, *, extended: bool = False) -> Callable[[int], bool]:
    first, last = ((4, 0), (20, 0)) if extended else ((9, 30), (16, 0))

    def trades(at: int) -> bool:
        local = datetime.fromtimestamp(at, NEW_YORK)
        return local.weekday() < 5 and first <= (local.hour, local.minute) < last

    return trades


def _halved(bar: Bar) -> Bar:
    return bar._replace(**{name: getattr(bar, name) / 2 for name in ("open", "high", "low", "close")})


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _minute(text: str) -> int:
    return _seconds(datetime.strptime(text, "%Y%m%dT%H%M").replace(tzinfo=UTC))


if __name__ == "__main__":
    run_standalone(AlphaVantageServer)
