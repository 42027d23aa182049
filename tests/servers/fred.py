"""FRED's series observations on loopback. Alone: `python -m tests.servers.fred --port 0`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.servers.base import ProviderServer, Reply, Request, json_reply, run_standalone

KEY = "abcdefghijklmnopqrstuvwxyz012345"
DAILY, MONTHLY = "DGS10", "UNRATE"
MAX_LIMIT = 100_000


class FredServer(ProviderServer):
    """Refuses wrong keys and unknown series with status 400, as FRED does; `page` lowers the rows of one answer."""

    def __init__(self, port: int = 0, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(port, clock)
        self.page = MAX_LIMIT
        self.lag = timedelta(days=2)

    def truth(self, series: str, start: date, end: date) -> list[tuple[date, float | None]]:
        """Return the published observations dated in [start, end]; a daily series has "." on Saturdays."""
        published = min(end, (self.clock() - self.lag).date())
        days = (start + timedelta(days=n) for n in range((published - start).days + 1))
        dates = [day for day in days if series == DAILY or day.day == 1]
        return [(day, None if series == DAILY and day.weekday() == 5 else _value(day)) for day in dates]

    def spoiled(self, row: Any) -> Any:
        return {**row, "value": {"not": "a number"}}

    def answer(self, request: Request, distort: str) -> Reply:
        query = request.query
        refusal = self._refusal(request)
        if refusal:
            return json_reply({"error_code": 400, "error_message": f"Bad Request.  {refusal}"}, 400)
        start, end = (date.fromisoformat(query[f"observation_{name}"]) for name in ("start", "end"))
        today = self.clock().date().isoformat()
        rows = [
            {"realtime_start": today, "realtime_end": today, "date": day.isoformat(), "value": _text(value)}
            for day, value in self.truth(query["series_id"], start, end)
        ]
        rows = self.distorted(rows, distort)
        offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", MAX_LIMIT)), self.page)
        return json_reply(
            {
                "realtime_start": today,
                "realtime_end": today,
                "observation_start": start.isoformat(),
                "observation_end": end.isoformat(),
                "units": "lin",
                "output_type": 1,
                "file_type": "json",
                "order_by": "observation_date",
                "sort_order": query.get("sort_order", "asc"),
                "count": len(rows),
                "offset": offset,
                "limit": limit,
                "observations": rows[offset : offset + limit],
            }
        )

    def _refusal(self, request: Request) -> str | None:
        query = request.query
        if request.path != "/fred/series/observations" or query.get("file_type") != "json":
            return "The server only answers series observations as JSON here."
        if query.get("api_key") != KEY:
            return "The value for variable api_key is not registered."
        if query.get("series_id") not in (DAILY, MONTHLY):
            return "The series does not exist."
        if int(query.get("limit", MAX_LIMIT)) > MAX_LIMIT:
            return "Variable limit is not between 1 and 100000."
        return None


def _value(day: date) -> float:
    return round(4 + (day.toordinal() % 97) / 100, 2)


def _text(value: float | None) -> str:
    return "." if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_standalone(FredServer)
