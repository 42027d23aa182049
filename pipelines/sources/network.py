"""What sources behind an `HttpClient` share."""

from __future__ import annotations

from pipelines.sources.base import Source
from pipelines.sources.http import HttpClient


class HttpSource(Source):
    """A source whose requests all go through `self._http`."""

    _http: HttpClient

    def get_circuit_breaker_stats(self) -> dict[str, object]:
        """Return the breaker's `state`, `failure_count`, `opened_at`, `last_error` and `retry_in_seconds`."""
        return self._http.get_circuit_breaker_stats()

    async def aclose(self) -> None:
        """Release connections and threads."""
        await self._http.aclose()
