"""The token bucket and the daily quota, against a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import QuotaExhaustedError
from pipelines.sources.limits import DailyQuota, TokenBucket


class Clock:
    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_burst_is_free_and_then_the_pace_holds() -> None:
    bucket = TokenBucket(60, burst=3, clock=Clock())
    assert [bucket.reserve() for _ in range(6)] == pytest.approx([0, 0, 0, 1, 2, 3])


def test_tokens_come_back_but_never_more_than_the_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(60, burst=3, clock=clock)
    for _ in range(3):
        bucket.reserve()
    clock.now += 3600
    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0, 0, 0, 1])


def test_hold_makes_everyone_wait() -> None:
    clock = Clock()
    bucket = TokenBucket(60, burst=5, clock=clock)
    bucket.hold(10)
    assert [bucket.reserve() for _ in range(2)] == pytest.approx([10, 11])


@given(
    per_minute=st.floats(1, 1e5),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_span_of_time_has_more_than_its_share(per_minute: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute, burst, clock=clock)
    sent = []
    for pause in pauses:
        clock.now += pause
        sent.append(clock.now + bucket.reserve())
    assert sent == sorted(sent), "first come, first served"
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            allowed = burst + (sent[last] - sent[first]) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-3


async def test_acquire_waits_without_blocking_the_loop() -> None:
    bucket = TokenBucket(600, burst=1)
    loop = asyncio.get_running_loop()
    began, ticks = loop.time(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(bucket.acquire() for _ in range(4)))
    ticking.cancel()
    assert 0.29 <= loop.time() - began < 2
    assert ticks >= 10


def test_one_bucket_for_several_event_loops() -> None:
    bucket = TokenBucket(60_000, burst=1)
    for _ in range(3):
        asyncio.run(bucket.acquire())


def test_quota_refuses_and_says_when_it_resets() -> None:
    now = datetime(2026, 1, 14, 23, 59, 58, tzinfo=UTC)
    quota = DailyQuota("somewhere", 2, clock=lambda: now)
    quota.take()
    quota.take()
    with pytest.raises(QuotaExhaustedError, match=r"somewhere.* 2 .*2026-01-15T00:00:00\+00:00"):
        quota.take()
    now += timedelta(seconds=2)
    quota.take()
    assert quota.used == 1


def test_no_quota_is_unlimited() -> None:
    quota = DailyQuota("somewhere", None)
    for _ in range(1000):
        quota.take()
