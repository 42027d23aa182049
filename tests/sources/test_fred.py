"""FRED: conformance without bars, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar

import pyarrow as pa
import pytest

from pipelines.config import FredSettings
from pipelines.errors import MalformedAnswerError, UnsupportedError
from pipelines.sources.fred import MACRO, FredSource
from tests.servers.base import Fault, Reply
from tests.servers.fred import DAILY, KEY, MONTHLY, FredServer
from tests.sources.conformance import KeyedConformance, Row, SourceCase


class Fred(SourceCase):
    source_class, settings_class = FredSource, FredSettings
    dataset, subject, columns = MACRO, DAILY, ("timestamp", "value")
    secrets: ClassVar = {"api_key": KEY}
    length = timedelta(days=20)
    start = datetime(2024, 3, 1, tzinfo=UTC)

    @pytest.fixture
    def server(self) -> Iterator[FredServer]:
        with FredServer(clock=self.clock) as server:
            yield server

    def truth(self, server: FredServer, start: datetime, end: datetime) -> list[Row]:
        last = (end - timedelta(microseconds=1)).date()
        found = server.truth(self.subject, start.date(), last)
        rows = [(datetime.combine(day, time(), UTC), value) for day, value in found]
        return [row for row in rows if start <= row[0] < end]


class TestFred(Fred, KeyedConformance):
    """Conformance with a daily series."""

    unknown_subject = "NOSUCHSERIES"


class TestFredMonthly(TestFred):
    """Conformance with a monthly series."""

    subject = MONTHLY
    length = timedelta(days=300)
    start = datetime(2023, 1, 1, tzinfo=UTC)


class TestFredOwn(Fred):
    """What only FRED does."""

    async def test_columns(self, server: FredServer) -> None:
        table = (await self.page(server, self.window())).table
        assert table["series_id"].unique().to_pylist() == [DAILY]
        assert table["units"].unique().to_pylist() == ["lin"]
        assert table.schema.field("realtime_start").type == pa.date32()
        assert table["realtime_start"].unique().to_pylist() == [self.now.date()]
        assert table["value"].null_count == 3, "a dot is a missing value; three Saturdays"

    async def test_pages_by_offset(self, server: FredServer) -> None:
        server.page = 7
        page = await self.page(server, self.window())
        assert [request.query["offset"] for request in server.log] == ["0", "7", "14"]
        assert self.rows(page) == self.truth(server, self.start, self.start + self.length)

    async def test_an_empty_page_with_more_to_come_is_malformed(self, server: FredServer) -> None:
        server.always(Fault("short", Reply(200, b'{"observations": [], "count": 3}')))
        with pytest.raises(MalformedAnswerError, match="observations are left"):
            await self.page(server, self.window())

    async def test_the_unpublished_tail_is_not_vouched_for(self, server: FredServer) -> None:
        window = self.window(self.now - timedelta(days=30), self.now)
        page = await self.page(server, window)
        newest = self.rows(page)[-1][0]
        assert newest.date() == date(2026, 1, 12)
        assert page.covered.end == newest + timedelta(days=1)

    async def test_a_recent_window_without_observations_is_not_vouched_for(self, server: FredServer) -> None:
        server.always(Fault("none", Reply(200, b'{"observations": [], "count": 0}')))
        page = await self.page(server, self.window(self.now - timedelta(days=30), self.now))
        assert not page.covered

    async def test_a_wrong_date_is_left_to_the_edge(self, server: FredServer) -> None:
        row = '{"realtime_start":"x","realtime_end":null,"date":"%s","value":"1"}'
        body = f'{{"count":2,"observations":[{row % "2024-02-30"},{row % "2024-03-02"}]}}'
        server.always(Fault("wrong date", Reply(200, body.encode())))
        table = (await self.page(server, self.window())).table
        assert table["timestamp"].to_pylist() == ["2024-02-30T00:00:00Z", "2024-03-02T00:00:00+00:00"]

    async def test_an_unknown_series_is_unsupported(self, server: FredServer) -> None:
        source = self.make(server)
        window = self.window()
        with pytest.raises(UnsupportedError, match="does not exist"):
            await source.fetch(type(window)(MACRO, "NOPE", window.start, window.end))
        await source.aclose()
