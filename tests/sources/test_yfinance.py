"""Yahoo Finance: conformance, and what is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import YfinanceSettings
from pipelines.errors import (
    MalformedAnswerError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.instruments import load_registry
from pipelines.intervals import Interval
from pipelines.sources.base import Page, Window
from pipelines.sources.yfinance import YfinanceSource
from pipelines.timeframes import Timeframe
from tests.servers.base import WRONG_TYPE, Fault, ProviderServer, Reply, Request, json_reply
from tests.servers.yahoo import YahooServer
from tests.sources.conformance import NetworkConformance, Row, SourceCase, moment

SYMBOLS = {"AAPL": "AAPL", "^TNX": "^TNX", "BTCUSD": "BTC-USD", "EURUSD": "EURUSD=X"}


class Yfinance(SourceCase):
    source_class, settings_class = YfinanceSource, YfinanceSettings

    @pytest.fixture
    def server(self) -> Iterator[YahooServer]:
        with YahooServer(clock=self.clock) as server:
            yield server

    def truth(self, server: YahooServer, start: datetime, end: datetime) -> list[Row]:
        assert self.timeframe is not None
        return self.bars(server, self.subject, self.timeframe, start, end)

    def bars(
        self, server: YahooServer, subject: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> list[Row]:
        found = server.truth(SYMBOLS[subject], start, end, timeframe.seconds)
        has_volume = subject in ("AAPL", "BTCUSD")
        return [(moment(bar.time), *bar[1:5], bar.volume if has_volume else None) for bar in found]

    def asking(self, subject: str, timeframe: Timeframe, start: datetime, end: datetime) -> Window:
        return Window(self.dataset, subject, start, end, load_registry().resolve(subject), timeframe)


class YfinanceConformance(NetworkConformance):
    """Where the package decides."""

    def _counted(self, status: str) -> float:
        """A try that the package makes is counted as an answer or an error, not by its status."""
        return super()._counted("200" if status == "200" else "error")

    async def test_n13_a_wrong_type_spoils_its_row_only(self, server: ProviderServer) -> None:
        """The package reads a chart as a whole: with one wrong value it is refused as a whole, and loudly."""
        server.always(WRONG_TYPE)
        with pytest.raises(MalformedAnswerError, match="could not read"):
            await self.page(server, self.window())


class TestCrypto(Yfinance, YfinanceConformance):
    """Conformance with hours."""

    subject, timeframe = "BTCUSD", Timeframe.H1
    length = timedelta(hours=14)


class TestDays(Yfinance, YfinanceConformance):
    """Conformance with days of forex, which Yahoo begins at midnight in London."""

    subject, timeframe = "EURUSD", Timeframe.D1
    start = datetime(2025, 9, 1, tzinfo=UTC)
    length = timedelta(days=60)


class TestYfinanceOwn(Yfinance):
    """What only Yahoo does."""

    subject, timeframe = "AAPL", Timeframe.M15

    async def whole(self, server: YahooServer, window: Window) -> list[Page]:
        async with self.opened(server) as source:
            return [await source.fetch(part) for part in source.windows(window)]

    # ---- what is asked for and what comes

    async def test_one_request_to_the_chart_and_to_nothing_else(self, server: YahooServer) -> None:
        start = datetime(2026, 1, 12, tzinfo=UTC)
        page = await self.page(server, self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1)))
        assert [request.path for request in server.log] == ["/v8/finance/chart/AAPL"]
        asked = server.log[0].query
        assert asked["interval"] == "15m"
        assert asked["includePrePost"].lower() == "false"
        assert (int(asked["period1"]), int(asked["period2"])) == (start.timestamp(), start.timestamp() + 86_400)
        assert "crumb" not in asked
        assert page.table.num_rows == 26

    async def test_prices_are_not_adjusted(self, server: YahooServer) -> None:
        start = datetime(2025, 6, 2, tzinfo=UTC)
        window = self.asking("AAPL", Timeframe.D1, start, start + timedelta(days=30))
        page = await self.page(server, window)
        assert self.rows(page) == self.bars(server, "AAPL", Timeframe.D1, window.start, window.end)
        assert not YfinanceSource.capabilities.adjusted

    @pytest.mark.parametrize("subject", ["^TNX", "EURUSD"])
    async def test_symbols_and_absent_volume(self, server: YahooServer, subject: str) -> None:
        start = datetime(2026, 1, 5, tzinfo=UTC)
        for timeframe in (Timeframe.M15, Timeframe.H1, Timeframe.D1):
            window = self.asking(subject, timeframe, start, start + timedelta(days=4))
            page = await self.page(server, window)
            assert self.rows(page) == self.bars(server, subject, timeframe, window.start, window.end)
            assert page.table["volume"].null_count == page.table.num_rows > 0
        assert {request.path for request in server.log} == {f"/v8/finance/chart/{SYMBOLS[subject]}"}

    @pytest.mark.parametrize(
        ("day", "opened"),
        [("2025-03-07", "14:30"), ("2025-03-10", "13:30"), ("2025-10-31", "13:30"), ("2025-11-03", "14:30")],
    )
    async def test_sessions_around_the_clock_changes(self, server: YahooServer, day: str, opened: str) -> None:
        start = datetime.fromisoformat(f"{day}T00:00:00Z")
        page = await self.page(server, self.asking("AAPL", Timeframe.H1, start, start + timedelta(days=1)))
        times = page.table["timestamp"].to_pylist()
        assert times[0] == datetime.fromisoformat(f"{day}T{opened}:00Z")
        assert len(times) == 7

    @pytest.mark.parametrize("subject", ["AAPL", "EURUSD", "BTCUSD", "^TNX"])
    async def test_days_stand_at_midnight_utc_of_the_local_date(self, server: YahooServer, subject: str) -> None:
        start = datetime(2025, 3, 3, tzinfo=UTC)
        pages = await self.whole(server, self.asking(subject, Timeframe.D1, start, start + timedelta(days=280)))
        times = [row[0] for row in self.rows(pages)]
        days = [start + timedelta(days=n) for n in range(280)]
        assert times == [day for day in days if subject == "BTCUSD" or day.weekday() < 5]
        assert len(server.log) == 1

    async def test_an_open_bar_off_the_hour_is_not_vouched_for(self, server: YahooServer) -> None:
        now = datetime(2026, 1, 12, 17, 10, tzinfo=UTC)
        server.clock = lambda: now
        window = self.asking("AAPL", Timeframe.H1, datetime(2026, 1, 12, tzinfo=UTC), now)
        page = await self.source_page(server, window, now)
        half_past = datetime(2026, 1, 12, 16, 30, tzinfo=UTC)
        assert page.table["timestamp"].to_pylist()[-1] == half_past - timedelta(hours=1)
        assert page.covered == Interval(window.start, half_past)

    async def source_page(self, server: YahooServer, window: Window, now: datetime) -> Page:
        source = self.make(server, clock=lambda: now)
        try:
            return await source.fetch(window)
        finally:
            await source.aclose()

    # ---- how far back

    @pytest.mark.parametrize(
        ("timeframe", "days", "requests"),
        [(Timeframe.M1, 29, 5), (Timeframe.M5, 59, 1), (Timeframe.M15, 59, 1), (Timeframe.H1, 729, 1)],
    )
    async def test_what_yahoo_does_not_keep_is_neither_asked_for_nor_vouched_for(
        self, server: YahooServer, timeframe: Timeframe, days: int, requests: int
    ) -> None:
        end = timeframe.floor(self.now)
        whole = self.asking("AAPL", timeframe, end - timedelta(days=800), end)
        pages = await self.whole(server, whole)
        assert len(server.log) == requests
        assert not pages[0].covered
        assert pages[0].table.num_rows == 0
        oldest = timeframe.ceil(self.now - timedelta(days=days))
        assert pages[1].covered.start == oldest
        assert pages[-1].covered.end == end
        assert self.rows(pages) == self.bars(server, "AAPL", timeframe, oldest, end)

    async def test_a_refusal_for_age_is_not_vouched_for(self, server: YahooServer) -> None:
        said = {"code": "Unprocessable Entity", "description": "The requested range must be within the last 60 days."}
        server.always(Fault("old", json_reply({"chart": {"result": None, "error": said}}, 422)))
        start = self.now - timedelta(days=5)
        page = await self.page(server, self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1)))
        assert not page.covered

    async def test_before_the_listing_there_is_nothing(self, server: YahooServer) -> None:
        server.listed_from = date(2020, 1, 1)
        window = self.asking("AAPL", Timeframe.D1, datetime(2010, 1, 1, tzinfo=UTC), datetime(2011, 1, 1, tzinfo=UTC))
        page = await self.page(server, window)
        assert page.table.num_rows == 0
        assert page.covered == window.interval

    async def test_a_weekend_is_vouched_for(self, server: YahooServer) -> None:
        saturday = datetime(2026, 1, 10, tzinfo=UTC)
        window = self.asking("AAPL", Timeframe.M15, saturday, saturday + timedelta(days=2))
        page = await self.page(server, window)
        assert page.table.num_rows == 0
        assert page.covered == window.interval

    # ---- never an empty page instead of an error

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (json_reply({"chart": {"result": None, "error": None}}), MalformedAnswerError),
            (json_reply({"chart": {"result": [], "error": None}}), MalformedAnswerError),
            (json_reply({"chart": {"result": [{}], "error": None}}), MalformedAnswerError),
            (json_reply({"chart": {"result": [{"meta": {}, "timestamp": [1]}], "error": None}}), MalformedAnswerError),
            (json_reply({"chart": None}), MalformedAnswerError),
            (json_reply({"chart": {"result": None, "error": {"code": "Internal", "description": "?"}}}), SourceError),
            (json_reply({"chart": {"result": None, "error": "text"}}), MalformedAnswerError),
            (json_reply({}, 200), MalformedAnswerError),
            (
                json_reply({"finance": {"error": {"code": "Unauthorized", "description": "Invalid Crumb"}}}, 401),
                SourceError,
            ),
            (json_reply({"chart": {"error": {"description": "Forbidden"}}}, 403), SourceAuthError),
            (Reply(200, b"Will be right back"), SourceUnavailableError),
            (Reply(429, b"Edge: Too Many Requests", kind="text/html"), SourceUnavailableError),
            (Reply(302, b"", {"Location": "https://consent.yahoo.com/"}), SourceUnavailableError),
            (Reply(200, b""), SourceUnavailableError),
        ],
    )
    async def test_a_failure_is_an_error(self, server: YahooServer, reply: Reply, kind: type[SourceError]) -> None:
        server.always(Fault("failure", reply))
        start = datetime(2026, 1, 12, tzinfo=UTC)
        with pytest.raises(kind, match="yfinance"):
            await self.page(server, self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1)))

    @pytest.mark.parametrize("part", ["timestamp", "indicators", "meta", "open", "volume", "tradingPeriods"])
    async def test_an_answer_with_a_part_missing_or_short(self, server: YahooServer, part: str) -> None:
        start = datetime(2026, 1, 12, tzinfo=UTC)
        window = self.asking("AAPL", Timeframe.M15, start, start + timedelta(days=1))
        for spoil in (_without, _shortened):
            server.always(Fault(part, _changed(server, spoil, part)))
            if part == "timestamp" and spoil is _without:
                continue  # that is how Yahoo says that there are no bars
            with pytest.raises(MalformedAnswerError, match="yfinance"):
                await self.page(server, window)

    async def test_an_unknown_symbol(self, server: YahooServer) -> None:
        start = datetime(2026, 1, 12, tzinfo=UTC)
        with pytest.raises(UnsupportedError, match="delisted"):
            await self.page(server, self.asking("MSFT", Timeframe.D1, start, start + timedelta(days=1)))
        assert len(server.log) == 1

    async def test_no_server_at_all(self) -> None:
        with YahooServer() as server:
            gone = server
        start = datetime(2026, 1, 12, tzinfo=UTC)
        with pytest.raises(SourceUnavailableError, match="connection"):
            await self.page(gone, self.asking("AAPL", Timeframe.D1, start, start + timedelta(days=1)))

    # ---- the package's own habits

    async def test_two_base_addresses_at_once(self, server: YahooServer) -> None:
        start = datetime(2026, 1, 12, tzinfo=UTC)
        window = self.asking("AAPL", Timeframe.D1, start, start + timedelta(days=1))
        with YahooServer(clock=self.clock) as other:
            async with self.opened(server) as one, self.opened(other) as two:
                await one.fetch(window)
                await two.fetch(window)
            assert len(server.log) == len(other.log) == 1

    def test_nothing_is_written_to_the_home_and_the_import_is_late(self, server: YahooServer, tmp_path: Path) -> None:
        """In a process of its own, whose home is an empty folder."""
        program = (
            "import asyncio, sys, datetime as dt\n"
            "from pipelines.config import YfinanceSettings\n"
            "from pipelines.instruments import load_registry\n"
            "from pipelines.sources.base import Window\n"
            "from pipelines.sources.yfinance import YfinanceSource\n"
            "from pipelines.timeframes import Timeframe\n"
            "assert not {'yfinance', 'curl_cffi', 'pandas'} & set(sys.modules)\n"
            "now = dt.datetime(2026, 1, 14, 12, tzinfo=dt.UTC)\n"
            f"source = YfinanceSource(YfinanceSettings(base_url={server.url!r}), lambda: now)\n"
            "asset = load_registry().resolve('AAPL')\n"
            "window = Window('raw_market_data', 'AAPL', now - dt.timedelta(5), now, asset, Timeframe.D1)\n"
            "print(asyncio.run(source.fetch(window)).table.num_rows)\n"
        )
        home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **home}, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "2", done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_no_4h_but_1h_to_derive_it_from(self, server: YahooServer) -> None:
        source = self.make(server)
        assert source.capabilities.derived == {Timeframe.H4: Timeframe.H1}
        with pytest.raises(UnsupportedError):
            source.span(self.asking("AAPL", Timeframe.H4, self.start, self.start + timedelta(days=1)))


def _changed(server: YahooServer, spoil: Callable[[dict[str, Any], str], None], part: str) -> Reply:
    """Return a real answer with one part spoiled."""
    start = int(datetime(2026, 1, 12, tzinfo=UTC).timestamp())
    query = {"interval": "15m", "period1": str(start), "period2": str(start + 86_400)}
    answer = json.loads(server.answer(Request("/v8/finance/chart/AAPL", query, {}), "").body)
    result = answer["chart"]["result"][0]
    holders = [result, result["indicators"]["quote"][0], result["meta"]]
    spoil(next(holder for holder in holders if part in holder), part)
    return json_reply(answer)


def _without(holder: dict[str, Any], part: str) -> None:
    del holder[part]


def _shortened(holder: dict[str, Any], part: str) -> None:
    holder[part] = holder[part][:-1] if isinstance(holder[part], list) and part != "tradingPeriods" else 5
