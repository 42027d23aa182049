"""The circuit breaker: a provider that keeps failing is left alone for a while, then asked once and trusted again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from pipelines.errors import CircuitOpenError, QuotaExhaustedError, SourceError, SourceUnavailableError
from pipelines.monitoring.metrics import circuit_open
from pipelines.timeframes import utc_now

State = Literal["closed", "open", "half_open"]
_GAUGE: dict[State, float] = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


class CircuitBreaker:
    """Opens after `failures` consecutive calls that failed for good, half-opens after `reset_seconds`.

    While half open a single call probes the provider: it closes the circuit or opens it again. Only
    SourceUnavailableError counts as a failure; a refused key or a malformed request proves the provider alive.
    Safe across event loops and threads.
    """

    def __init__(
        self, name: str, failures: int, reset_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._failures = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._state: State = "closed"
        self._failure_count = 0
        self._opened_monotonic = 0.0
        self._opened_at: datetime | None = None
        self._last_error: str | None = None
        self._probing = False
        self._show()

    def get_circuit_breaker_stats(self) -> dict[str, object]:
        """Return `state`, `failure_count` (in a row), `opened_at` (UTC), `last_error` and `retry_in_seconds`."""
        with self._lock:
            return {
                "state": self._current(),
                "failure_count": self._failure_count,
                "opened_at": self._opened_at,
                "last_error": self._last_error,
                "retry_in_seconds": self._remaining() if self._state == "open" else 0.0,
            }

    def refuse_if_open(self) -> None:
        """Let a call that is between two tries give up once others have opened the circuit.

        Raises:
            CircuitOpenError: the circuit is open.
        """
        with self._lock:
            if self._state == "open":
                raise self._refusal()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run one call under the breaker and learn from how it ends.

        Raises:
            CircuitOpenError: the circuit is open, or half open with a probe under way.
        """
        probe = self._admit()
        try:
            yield
        except (CircuitOpenError, QuotaExhaustedError):
            raise
        except SourceUnavailableError as error:
            self._failed(str(error), probe=probe)
            raise
        except SourceError:
            self._succeeded(probe=probe)
            raise
        else:
            self._succeeded(probe=probe)
        finally:
            # A probe that was cancelled or never sent proves nothing: the next call may probe.
            if probe:
                self._release()

    def _admit(self) -> bool:
        with self._lock:
            state = self._current()
            if state == "closed":
                return False
            if state == "open" or self._probing:
                raise self._refusal()
            self._state = "half_open"
            self._probing = True
            self._show()
            return True

    def _succeeded(self, *, probe: bool) -> None:
        with self._lock:
            # A call that began before the circuit opened must not close it behind the probe's back.
            if self._state != "closed" and not probe:
                return
            changed = self._state != "closed"
            self._state, self._failure_count, self._opened_at = "closed", 0, None
            if changed:
                self._show()

    def _failed(self, reason: str, *, probe: bool) -> None:
        with self._lock:
            self._failure_count += 1
            self._last_error = reason
            if probe or (self._state == "closed" and self._failure_count >= self._failures):
                self._state = "open"
                self._opened_monotonic = self._clock()
                self._opened_at = utc_now()
                self._show()

    def _release(self) -> None:
        with self._lock:
            self._probing = False

    def _current(self) -> State:
        return "half_open" if self._state == "open" and self._remaining() <= 0 else self._state

    def _remaining(self) -> float:
        return max(0.0, self._opened_monotonic + self._reset_seconds - self._clock())

    def _refusal(self) -> CircuitOpenError:
        return CircuitOpenError(
            f"{self._name}: circuit open after {self._failure_count} failures in a row; "
            f"asked again in {self._remaining():.0f} s (last error: {self._last_error})"
        )

    def _show(self) -> None:
        circuit_open.labels(api=self._name).set(_GAUGE[self._state])
