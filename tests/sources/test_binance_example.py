"""The worked example of CONTRIBUTING.md: it runs as it is printed there, and its lines are counted."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT
from pipelines.errors import MalformedAnswerError
from pipelines.sources.registry import SOURCES
from pipelines.timeframes import Timeframe
from tests.servers.base import Fault, ProviderServer, Reply, Request, json_reply
from tests.servers.market import Market
from tests.sources import binance_example
from tests.sources.binance_example import BinanceSettings, BinanceSource
from tests.sources.conformance import NetworkConformance, Row, SourceCase, moment

REGISTRY_LINE = '"binance": "pipelines.sources.binance:BinanceSource"'


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the registry line does for a source of the package."""
    monkeypatch.setitem(SOURCES, "binance", f"{BinanceSource.__module__}:BinanceSource")


class BinanceServer(ProviderServer):
    """Klines as documented: at most 1000, times in milliseconds and inclusive, the open candle too."""

    MARKET = Market("BTC", "USD")

    def spoiled(self, row: Any) -> Any:
        return [*row[:4], {"not": "a number"}, *row[5:]]

    def answer(self, request: Request, distort: str) -> Reply:
        query = request.query
        if request.path != "/api/v3/klines" or query["symbol"] != "BTCUSD":
            return json_reply({"code": -1121, "msg": "Invalid symbol."}, 400)
        step = Timeframe(query["interval"]).seconds
        first, last = (-(-int(query[name]) // 1000) for name in ("startTime", "endTime"))
        bars = self.MARKET.bars(first, min(last, int(self.clock().timestamp()) + 1), step)
        rows = [[bar.time * 1000, *map(str, bar[1:]), (bar.time + step) * 1000 - 1] for bar in bars]
        return json_reply(self.distorted(rows[: int(query["limit"])], distort))


class Binance(SourceCase):
    source_class, settings_class, subject, timeframe = BinanceSource, BinanceSettings, "BTCUSD", Timeframe.H1

    @pytest.fixture
    def server(self) -> Iterator[BinanceServer]:
        with BinanceServer(clock=self.clock) as server:
            yield server

    def truth(self, server: BinanceServer, start: datetime, end: datetime) -> list[Row]:
        step, last = 3600, min(end, self.now - self.step + timedelta(seconds=1))
        bars = server.MARKET.bars(int(start.timestamp()), int(last.timestamp()), step)
        return [(moment(bar.time), *bar[1:]) for bar in bars]


class TestBinance(Binance, NetworkConformance): ...


class TestBinanceOwn(Binance):
    @pytest.mark.parametrize("body", [b"[[1,2]]", b"[1]", b"{}"])
    async def test_no_list_of_candles(self, server: BinanceServer, body: bytes) -> None:
        server.always(Fault("wrong shape", Reply(200, body)))
        with pytest.raises(MalformedAnswerError, match="binance"):
            await self.page(server, self.window())

    async def test_a_full_answer_is_one_window(self, server: BinanceServer) -> None:
        start = datetime(2025, 1, 1, tzinfo=UTC)
        async with self.opened(server) as source:
            windows = list(source.windows(self.window(start, start + 2500 * self.step)))
            pages = [await source.fetch(window) for window in windows]
        assert [page.table.num_rows for page in pages] == [1000, 1000, 500]
        assert len(server.log) == 3


# ---- the page says what the files say


def contributing() -> str:
    return (PROJECT_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", contributing(), re.DOTALL)


def test_the_provider_is_printed_whole_and_its_lines_are_counted() -> None:
    text = Path(binance_example.__file__).read_text(encoding="utf-8")
    assert text in blocks()
    assert f"a complete one in {len(text.splitlines())} lines" in contributing()


def test_the_test_class_is_printed_whole_and_its_lines_are_counted() -> None:
    shown = inspect.getsource(Binance) + "\n\n" + inspect.getsource(TestBinance)
    assert shown in blocks()
    assert f"The test class, of {code_lines(shown)} lines" in contributing()


def test_the_servers_lines_are_counted() -> None:
    assert f"has this one in {code_lines(inspect.getsource(BinanceServer))} lines" in contributing()


def code_lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip())


def test_the_registry_line_is_printed() -> None:
    assert REGISTRY_LINE in contributing()
