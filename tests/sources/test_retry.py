"""How long a retry waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.retry import RetryPolicy, parse_retry_after

NOW = datetime(2026, 1, 14, 12, 0, 0, tzinfo=UTC)


def policy(**changes: float) -> RetryPolicy:
    values = {
        "max_retries": 4,
        "backoff_seconds": 0.5,
        "backoff_cap_seconds": 8.0,
        "max_retry_after_seconds": 120.0,
        **changes,
    }
    return RetryPolicy(**values, uniform=lambda _, high: high)  # type: ignore[arg-type]


def test_backoff_doubles_up_to_its_cap() -> None:
    assert [policy().delay(tries) for tries in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]


@given(st.integers(1, 10_000))
def test_full_jitter_stays_between_nothing_and_the_ceiling(tries: int) -> None:
    jittered = RetryPolicy(4, 0.5, 8.0, 120.0).delay(tries)
    assert 0 <= jittered <= min(8.0, 0.5 * 2 ** min(tries - 1, 10))


def test_what_the_provider_asks_for_wins_up_to_the_cap() -> None:
    assert policy().delay(1, 42.0) == 42.0
    assert policy().delay(1, 0.0) == 0.0
    assert policy().delay(1, 86_400.0) == 120.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Wed, 14 Jan 2026 12:01:30 GMT", 90.0),
        ("Wed, 14 Jan 2026 11:00:00 GMT", 0.0),
        ("Wed, 14 Jan 2026 12:01:30", 90.0),
    ],
)
def test_retry_after_header(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, lambda: NOW) == seconds


@given(st.integers(0, 10**6), st.integers(-12, 12))
def test_retry_after_dates_of_any_zone(ahead: int, offset: int) -> None:
    when = (NOW + timedelta(seconds=ahead)).astimezone(timezone(timedelta(hours=offset)))
    assert parse_retry_after(format_datetime(when), lambda: NOW) == ahead


@given(st.text())
def test_retry_after_takes_any_text(text: str) -> None:
    seconds = parse_retry_after(text, lambda: NOW)
    assert seconds is None or seconds >= 0
