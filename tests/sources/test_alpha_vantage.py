"""Alpha Vantage: conformance, and what is its own."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import AlphaVantageSettings
from pipelines.errors import (
    MalformedAnswerError,
    QuotaExhaustedError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.instruments import load_registry
from pipelines.intervals import Interval
from pipelines.sources.alpha_vantage import AlphaVantageProvider, bars, news
from pipelines.sources.base import Page, Window
from pipelines.timeframes import Timeframe
from tests.servers import alpha_vantage as av
from tests.servers.alpha_vantage import KEY, AlphaVantageServer, says
from tests.servers.base import EMPTY, Fault, ProviderServer, json_reply
from tests.sources.conformance import KeyedConformance, Row, SourceCase, moment


class AlphaVantage(SourceCase):
    source_class, settings_class = AlphaVantageProvider, AlphaVantageSettings
    secrets: ClassVar[dict[str, str]] = {"api_key": KEY}
    now = datetime(2026, 1, 14, 20, 7, 30, tzinfo=UTC)  # in the regular session

    @pytest.fixture
    def server(self) -> Iterator[AlphaVantageServer]:
        with AlphaVantageServer(clock=self.clock) as server:
            server.spoil_from = self.start
            yield server

    def truth(self, server: AlphaVantageServer, start: datetime, end: datetime) -> list[Row]:
        assert self.timeframe is not None
        market = {"AAPL": server.equities["AAPL"], "EURUSD": server.forex["EUR", "USD"]}.get(
            self.subject, server.crypto["BTC", "USD"]
        )
        found = server.truth(market, start, end, self.timeframe.seconds)
        return [(moment(bar.time), *bar[1:5], None if self.subject == "EURUSD" else bar.volume) for bar in found]

    def asking(self, subject: str, timeframe: Timeframe, start: datetime, end: datetime) -> Window:
        return Window(self.dataset, subject, start, end, load_registry().resolve(subject), timeframe)


class NoHistory(KeyedConformance):
    """An answer that holds all there is vouches for nothing beyond its bars."""

    async def test_n11_empty_page_is_covered(self, server: ProviderServer) -> None:
        server.always(EMPTY)
        page = await self.page(server, self.window())
        assert page.table.num_rows == 0
        assert not page.covered


class TestEquities(AlphaVantage, KeyedConformance):
    """Conformance with quarters of an hour of the regular session, a month an answer."""

    subject, timeframe = "AAPL", Timeframe.M15
    start = datetime(2025, 12, 9, 14, 30, tzinfo=UTC)


class TestForex(AlphaVantage, NoHistory):
    """Conformance with hours; the answer is the trailing history."""

    subject, timeframe = "EURUSD", Timeframe.H1
    start = datetime(2026, 1, 7, tzinfo=UTC)
    length = timedelta(hours=10)


class TestCryptoDaily(AlphaVantage, NoHistory):
    """Conformance with days."""

    subject, timeframe = "BTCUSD", Timeframe.D1
    start = datetime(2025, 9, 1, tzinfo=UTC)
    length = timedelta(days=30)


class News(AlphaVantage):
    dataset = "raw_news_sentiment"
    subject = "BTCUSD"
    columns = ("timestamp", "title", "url", "sentiment_score", "relevance_score")
    step: ClassVar[timedelta] = timedelta(seconds=av.ARTICLES_EVERY)

    def window(self, start: datetime | None = None, end: datetime | None = None) -> Window:
        start = start or self.start
        instrument = load_registry().resolve(self.subject)
        return Window(self.dataset, self.subject, start, end or start + self.length, instrument)

    def truth(self, server: AlphaVantageServer, start: datetime, end: datetime) -> list[Row]:
        rows = []
        for at in server.articles(start, end):
            one = av.article(at, "CRYPTO:BTC")
            own = one["ticker_sentiment"][1]
            scores = float(own["ticker_sentiment_score"]), float(own["relevance_score"])
            rows.append((moment(at), one["title"], one["url"], *scores))
        return rows


class TestNews(News, KeyedConformance):
    """Conformance with articles."""


class TestNewsOwn(News):
    """What only the news does."""

    async def test_full_answers_are_paged_to_the_end(
        self, server: AlphaVantageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(news, "LIMIT", 7)
        page = await self.page(server, self.window())
        assert self.rows(page) == self.truth(server, self.start, self.start + self.length)
        assert page.covered == self.window().interval
        assert len(set(page.table["article_id"].to_pylist())) == page.table.num_rows == 30
        assert len(server.log) == 5
        assert server.log[0].query | {"apikey": ""} == {
            "function": "NEWS_SENTIMENT",
            "tickers": "CRYPTO:BTC",
            "time_from": "20251209T0000",
            "time_to": "20251209T0501",
            "sort": "EARLIEST",
            "limit": "7",
            "datatype": "json",
            "apikey": "",
        }
        assert server.log[1].query["time_from"] == "20251209T0100"

    async def test_more_in_a_minute_than_an_answer_holds(
        self, server: AlphaVantageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(news, "LIMIT", 1)
        page = await self.page(server, self.window(self.start + timedelta(minutes=5)))
        assert page.covered == Interval(self.start + timedelta(minutes=5), self.start + timedelta(minutes=10))
        assert len(server.log) == 2

    async def test_newest_first_in_spite_of_what_was_asked(
        self, server: AlphaVantageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(news, "LIMIT", 2)
        feed = [av.article(int(self.start.timestamp()) + at, "CRYPTO:BTC") for at in (1200, 600)]
        server.always(Fault("latest", json_reply({"items": "2", "feed": feed})))
        with pytest.raises(MalformedAnswerError, match="order"):
            await self.page(server, self.window())

    async def test_no_articles_is_an_answer(self, server: AlphaVantageServer) -> None:
        window = self.window(self.start + timedelta(minutes=2), self.start + timedelta(minutes=6))
        page = await self.page(server, window)
        assert page.table.num_rows == 0
        assert page.covered == window.interval

    async def test_columns(self, server: AlphaVantageServer) -> None:
        page = await self.page(server, self.window())
        row = page.table.to_pylist()[0]
        assert row["source_name"] == "Example News"
        assert row["sentiment_label"] == "Neutral"
        assert row["topics"] == ["Blockchain", "Earnings"]
        again = await self.page(server, self.window())
        assert page.table["article_id"] == again.table["article_id"]

    @pytest.mark.parametrize(
        ("pair", "ticker"),
        [("BTCUSD", "CRYPTO:BTC"), ("EURUSD", "FOREX:EUR"), ("USDJPY", "FOREX:USD"), ("AAPL", "AAPL")],
    )
    def test_tickers(self, pair: str, ticker: str) -> None:
        assert news.ticker_of(load_registry().resolve(pair)) == ticker

    @pytest.mark.parametrize("published", [None, "yesterday", 5])
    async def test_an_unreadable_time_is_left_to_the_edge(self, server: AlphaVantageServer, published: Any) -> None:
        feed = [{**av.article(0, "CRYPTO:BTC"), "time_published": published}]
        server.always(Fault("odd time", json_reply({"items": "1", "feed": feed})))
        assert (await self.page(server, self.window())).table.num_rows == 1


class TestAlphaVantageOwn(AlphaVantage):
    """What only Alpha Vantage does."""

    subject, timeframe = "AAPL", Timeframe.M15

    async def whole(self, server: AlphaVantageServer, window: Window) -> list[Page]:
        async with self.opened(server) as source:
            return [await source.fetch(part) for part in source.windows(window)]

    # ---- equities: months, daylight saving, as traded

    async def test_what_is_asked_for(self, server: AlphaVantageServer) -> None:
        start = datetime(2025, 12, 9, tzinfo=UTC)
        await self.page(server, self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1)))
        assert server.log[0].path == "/query"
        assert server.log[0].query == {
            "function": "TIME_SERIES_INTRADAY",
            "symbol": "AAPL",
            "interval": "15min",
            "outputsize": "full",
            "month": "2025-12",
            "extended_hours": "false",
            "adjusted": "false",
            "apikey": KEY,
            "datatype": "json",
        }

    @pytest.mark.parametrize(
        ("day", "opened"),
        [
            ("2025-03-07", "14:30"),
            ("2025-03-10", "13:30"),
            ("2025-10-31", "13:30"),
            ("2025-11-03", "14:30"),
        ],
    )
    async def test_sessions_around_the_clock_changes(self, server: AlphaVantageServer, day: str, opened: str) -> None:
        start = datetime.fromisoformat(f"{day}T00:00:00Z")
        page = await self.page(server, self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1)))
        times = page.table["timestamp"].to_pylist()
        assert times[0] == datetime.fromisoformat(f"{day}T{opened}:00Z")
        assert len(times) == 26
        assert times[-1] - times[0] == timedelta(hours=6, minutes=15)

    @pytest.mark.parametrize("month", ["2025-03", "2025-11"])
    async def test_a_month_of_wall_time_against_pandas(self, server: AlphaVantageServer, month: str) -> None:
        first = datetime.fromisoformat(f"{month}-01T00:00:00Z")
        pages = await self.whole(server, self.asking("AAPL", Timeframe.H1, first, first + timedelta(days=30)))
        days = pd.bdate_range(f"{month}-01", periods=30)
        walls = [day + pd.Timedelta(hours=hour) for day in days for hour in range(10, 16)]
        expected = pd.DatetimeIndex(walls).tz_localize("America/New_York").tz_convert("UTC")
        inside = [time for time in expected.to_pydatetime() if first <= time < first + timedelta(days=30)]
        assert [row[0] for row in self.rows(pages)] == inside

    async def test_months_are_cut_in_new_york_and_lose_nothing(self, server: AlphaVantageServer) -> None:
        start, end = datetime(2025, 2, 26, 3, tzinfo=UTC), datetime(2025, 5, 2, 20, tzinfo=UTC)
        whole = self.asking("AAPL", Timeframe.M15, start, end)
        cuts = [window.start for window in self.make(server).windows(whole)]
        assert cuts == [
            start,
            datetime(2025, 3, 1, 5, tzinfo=UTC),
            datetime(2025, 4, 1, 4, tzinfo=UTC),
            datetime(2025, 5, 1, 4, tzinfo=UTC),
        ]
        pages = await self.whole(server, whole)
        assert [request.query["month"] for request in server.log] == ["2025-02", "2025-03", "2025-04", "2025-05"]
        assert self.rows(pages) == self.truth(server, start, end)
        assert [page.covered.end for page in pages[:-1]] == [page.covered.start for page in pages[1:]]

    async def test_the_evening_of_a_month_end_belongs_to_the_old_month(self, server: AlphaVantageServer) -> None:
        start = datetime(2025, 4, 1, 1, tzinfo=UTC)  # 21:00 on 31 March in New York
        window = self.asking("AAPL", Timeframe.M15, start, start + timedelta(hours=1))
        page = await self.page(server, window)
        assert server.log[0].query["month"] == "2025-03"
        assert page.covered == window.interval

    async def test_the_running_month_is_vouched_for_to_its_newest_bar(self, server: AlphaVantageServer) -> None:
        """A key without realtime data gets yesterday's bars as the newest."""
        yesterday = datetime(2026, 1, 13, 21, tzinfo=UTC)
        window = self.asking("AAPL", Timeframe.M15, datetime(2026, 1, 12, tzinfo=UTC), self.now)
        server.clock = lambda: yesterday
        page = await self.page(server, window)
        assert page.covered == Interval(window.start, yesterday)

    @pytest.mark.parametrize("wall", ["2025-11-02 01:30:00", "2025-03-09 02:30:00"])
    def test_a_time_that_the_clock_change_spoils_stays_zoneless(self, wall: str) -> None:
        day = datetime.fromisoformat(f"{wall[:10]}T00:00:00Z")
        values = dict.fromkeys(("1. open", "2. high", "3. low", "4. close"), "1")
        series = {wall: values, f"{wall[:10]} 10:00:00": values}
        window = self.asking("AAPL", Timeframe.M15, day, day + timedelta(days=1))
        page = bars.bars_page(window, series, {"6. Time Zone": "US/Eastern"}, self.now)
        assert wall in page.table["timestamp"].to_pylist()
        assert page.table.num_rows == 2
        elsewhere = self.asking("AAPL", Timeframe.M15, day + timedelta(days=1), day + timedelta(days=2))
        assert bars.bars_page(elsewhere, series, {"6. Time Zone": "US/Eastern"}, self.now).table.num_rows == 0

    @given(st.sets(st.integers(0, 365 * 24 * 12), min_size=1, max_size=30))
    def test_any_wall_time_of_a_year(self, fives: set[int]) -> None:
        """Written by pandas as New York wall time: the same instant comes back, or the clock change spoils it."""
        year = datetime(2025, 1, 1, tzinfo=UTC)
        written = pd.DatetimeIndex([year + timedelta(minutes=5 * five) for five in sorted(fives)])
        walls = written.tz_convert("America/New_York").tz_localize(None)
        values = dict.fromkeys(("1. open", "2. high", "3. low", "4. close"), "1")
        series = {str(wall): values for wall in walls}
        window = self.asking("AAPL", Timeframe.M5, year, year + timedelta(days=366))
        table = bars.bars_page(window, series, {"6. Time Zone": "US/Eastern"}, self.now + timedelta(days=1)).table
        read = walls.tz_localize("America/New_York", ambiguous="NaT", nonexistent="raise").tz_convert("UTC").dropna()
        times = [time if isinstance(time, datetime) else parsed(time) for time in table["timestamp"].to_pylist()]
        assert [time for time in times if time is not None] == list(read.to_pydatetime())
        assert table.num_rows == len(series)

    @given(st.dictionaries(st.text() | st.datetimes().map(str), st.none() | st.integers() | st.text(), max_size=5))
    def test_any_text_for_a_time_is_a_row_or_a_malformed_answer(self, stamps: dict[str, Any]) -> None:
        series = {
            text: dict.fromkeys(("1. open", "2. high", "3. low", "4. close"), value) for text, value in stamps.items()
        }
        window = self.asking("AAPL", Timeframe.M5, self.start, self.start + timedelta(days=1))
        page = bars.bars_page(window, series, {"6. Time Zone": "US/Eastern"}, self.now)
        assert page.table.num_rows <= len(series)
        assert window.start <= page.covered.start <= page.covered.end <= window.end

    # ---- forex and crypto: the trailing history

    @pytest.mark.parametrize(("subject", "timeframe"), [("EURUSD", Timeframe.M15), ("BTCUSD", Timeframe.H1)])
    async def test_nothing_older_than_the_answer_is_vouched_for(
        self, server: AlphaVantageServer, subject: str, timeframe: Timeframe
    ) -> None:
        server.trailing = timedelta(days=5, hours=3)
        start = self.now - timedelta(days=200)
        window = self.asking(subject, timeframe, start, timeframe.floor(self.now))
        [page] = await self.whole(server, window)
        assert len(server.log) == 1
        assert page.covered == Interval(timeframe.ceil(self.now - server.trailing), timeframe.floor(self.now))
        assert page.table["timestamp"].to_pylist()[0] == page.covered.start
        old = self.asking(subject, timeframe, start, start + timedelta(days=3))
        assert not (await self.page(server, old)).covered

    async def test_the_zone_is_read_from_the_answer(self, server: AlphaVantageServer) -> None:
        server.zone = "Asia/Shanghai"
        start = datetime(2026, 1, 7, tzinfo=UTC)
        page = await self.page(server, self.asking("EURUSD", Timeframe.M15, start, start + timedelta(hours=2)))
        assert page.table["timestamp"].to_pylist()[0] == start
        assert page.table.num_rows == 8

    @pytest.mark.parametrize("meta", [{}, {"7. Time Zone": "Mars/Olympus"}, {"7. Time Zone": 5}, None])
    async def test_an_unknown_zone_is_not_guessed(self, server: AlphaVantageServer, meta: Any) -> None:
        answer = {"Meta Data": meta, "Time Series FX (15min)": {}}
        server.always(Fault("zone", json_reply(answer)))
        start = datetime(2026, 1, 7, tzinfo=UTC)
        with pytest.raises(MalformedAnswerError):
            await self.page(server, self.asking("EURUSD", Timeframe.M15, start, start + timedelta(hours=2)))

    async def test_forex_has_no_volume(self, server: AlphaVantageServer) -> None:
        start = datetime(2026, 1, 7, tzinfo=UTC)
        page = await self.page(server, self.asking("EURUSD", Timeframe.M15, start, start + timedelta(hours=2)))
        assert page.table["volume"].null_count == page.table.num_rows == 8

    async def test_crypto_in_its_market(self, server: AlphaVantageServer) -> None:
        """Older daily answers give each price in the market's currency and in USD."""
        values = {"1a. open (EUR)": "1", "1b. open (USD)": "2", "2a. high (EUR)": "3", "2b. high (USD)": "4"}
        values |= {"3a. low (EUR)": "0.5", "3b. low (USD)": "1", "4a. close (EUR)": "2", "4b. close (USD)": "3"}
        values |= {"5. volume": "7", "6. market cap (USD)": "9"}
        name = "Time Series (Digital Currency Daily)"
        server.always(Fault("a and b", json_reply({"Meta Data": {}, name: {"2025-12-09": values}})))
        start = datetime(2025, 12, 9, tzinfo=UTC)
        page = await self.page(server, self.asking("BTCEUR", Timeframe.D1, start, start + timedelta(days=1)))
        assert server.log[0].query | {"apikey": ""} == {
            "function": "DIGITAL_CURRENCY_DAILY",
            "symbol": "BTC",
            "market": "EUR",
            "datatype": "json",
            "apikey": "",
        }
        assert self.rows(page) == [(start, 1.0, 3.0, 0.5, 2.0, 7.0)]

    @pytest.mark.parametrize("subject", ["AAPL", "EURUSD", "BTCUSD"])
    async def test_days_stand_at_midnight_utc_and_come_in_one_request(
        self, server: AlphaVantageServer, subject: str
    ) -> None:
        start = datetime(2025, 3, 3, tzinfo=UTC)
        pages = await self.whole(server, self.asking(subject, Timeframe.D1, start, start + timedelta(days=280)))
        times = [row[0] for row in self.rows(pages)]
        assert len(server.log) == 1
        assert times[:3] == [start + timedelta(days=day) for day in range(3)]
        assert len(times) == (280 if subject == "BTCUSD" else 200)

    # ---- errors that come with status 200

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (av.BAD_KEY, SourceAuthError),
            (av.DEMO, SourceAuthError),
            (av.PREMIUM, SourceAuthError),
            (av.PREMIUM_SIZE, SourceAuthError),
            (av.BAD_CALL, UnsupportedError),
            ({"Information": "Invalid inputs. Please refer to the API documentation"}, UnsupportedError),
            (av.DAILY_LIMIT, QuotaExhaustedError),
            ({"Information": "The moon is full."}, MalformedAnswerError),
            ({}, MalformedAnswerError),
            ([], MalformedAnswerError),
            ({"Meta Data": {}, "Time Series (5min)": {}}, MalformedAnswerError),
            ({"Meta Data": {}, "Time Series (15min)": []}, MalformedAnswerError),
            ({"Meta Data": {"6. Time Zone": "UTC"}, "Time Series (15min)": {"2025-12-09": 5}}, MalformedAnswerError),
            (
                {"Meta Data": {"6. Time Zone": "UTC"}, "Time Series (15min)": {"2025-12-09": {"1. open": "5"}}},
                MalformedAnswerError,
            ),
        ],
    )
    async def test_final_errors_with_status_200(
        self, server: AlphaVantageServer, caplog: pytest.LogCaptureFixture, answer: Any, kind: type[SourceError]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.always(Fault("said", json_reply(answer)))
        with pytest.raises(kind, match="alpha_vantage") as caught:
            await self.page(server, self.window())
        assert len(server.log) == 1, "asking again would not help"
        assert KEY not in "".join(traceback.format_exception(caught.value)) + caplog.text

    @pytest.mark.parametrize("answer", [av.BURST, av.PER_MINUTE])
    async def test_throttling_notes_are_retried(self, server: AlphaVantageServer, answer: dict[str, str]) -> None:
        server.misbehave(says(answer))
        page = await self.page(server, self.window(), max_retry_after_seconds=0.01)
        assert self.rows(page) == self.truth(server, self.start, self.start + self.length)
        server.always(says(answer))
        with pytest.raises(SourceUnavailableError, match="Thank you"):
            await self.page(server, self.window(), max_retry_after_seconds=0.01)

    # ---- how it is made

    async def test_as_the_documentation_makes_it(self) -> None:
        provider = AlphaVantageProvider(api_key="some-key")
        assert provider.get_circuit_breaker_stats()["state"] == "closed"
        assert provider.get_circuit_breaker_stats()["failure_count"] == 0
        assert provider.unavailable_reason() is None
        assert AlphaVantageSettings().requests_per_minute == 75
        await provider.aclose()

    async def test_without_a_key_nothing_is_sent(
        self, server: AlphaVantageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALPHAVANTAGE_API_KEY", "the package would take this one")
        with pytest.raises(SourceAuthError, match="api_key"):
            await self.page(server, self.window(), api_key=None)
        assert server.log == []

    async def test_a_key_with_odd_letters_arrives_whole(self, server: AlphaVantageServer) -> None:
        with pytest.raises(SourceAuthError):
            await self.page(server, self.window(), api_key="a+b&c=d %41")
        assert server.log[0].query["apikey"] == "a+b&c=d %41"

    async def test_two_base_addresses_at_once(self, server: AlphaVantageServer) -> None:
        with AlphaVantageServer(clock=self.clock) as other:
            async with self.opened(server) as one, self.opened(other) as two:
                await one.fetch(self.window())
                await two.fetch(self.window())
            assert len(server.log) == len(other.log) == 1

    async def test_no_4h_but_1h_to_derive_it_from(self, server: AlphaVantageServer) -> None:
        source = self.make(server)
        assert source.capabilities.derived == {Timeframe.H4: Timeframe.H1}
        assert not source.capabilities.adjusted
        assert source.supports(self.dataset, load_registry().resolve("AAPL"), Timeframe.H4)
        assert not source.supports(self.dataset, load_registry().resolve("^TNX"), Timeframe.D1)
        with pytest.raises(UnsupportedError):
            await source.fetch(self.asking("AAPL", Timeframe.H4, self.start, self.start + timedelta(days=1)))
        assert server.log == []


def parsed(text: str) -> datetime | None:
    """Return an instant, or None for a zoneless text."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else None
