"""What every source must do, as numbered cases that a provider's test class inherits.

`SourceConformance` (C) is for all sources, `NetworkConformance` (N) adds those behind HTTP, `KeyedConformance` (K)
those with a key. A provider says once what it is, where it reads from and what is true, and inherits the rest:

    class Coinbase(SourceCase):
        source_class, settings_class, subject, timeframe = CoinbaseSource, CoinbaseSettings, "BTCUSD", Timeframe.M1

        @pytest.fixture
        def server(self):
            with CoinbaseServer(clock=self.clock) as server:
                yield server

        def truth(self, server, start, end):
            return [(moment(bar.time), *bar[1:]) for bar in server.truth("BTC-USD", start, end, 60)]

    class TestCoinbase(Coinbase, NetworkConformance): ...
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import traceback
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from pipelines.contracts import load_contracts
from pipelines.errors import (
    CircuitOpenError,
    MalformedAnswerError,
    QuotaExhaustedError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.instruments import load_registry
from pipelines.sources.base import Window
from pipelines.sources.registry import SOURCES, source_class
from tests.servers import base as faults
from tests.servers.base import Fault, ProviderServer
from tests.sources.case import BAR_COLUMNS, BRISK, Row, SourceCase, in_order, moment, plain_rows

__all__ = [
    "BAR_COLUMNS",
    "BRISK",
    "KeyedConformance",
    "NetworkConformance",
    "Row",
    "SourceCase",
    "SourceConformance",
    "in_order",
    "moment",
    "plain_rows",
]


class SourceConformance(SourceCase):
    """Cases for every source, offline ones included."""

    def test_c01_registered_under_its_name(self) -> None:
        kind = self.source_class
        assert kind.name in SOURCES
        assert issubclass(kind, source_class(kind.name))

    def test_c02_says_what_it_serves(self, server: Any) -> None:
        source = self.make(server)
        instrument = self.window().instrument
        assert source.supports(self.dataset, instrument, self.timeframe)
        assert not source.supports("no_such_dataset", instrument, self.timeframe)
        assert source.unavailable_reason() is None

    async def test_c03_exact_rows(self, server: Any) -> None:
        window = self.window()
        expected = self.truth(server, window.start, window.end)
        assert expected, "the case needs rows to compare"
        page = await self.page(server, window)
        assert self.rows(page) == in_order(expected)
        assert page.covered == window.interval

    async def test_c04_half_open_boundaries(self, server: Any) -> None:
        expected = self.truth(server, self.start, self.start + self.length)
        first, middle = expected[0][0], expected[len(expected) // 2][0]
        async with self.opened(server) as source:
            before = await source.fetch(self.window(first, middle))
            after = await source.fetch(self.window(middle, self.start + self.length))
            one = await source.fetch(self.window(middle, middle + self.step))
        assert first in [row[0] for row in self.rows(before)], "the start is inclusive"
        assert middle not in [row[0] for row in self.rows(before)], "the end is exclusive"
        assert self.rows([before, after]) == in_order(expected)
        assert {row[0] for row in self.rows(one)} == {middle}

    @given(minutes=st.integers(0, 60 * 24 * 400), offset=st.integers(0, 10_000))
    @hypothesis_settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_c05_windows_tile_the_range(self, server: Any, minutes: int, offset: int) -> None:
        source = self.make(server)
        start = self.start - timedelta(days=700) + self.step * offset
        whole = self.window(start, start + timedelta(minutes=minutes))
        at = whole.start
        for window in source.windows(whole):
            assert window.start == at, "neither hole nor overlap"
            assert window.start < window.end <= window.start + source.span(whole)
            at = window.end
        assert at == whole.end

    async def test_c06_any_cut_gives_the_same_rows(self, server: Any) -> None:
        whole = self.window()
        expected = self.truth(server, whole.start, whole.end)
        cuts = [whole.start, *(expected[len(expected) * part // 7][0] for part in (1, 2, 4, 5)), whole.end]
        async with self.opened(server) as source:
            pages = [
                await source.fetch(self.window(start, end)) for start, end in itertools.pairwise(cuts) if start < end
            ]
        assert self.rows(pages) == in_order(expected)

    async def test_c07_the_open_bar_never_comes(self, server: Any) -> None:
        edge = self.timeframe.floor(self.now) if self.timeframe else self.now
        window = self.window(edge - self.length, edge + self.step * 3)
        page = await self.page(server, window)
        assert self.rows(page) == in_order(self.truth(server, window.start, window.end))
        assert all(row[0] < edge for row in self.rows(page))
        assert page.covered.start == window.start
        assert page.covered.end <= edge, "what has not closed is not vouched for"
        if self.timeframe:
            assert page.covered.end == edge

    async def test_c08_the_future_is_empty(self, server: Any) -> None:
        start = self.now + timedelta(days=30)
        page = await self.page(server, self.window(start, start + self.length))
        assert page.table.num_rows == 0
        assert not page.covered

    async def test_c09_contract_columns_and_aware_time(self, server: Any) -> None:
        contract = load_contracts()[self.dataset]
        page = await self.page(server, self.window())
        assert set(page.table.column_names) <= set(contract.arrow_schema.names)
        assert all(row[0].utcoffset() == timedelta(0) for row in self.rows(page))

    async def test_c10_many_windows_in_flight(self, server: Any) -> None:
        starts = [self.start - self.length * n for n in range(12)]
        async with self.opened(server) as source:
            pages = await asyncio.gather(*(source.fetch(self.window(start)) for start in starts))
        for start, page in zip(starts, pages, strict=True):
            assert self.rows(page) == in_order(self.truth(server, start, start + self.length))

    def test_c11_serves_one_event_loop_after_another(self, server: Any) -> None:
        source = self.make(server)

        async def once() -> list[Row]:
            try:
                return self.rows(await source.fetch(self.window()))
            finally:
                await source.aclose()

        assert asyncio.run(once()) == asyncio.run(once()) != []

    async def test_c12_circuit_starts_closed(self, server: Any) -> None:
        stats = self.make(server).get_circuit_breaker_stats()
        assert (stats["state"], stats["failure_count"]) == ("closed", 0)


class NetworkConformance(SourceConformance):
    """Cases for a provider behind HTTP; `server` is a ProviderServer that keeps to the provider's format."""

    # Requests that one fetch makes at the least when all goes well.
    requests_per_fetch: ClassVar[int] = 1
    unknown_subject: ClassVar[str] = "DAISNX"

    async def recovers_from(self, server: ProviderServer, *misbehaviour: Fault, **settings: Any) -> None:
        """Check that the fetch gives the exact rows in spite of faults before them."""
        server.misbehave(*misbehaviour)
        page = await self.page(server, self.window(), **settings)
        assert self.rows(page) == in_order(self.truth(server, self.start, self.start + self.length))
        assert len(server.log) == len(misbehaviour) + self.requests_per_fetch

    async def gives_up_on(self, server: ProviderServer, fault: Fault, **settings: Any) -> SourceError:
        """Check that a fault that stays ends as SourceUnavailableError after a bounded number of tries."""
        server.always(fault)
        with pytest.raises(SourceUnavailableError) as caught:
            await self.page(server, self.window(), **settings)
        assert len(server.log) <= (BRISK["max_retries"] + 1) * self.requests_per_fetch
        return caught.value

    async def test_n01_retry_after_is_honoured(self, server: ProviderServer) -> None:
        await self.recovers_from(server, faults.too_many(retry_after=1))
        assert server.log[1].at - server.log[0].at >= 0.99

    async def test_n02_too_many_without_retry_after(self, server: ProviderServer) -> None:
        await self.recovers_from(server, faults.too_many())

    @pytest.mark.parametrize("code", [500, 502, 503, 504])
    async def test_n03_server_errors_are_retried(self, server: ProviderServer, code: int) -> None:
        await self.recovers_from(server, faults.status(code), faults.status(code))

    async def test_n04_server_errors_for_ever(self, server: ProviderServer) -> None:
        error = await self.gives_up_on(server, faults.status(503))
        assert error.retryable
        assert "503" in str(error)

    async def test_n05_hang_is_a_time_out(self, server: ProviderServer) -> None:
        began = time.monotonic()
        await self.gives_up_on(server, faults.hang(), timeout_seconds=0.2)
        assert time.monotonic() - began < 5

    async def test_n06_truncated_body(self, server: ProviderServer) -> None:
        await self.recovers_from(server, faults.TRUNCATED)
        server.log.clear()
        await self.gives_up_on(server, faults.TRUNCATED)

    async def test_n07_connection_reset(self, server: ProviderServer) -> None:
        await self.recovers_from(server, faults.RESET)

    async def test_n08_html_with_status_200(self, server: ProviderServer) -> None:
        await self.recovers_from(server, faults.HTML)
        server.log.clear()
        await self.gives_up_on(server, faults.HTML)

    @pytest.mark.parametrize("fault", [faults.GARBAGE, faults.DEEP], ids=lambda fault: fault.name)
    async def test_n09_not_the_documented_syntax(self, server: ProviderServer, fault: Fault) -> None:
        server.always(fault)
        with pytest.raises((SourceUnavailableError, MalformedAnswerError)):
            await self.page(server, self.window())

    async def test_n10_wrong_shape(self, server: ProviderServer) -> None:
        server.always(faults.WRONG_SHAPE)
        with pytest.raises(MalformedAnswerError):
            await self.page(server, self.window())

    async def test_n11_empty_page_is_covered(self, server: ProviderServer) -> None:
        window = self.window(self.start - timedelta(days=600))
        server.always(faults.EMPTY)
        page = await self.page(server, window)
        assert page.table.num_rows == 0
        assert page.covered == window.interval

    async def test_n12_repeated_rows_are_never_wrong_rows(self, server: ProviderServer) -> None:
        server.always(faults.REPEATED)
        rows = self.rows(await self.page(server, self.window()))
        assert set(rows) == set(self.truth(server, self.start, self.start + self.length))

    async def test_n13_a_wrong_type_spoils_its_row_only(self, server: ProviderServer) -> None:
        server.always(faults.WRONG_TYPE)
        page = await self.page(server, self.window())
        expected = self.truth(server, self.start, self.start + self.length)
        right = set(self.rows(page)) & set(expected)
        assert page.table.num_rows == len(expected), "the row is there for the edge to refuse"
        assert len(right) == len(expected) - 1

    async def test_n14_unknown_subject_is_refused_at_once(self, server: ProviderServer) -> None:
        instrument = None
        if self.timeframe:
            instrument = load_registry().resolve(self.unknown_subject)
        window = self.window()
        unknown = Window(self.dataset, self.unknown_subject, window.start, window.end, instrument, self.timeframe)
        with pytest.raises((UnsupportedError, MalformedAnswerError)):
            await self.page(server, unknown)
        assert len(server.log) <= self.requests_per_fetch

    async def test_n15_circuit_opens_probes_and_closes(self, server: ProviderServer) -> None:
        server.always(faults.status(500))
        settings = {"max_retries": 0, "breaker_failures": 3, "breaker_reset_seconds": 0.3}
        async with self.opened(server, **settings) as source:
            for failures in (1, 2, 3):
                with pytest.raises(SourceUnavailableError):
                    await source.fetch(self.window())
                assert source.get_circuit_breaker_stats()["failure_count"] == failures
            assert source.get_circuit_breaker_stats()["state"] == "open"
            asked = len(server.log)
            with pytest.raises(CircuitOpenError, match=source.name):
                await source.fetch(self.window())
            assert len(server.log) == asked, "an open circuit asks nothing"
            await asyncio.sleep(0.35)
            assert source.get_circuit_breaker_stats()["state"] == "half_open"
            server.always(None)
            assert self.rows(await source.fetch(self.window()))
            stats = source.get_circuit_breaker_stats()
        assert (stats["state"], stats["failure_count"]) == ("closed", 0)

    async def test_n16_daily_quota(self, server: ProviderServer) -> None:
        async with self.opened(server, requests_per_day=self.requests_per_fetch) as source:
            await source.fetch(self.window())
            with pytest.raises(QuotaExhaustedError, match="resets at"):
                await source.fetch(self.window(self.start - timedelta(days=90)))
        assert len(server.log) == self.requests_per_fetch

    async def test_n17_each_try_is_counted(self, server: ProviderServer) -> None:
        before = {status: self._counted(status) for status in ("200", "503")}
        timed = self._timed()
        server.misbehave(faults.status(503))
        await self.page(server, self.window())
        assert self._counted("503") - before["503"] == 1
        assert self._counted("200") - before["200"] == self.requests_per_fetch
        assert self._timed() - timed == self.requests_per_fetch + 1

    def _counted(self, status: str) -> float:
        labels = {"api": self.source_class.name, "status": status}
        return REGISTRY.get_sample_value("external_api_requests_total", labels) or 0.0

    def _timed(self) -> float:
        labels = {"api": self.source_class.name}
        return REGISTRY.get_sample_value("api_request_duration_seconds_count", labels) or 0.0

    async def test_n18_the_pace_is_kept(self, server: ProviderServer) -> None:
        began = time.monotonic()
        async with self.opened(server, requests_per_minute=1200, burst=2) as source:
            windows = [self.window(self.start - self.length * n) for n in range(8)]
            await asyncio.gather(*(source.fetch(window) for window in windows))
        assert len(server.log) == 8 * self.requests_per_fetch
        assert time.monotonic() - began >= (8 * self.requests_per_fetch - 2) * 60 / 1200 - 0.02


class KeyedConformance(NetworkConformance):
    """Cases for a provider with a key, named in `secrets` as a setting."""

    wrong_secret: ClassVar[str] = "wr0ngwr0ngwr0ngwr0ngwr0ngwr0ngwr"

    def _said(self, error: BaseException, log: pytest.LogCaptureFixture) -> str:
        return "".join(traceback.format_exception(error)) + log.text

    async def test_k01_without_a_key_it_is_unavailable(self, server: ProviderServer) -> None:
        source = self.make(server, **dict.fromkeys(self.secrets))
        reason = source.unavailable_reason()
        assert reason
        assert all(name in reason for name in self.secrets)

    async def test_k02_a_wrong_key_is_an_auth_error(
        self, server: ProviderServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises(SourceAuthError) as caught:
            await self.page(server, self.window(), **dict.fromkeys(self.secrets, self.wrong_secret))
        assert len(server.log) == 1, "a refused key is not tried again"
        assert self.wrong_secret not in self._said(caught.value, caplog)

    @pytest.mark.parametrize(
        "fault",
        [faults.status(500), faults.status(400), faults.too_many(), faults.HTML, faults.RESET, faults.hang(1)],
        ids=lambda fault: fault.name,
    )
    async def test_k03_the_key_is_never_shown(
        self, server: ProviderServer, caplog: pytest.LogCaptureFixture, fault: Fault
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.always(fault)
        with pytest.raises(SourceError) as caught:
            await self.page(server, self.window(), timeout_seconds=0.2)
        said = self._said(caught.value, caplog)
        assert all(secret not in said for secret in self.secrets.values())

    async def test_k04_the_provider_echoes_the_key(
        self, server: ProviderServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = next(iter(self.secrets.values()))
        server.always(faults.status(400, f'{{"message": "bad key {secret} in /q?apikey={secret}"}}'.encode()))
        with pytest.raises(SourceError) as caught:
            await self.page(server, self.window())
        assert secret not in self._said(caught.value, caplog)
