"""OANDA: conformance, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

import pytest

from pipelines.config import OandaSettings
from pipelines.errors import MalformedAnswerError, UnsupportedError
from pipelines.instruments import load_registry
from pipelines.sources.base import Window
from pipelines.sources.oanda import OandaSource
from pipelines.timeframes import Timeframe
from tests.servers.base import Fault, Reply
from tests.servers.oanda import TOKEN, OandaServer
from tests.sources.conformance import KeyedConformance, Row, SourceCase, moment


class Oanda(SourceCase):
    source_class, settings_class = OandaSource, OandaSettings
    subject, timeframe = "EURUSD", Timeframe.M15
    secrets: ClassVar = {"api_token": TOKEN}

    @pytest.fixture
    def server(self) -> Iterator[OandaServer]:
        with OandaServer(clock=self.clock) as server:
            yield server

    def truth(self, server: OandaServer, start: datetime, end: datetime) -> list[Row]:
        return [(moment(bar.time), *bar[1:]) for bar in server.truth("EUR_USD", start, end, self.timeframe.seconds)]


class TestOanda(Oanda, KeyedConformance):
    """Conformance with quarters of an hour."""

    unknown_subject = "SEKNOK"


class TestOandaOwn(Oanda):
    """What only OANDA does."""

    async def test_4h_bars_begin_at_0_utc(self, server: OandaServer) -> None:
        for timeframe in (Timeframe.H4, Timeframe.D1):
            window = Window(
                self.dataset,
                self.subject,
                self.start,
                self.start + timedelta(days=3),
                load_registry().resolve(self.subject),
                timeframe,
            )
            page = await self.page(server, window)
            expected = server.truth("EUR_USD", window.start, window.end, timeframe.seconds)
            assert self.rows(page) == [(moment(bar.time), *bar[1:]) for bar in expected]
            assert all(row[0] == timeframe.floor(row[0]) for row in self.rows(page))

    @pytest.mark.parametrize("side", ["mid", "bid", "ask"])
    async def test_the_price_side_is_a_setting(self, server: OandaServer, side: Literal["mid", "bid", "ask"]) -> None:
        async with self.opened(server, price_side=side) as source:
            page = await source.fetch(self.window())
            assert source.capabilities.price_side == side
        expected = server.truth("EUR_USD", self.start, self.start + self.length, 900, side)
        assert self.rows(page) == [(moment(bar.time), *bar[1:]) for bar in expected]
        assert OandaSource.capabilities.price_side == "mid"

    async def test_a_full_window_is_one_request(self, server: OandaServer) -> None:
        async with self.opened(server) as source:
            window = next(source.windows(self.window(self.start - timedelta(days=200), self.start)))
            page = await source.fetch(window)
        assert window.end - window.start == timedelta(minutes=15) * 4999
        assert self.rows(page) == self.truth(server, window.start, window.end)

    async def test_a_closed_weekend_is_vouched_for(self, server: OandaServer) -> None:
        saturday = datetime(2025, 12, 13, tzinfo=UTC)
        page = await self.page(server, self.window(saturday, saturday + timedelta(days=1)))
        assert page.table.num_rows == 0
        assert page.covered == self.window(saturday, saturday + timedelta(days=1)).interval

    async def test_an_unknown_instrument_is_unsupported(self, server: OandaServer) -> None:
        window = self.window()
        unknown = Window(
            self.dataset, "SEKNOK", window.start, window.end, load_registry().resolve("SEKNOK"), self.timeframe
        )
        with pytest.raises(UnsupportedError, match="instrument"):
            await self.page(server, unknown)

    @pytest.mark.parametrize("candle", ['{"complete": true}', "5", '"text"', "null", '{"mid": 3, "complete": true}'])
    async def test_a_candle_of_the_wrong_shape(self, server: OandaServer, candle: str) -> None:
        server.always(Fault("wrong candle", Reply(200, f'{{"candles": [{candle}]}}'.encode())))
        with pytest.raises(MalformedAnswerError, match="oanda"):
            await self.page(server, self.window())

    async def test_an_incomplete_candle_is_left_out(self, server: OandaServer) -> None:
        prices = '{"o":"1","h":"2","l":"1","c":"2"}'
        body = f'{{"candles":[{{"complete":false,"volume":3,"time":"2025-12-09T00:00:00Z","mid":{prices}}}]}}'
        server.always(Fault("incomplete", Reply(200, body.encode())))
        assert (await self.page(server, self.window())).table.num_rows == 0
