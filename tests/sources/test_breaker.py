"""The circuit breaker's states, against a clock that is turned by hand."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from pipelines.errors import CircuitOpenError, QuotaExhaustedError, SourceAuthError, SourceUnavailableError
from pipelines.sources.breaker import CircuitBreaker


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("somewhere", failures=3, reset_seconds=30, clock=clock)


def fail(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    error = error or SourceUnavailableError("down")
    with pytest.raises(type(error)), breaker.guard():
        raise error


def state(breaker: CircuitBreaker) -> object:
    return breaker.get_circuit_breaker_stats()["state"]


def gauge() -> float | None:
    return REGISTRY.get_sample_value("pipeline_circuit_open", {"api": "somewhere"})


def test_closed_until_enough_failures_in_a_row(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        fail(breaker)
    with breaker.guard():
        pass
    for _ in range(2):
        fail(breaker)
    assert state(breaker) == "closed"
    fail(breaker)
    stats = breaker.get_circuit_breaker_stats()
    assert stats["state"] == "open"
    assert stats["failure_count"] == 3
    assert stats["last_error"] == "down"
    assert stats["opened_at"] is not None
    assert stats["retry_in_seconds"] == 30
    assert gauge() == 1


def test_open_refuses_and_says_for_how_long(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 10
    with pytest.raises(CircuitOpenError, match=r"somewhere.*20 s.*down"), breaker.guard():
        pytest.fail("an open circuit lets nothing through")
    with pytest.raises(CircuitOpenError):
        breaker.refuse_if_open()


def test_half_open_lets_one_probe_through(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 30
    assert state(breaker) == "half_open"
    with breaker.guard():
        assert gauge() == 0.5
        with pytest.raises(CircuitOpenError), breaker.guard():
            pytest.fail("only one probe")
    assert state(breaker) == "closed"
    assert breaker.get_circuit_breaker_stats()["failure_count"] == 0
    assert gauge() == 0


def test_a_failed_probe_opens_for_another_while(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 31
    fail(breaker)
    assert state(breaker) == "open"
    assert breaker.get_circuit_breaker_stats()["retry_in_seconds"] == 30
    assert breaker.get_circuit_breaker_stats()["failure_count"] == 4


@pytest.mark.parametrize("end", [KeyboardInterrupt(), QuotaExhaustedError("used up"), ValueError("bug")])
def test_a_probe_that_proves_nothing_leaves_room_for_another(
    breaker: CircuitBreaker, clock: Clock, end: BaseException
) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 31
    with pytest.raises(type(end)), breaker.guard():
        raise end
    with breaker.guard():
        pass
    assert state(breaker) == "closed"


def test_a_refused_key_shows_the_provider_alive(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now += 31
    fail(breaker, SourceAuthError("wrong key"))
    assert state(breaker) == "closed"


def test_a_slow_success_from_before_does_not_close_an_open_circuit(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        for _ in range(3):
            fail(breaker)
    assert state(breaker) == "open"


def test_slow_failures_from_before_do_not_prolong_it(breaker: CircuitBreaker, clock: Clock) -> None:

    def begun_before() -> None:
        with breaker.guard():
            for _ in range(3):
                fail(breaker)
            clock.now += 20
            raise SourceUnavailableError("late")

    with pytest.raises(SourceUnavailableError, match="late"):
        begun_before()
    assert breaker.get_circuit_breaker_stats()["retry_in_seconds"] == 10
