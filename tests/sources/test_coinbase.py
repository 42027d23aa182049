"""Coinbase: conformance, and what is its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from pipelines.config import PROJECT_ROOT, CoinbaseSettings
from pipelines.errors import MalformedAnswerError
from pipelines.sources.coinbase import CoinbaseSource
from pipelines.timeframes import Timeframe
from tests.servers.base import Fault, Reply
from tests.servers.coinbase import CoinbaseServer
from tests.sources.conformance import NetworkConformance, Row, SourceCase, moment


class Coinbase(SourceCase):
    source_class, settings_class = CoinbaseSource, CoinbaseSettings
    subject, timeframe = "BTCUSD", Timeframe.M1

    @pytest.fixture
    def server(self) -> Iterator[CoinbaseServer]:
        with CoinbaseServer(clock=self.clock) as server:
            yield server

    def truth(self, server: CoinbaseServer, start: datetime, end: datetime) -> list[Row]:
        step = self.step // timedelta(seconds=1)
        return [(moment(bar.time), *bar[1:]) for bar in server.truth("BTC-USD", start, end, step)]


class TestCoinbase(Coinbase, NetworkConformance):
    """Conformance with minutes."""


class TestCoinbaseDaily(Coinbase, NetworkConformance):
    """Conformance with days, whose open bar is half a day old."""

    timeframe = Timeframe.D1
    start = datetime(2025, 9, 1, tzinfo=UTC)
    length = timedelta(days=60)


class TestCoinbaseOwn(Coinbase):
    """What only Coinbase does."""

    async def test_a_full_window_asks_for_300_candles(self, server: CoinbaseServer) -> None:
        async with self.opened(server) as source:
            whole = self.window(self.start, self.start + timedelta(days=2))
            windows = list(source.windows(whole))
            pages = [await source.fetch(window) for window in windows]
        assert len(server.log) == len(windows) == 10
        assert server.log[0].query == {
            "granularity": "60",
            "start": "2025-12-09T00:00:00+00:00",
            "end": "2025-12-09T04:59:00+00:00",
        }
        assert sum(page.table.num_rows for page in pages) == 2880
        assert self.rows(pages) == self.truth(server, whole.start, whole.end)

    async def test_minutes_without_trades_are_vouched_for(self, server: CoinbaseServer) -> None:
        gap = int(self.start.timestamp()) + 1800
        server.market("BTC-USD").gaps.append((gap, gap + 3600))
        page = await self.page(server, self.window())
        assert page.table.num_rows == 240
        assert page.covered == self.window().interval

    async def test_candles_from_before_the_start_are_left_out(self, server: CoinbaseServer) -> None:
        server.before_start = 5
        page = await self.page(server, self.window())
        assert self.rows(page) == self.truth(server, self.start, self.start + self.length)

    async def test_an_unaligned_window(self, server: CoinbaseServer) -> None:
        start, end = self.start + timedelta(seconds=30), self.start + timedelta(minutes=10, seconds=30)
        page = await self.page(server, self.window(start, end))
        assert self.rows(page) == self.truth(server, start, end)
        assert len(self.rows(page)) == 10

    @pytest.mark.parametrize("body", [b"[[1,2,3]]", b"[1]", b"null", b'["abcdef"]', b'[{"a":1}]'])
    async def test_a_row_of_the_wrong_shape(self, server: CoinbaseServer, body: bytes) -> None:
        server.always(Fault("wrong row", Reply(200, body)))
        with pytest.raises(MalformedAnswerError, match="coinbase"):
            await self.page(server, self.window())

    @pytest.mark.parametrize("time", ['"x"', "null", "1e400", "99999999999999999999999", "true", "1.5", "[]"])
    async def test_a_row_with_an_unreadable_time_is_left_to_the_edge(self, server: CoinbaseServer, time: str) -> None:
        good = int(self.start.timestamp())
        body = f"[[{time},1,2,1,2,5],[{good},1,2,1,2,5],[{good - 60},1,2,1,2,5]]".encode()
        server.always(Fault("odd time", Reply(200, body)))
        page = await self.page(server, self.window())
        times = page.table["timestamp"].to_pylist()
        assert len(times) == 2
        assert any(value in (self.start, self.start.isoformat()) for value in times)

    def test_the_server_runs_alone(self) -> None:
        command = [sys.executable, "-m", "tests.servers.coinbase", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            query = "granularity=86400&start=2025-01-01T00:00:00Z&end=2025-01-02T00:00:00Z"
            answer = httpx.get(f"http://127.0.0.1:{port}/products/BTC-USD/candles?{query}", trust_env=False)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        assert [row[0] for row in answer.json()] == [1735776000, 1735689600]

    async def test_no_4h_but_1h_to_derive_it_from(self, server: CoinbaseServer) -> None:
        source = self.make(server)
        assert Timeframe.H4 not in source.capabilities.timeframes
        assert source.capabilities.derived == {Timeframe.H4: Timeframe.H1}
        assert source.supports(self.dataset, self.window().instrument, Timeframe.H4)
