"""Fetches and translates Alpha Vantage's news with the sentiment of one ticker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipelines.errors import MalformedAnswerError
from pipelines.instruments import AssetClass, Instrument
from pipelines.intervals import Interval
from pipelines.sources.alpha_vantage.client import AlphaVantageClient, Endpoint
from pipelines.sources.base import Page, Window, raw_table

NEWS = Endpoint("alphaintelligence", "AlphaIntelligence", "get_news_sentiment")
LIMIT = 1000
_MINUTE = timedelta(minutes=1)
_COLUMNS = (
    "article_id", "timestamp", "title", "url", "source_name", "summary",
    "sentiment_score", "sentiment_label", "relevance_score",
)  # fmt: skip


def ticker_of(instrument: Instrument) -> str:
    """Return the news ticker; of a pair it is the base's, as the sentiment of USD says little of EURUSD's own."""
    prefixes = {AssetClass.CRYPTO: "CRYPTO:", AssetClass.FOREX: "FOREX:"}
    prefix = prefixes.get(instrument.asset_class)
    return f"{prefix}{instrument.base}" if prefix else instrument.symbol("alpha_vantage")


async def news_page(client: AlphaVantageClient, window: Window, instrument: Instrument, now: datetime) -> Page:
    """Return the articles published in the window, with the sentiment and relevance of the instrument's own ticker.

    An answer holds at most 1000 articles, oldest first, so the next one is asked for from the last article's minute
    on, until one is not full.

    Raises:
        SourceError: an answer was not usable.
    """
    ticker, end = ticker_of(instrument), min(window.end, now)
    rows: dict[str, dict[str, object]] = {}
    start = window.start.replace(second=0, microsecond=0)
    while start < end:
        feed = await _ask(client, ticker, start, end)
        found = [_row(article, ticker, instrument.pair) for article in feed]
        rows.update((str(row["article_id"]), row) for row in found if _belongs(row, window, now))
        if len(feed) < LIMIT:
            break
        last = _last_minute(found, start)
        if last <= start:
            # More articles in one minute than an answer holds: there is no way to ask for the rest.
            end = max(window.start, last)
        start = last
    return Page(_table(list(rows.values())), Interval(window.start, max(window.start, end)))


async def _ask(client: AlphaVantageClient, ticker: str, start: datetime, end: datetime) -> list[Mapping[str, object]]:
    answer, key = await client.ask(
        NEWS,
        tickers=ticker,
        time_from=f"{start:%Y%m%dT%H%M}",
        time_to=f"{end + _MINUTE:%Y%m%dT%H%M}",
        sort="EARLIEST",
        limit=str(LIMIT),
    )
    feed = answer.get(key, [])
    if not isinstance(feed, list) or not all(isinstance(article, dict) for article in feed):
        raise MalformedAnswerError("alpha_vantage: the news feed is not a list of articles")
    return feed


def _row(article: Mapping[str, object], ticker: str, pair: str) -> dict[str, object]:
    url = article.get("url")
    published = article.get("time_published")
    own = next((one for one in _objects(article.get("ticker_sentiment")) if one.get("ticker") == ticker), {})
    identity = f"{url or article.get('title')}\n{pair}".encode()
    return {
        "article_id": hashlib.sha256(identity).hexdigest()[:32],
        "timestamp": _published(published),
        "title": article.get("title"),
        "url": url,
        "source_name": article.get("source"),
        "summary": article.get("summary"),
        "sentiment_score": own.get("ticker_sentiment_score"),
        "sentiment_label": own.get("ticker_sentiment_label"),
        "relevance_score": own.get("relevance_score"),
        "topics": [str(one["topic"]) for one in _objects(article.get("topics")) if "topic" in one],
    }


def _objects(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _published(text: object) -> object:
    """Parse 20250310T133000, which is UTC; anything else stays as it is for the edge validation to refuse."""
    try:
        return datetime.strptime(str(text), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return text


def _belongs(row: Mapping[str, object], window: Window, now: datetime) -> bool:
    published = row["timestamp"]
    return not isinstance(published, datetime) or (published in window.interval and published <= now)


def _last_minute(rows: list[dict[str, object]], start: datetime) -> datetime:
    times = [row["timestamp"] for row in rows if isinstance(row["timestamp"], datetime)]
    if not times or times[0] > times[-1]:
        raise MalformedAnswerError("alpha_vantage: a full page of news is not in the order asked for")
    return max(start, max(times).replace(second=0))


def _table(rows: list[dict[str, object]]) -> pa.Table:
    columns = raw_table({name: [row[name] for row in rows] for name in _COLUMNS})
    return columns.append_column("topics", pa.array([row["topics"] for row in rows], pa.list_(pa.string())))
