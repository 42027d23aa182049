"""A source under test, and how its rows are compared with the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from pipelines.config import ProviderSettings
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA, Page, Source, Window
from pipelines.timeframes import Timeframe
from tests.servers.base import ProviderServer

Row = tuple[Any, ...]
BAR_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")

# Fast, so that a retry costs nothing; each case tightens what it is about.
BRISK: dict[str, Any] = {
    "requests_per_minute": 600_000,
    "burst": 1_000,
    "timeout_seconds": 5.0,
    "max_retries": 2,
    "backoff_seconds": 0.001,
    "backoff_cap_seconds": 0.005,
    "max_retry_after_seconds": 5.0,
    "breaker_failures": 50,
}


def moment(seconds: float) -> datetime:
    """Return Unix seconds as aware UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def plain_rows(table: pa.Table, columns: Sequence[str]) -> list[Row]:
    """Return a page's rows with instants as aware datetimes and numbers as floats, whatever spelling they came in."""
    values = [[_plain(value) for value in table[name].to_pylist()] for name in columns]
    return list(zip(*values, strict=True))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows oldest first."""
    return sorted(rows, key=lambda row: [str(value) for value in row])


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if value is None:
        return value
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return value


class SourceCase:
    """A source under test: what it is, what it reads from, and the truth; a subclass says so once for all its tests."""

    source_class: ClassVar[type[Source]]
    settings_class: ClassVar[type[ProviderSettings]]
    settings: ClassVar[dict[str, Any]] = {}
    dataset: ClassVar[str] = MARKET_DATA
    subject: ClassVar[str]
    timeframe: ClassVar[Timeframe | None] = None
    columns: ClassVar[Sequence[str]] = BAR_COLUMNS
    # Settings that hold a key, with values the local server takes; they must not be seen in errors and logs.
    secrets: ClassVar[dict[str, str]] = {}
    # An unsettled now, a minute into a bar; the range the cases ask for lies a month before it.
    now: ClassVar[datetime] = datetime(2026, 1, 14, 12, 7, 30, tzinfo=UTC)
    start: ClassVar[datetime] = datetime(2025, 12, 9, tzinfo=UTC)
    length: ClassVar[timedelta] = timedelta(hours=5)

    # ---- what a subclass may or must give

    @pytest.fixture
    def server(self) -> Any:
        """What the source reads from: nothing here, a local server for providers, a folder for files."""
        return None

    def clock(self) -> datetime:
        """The source's and the server's now."""
        return self.now

    def make(self, server: Any, clock: Callable[[], datetime] | None = None, **settings: Any) -> Source:
        """Return a source that reads from `server`."""
        network = {**BRISK, "base_url": server.url} if isinstance(server, ProviderServer) else {}
        values = {**network, **self.secrets, **self.settings, **settings}
        make: Any = self.source_class
        return make(self.settings_class(**values), clock=clock or self.clock)  # type: ignore[no-any-return]

    def truth(self, server: Any, start: datetime, end: datetime) -> list[Row]:
        """Return the rows that must come for [start, end), oldest first, from another place than the source."""
        raise NotImplementedError

    # ---- helpers

    def window(self, start: datetime | None = None, end: datetime | None = None) -> Window:
        """Return a window of the case's subject."""
        start = start or self.start
        instrument = None if self.timeframe is None else load_registry().resolve(self.subject)
        return Window(self.dataset, self.subject, start, end or start + self.length, instrument, self.timeframe)

    @property
    def step(self) -> timedelta:
        """The time from one row to the next."""
        return self.timeframe.step if self.timeframe else timedelta(days=1)

    @asynccontextmanager
    async def opened(self, server: Any, **settings: Any) -> AsyncIterator[Source]:
        """Open a source for one event loop."""
        source = self.make(server, **settings)
        try:
            yield source
        finally:
            await source.aclose()

    async def page(self, server: Any, window: Window, **settings: Any) -> Page:
        """Fetch one window with a new source."""
        async with self.opened(server, **settings) as source:
            return await source.fetch(window)

    def rows(self, pages: Page | Iterable[Page]) -> list[Row]:
        """Return the rows of pages, oldest first."""
        listed = [pages] if isinstance(pages, Page) else pages
        return in_order(row for page in listed for row in plain_rows(page.table, self.columns))
