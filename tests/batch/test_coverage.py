"""Coverage: by provider or by any; rejected until it is covered; an unsettled empty tail is not covered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipelines.batch.coverage import COVERED, REJECTED, CoverageMap, vouched
from pipelines.intervals import Interval, IntervalSet

ZERO = datetime(2025, 1, 1, tzinfo=UTC)
SERIES = ("raw_market_data", "BTCUSD", "1h")


def span(start: int, end: int) -> Interval:
    return Interval(ZERO + timedelta(hours=start), ZERO + timedelta(hours=end))


def test_any_providers_coverage_counts_unless_one_is_named() -> None:
    known = CoverageMap()
    known.add(SERIES, "coinbase", COVERED, span(0, 4))
    known.add(SERIES, "alpha_vantage", COVERED, span(3, 8))
    known.add(("raw_market_data", "ETHUSD", "1h"), "coinbase", COVERED, span(8, 20))
    assert known.done(SERIES) == IntervalSet([span(0, 8)])
    assert known.done(SERIES, "coinbase") == IntervalSet([span(0, 4)])
    assert known.providers(SERIES) == {"coinbase", "alpha_vantage"}


def test_rejected_time_is_done_and_ends_when_it_is_covered() -> None:
    known = CoverageMap()
    known.add(SERIES, "coinbase", COVERED, span(0, 4))
    known.add(SERIES, "coinbase", REJECTED, span(4, 6))
    assert known.done(SERIES) == IntervalSet([span(0, 6)])
    assert known.covered(SERIES) == IntervalSet([span(0, 4)])
    assert known.rejected(SERIES) == IntervalSet([span(4, 6)])
    known.add(SERIES, "coinbase", COVERED, span(4, 5))
    assert known.rejected(SERIES) == IntervalSet([span(5, 6)])


def test_an_empty_tail_younger_than_the_settling_delay_is_not_covered() -> None:
    covered = IntervalSet([span(0, 10)])
    assert vouched(covered, None, span(7, 7).start) == IntervalSet([span(0, 7)])
    assert vouched(covered, span(9, 9).start, span(7, 7).start) == IntervalSet([span(0, 9)])
    assert vouched(covered, span(3, 3).start, span(20, 20).start) == covered
    assert not vouched(IntervalSet([span(8, 10)]), None, span(7, 7).start)
