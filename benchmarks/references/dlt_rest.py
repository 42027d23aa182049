"""Reference: dlt's declarative REST source into Delta tables, as its documentation teaches it.

One endpoint for each product and timeframe, all in parallel, a paginator that steps through time. Appends to the
product's tables and partitions; no validation.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import product as pairs
from typing import Any

import dlt
from dlt.destinations import filesystem
from dlt.sources.helpers.requests import Request, Response
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api import rest_api_source

from benchmarks.history import NATIVE, PRODUCTS, SECONDS
from benchmarks.references.wire import Window, arguments, windows

Row = dict[str, Any]
Candle = Sequence[float]

_QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
_FOUR_HOURS = SECONDS["4h"]
_CUT = {"1h": {"day": 1}, "4h": {"day": 1}, "1d": {"month": 1, "day": 1}}
# Without the prices' type a candle whose open happens to be a whole number would open a second column.
_COLUMNS: dict[str, dict[str, Any]] = {
    **{name: {"data_type": "double"} for name in ("open", "high", "low", "close", "volume")},
    "partition_date": {"data_type": "date", "partition": True},
    "partition_asset_pair": {"data_type": "text", "partition": True},
}


class TimeWindows(BasePaginator):
    """Steps through time, at most 300 candles a request."""

    def __init__(self, whole: list[Window]) -> None:
        super().__init__()
        self._whole = whole
        self._place = 0

    def init_request(self, request: Request) -> None:
        """Ask for the first window."""
        self.update_request(request)

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:  # noqa: ARG002 - dlt's signature
        """Go to the next window, if there is one."""
        self._place += 1
        self._has_next_page = self._place < len(self._whole)

    def update_request(self, request: Request) -> None:
        """Ask for the present window."""
        if self._has_next_page:
            request.params = {**request.params, **self._whole[self._place].params}


def _row(product: str, timeframe: str, candle: Candle) -> Row:
    """Return a candle as a row of the table of its timeframe."""
    opened = datetime.fromtimestamp(candle[0], UTC)
    pair = product.replace("-", "")
    return {
        "asset_pair": pair,
        "timeframe": timeframe,
        "timestamp": opened,
        "open": candle[3],
        "high": candle[2],
        "low": candle[1],
        "close": candle[4],
        "volume": candle[5],
        "provider": "coinbase",
        "partition_date": opened.date().replace(**_CUT.get(timeframe, {})),
        "partition_asset_pair": pair,
    }


def _four_hours(candles: Sequence[Candle]) -> list[Candle]:
    """Fold 1h candles, which must fill whole bars, into 4h candles."""
    bars: dict[int, list[float]] = {}
    for opened, low, high, first, last, volume in sorted(candles):
        start = int(opened // _FOUR_HOURS) * _FOUR_HOURS
        bar = bars.setdefault(start, [start, low, high, first, last, 0.0])
        bar[1], bar[2], bar[4], bar[5] = min(bar[1], low), max(bar[2], high), last, bar[5] + volume
    return list(bars.values())


def _fold(response: Response, *_: object, **__: object) -> Response:
    response._content = json.dumps(_four_hours(response.json())).encode()  # noqa: SLF001 - how dlt documents it
    return response


def _resource(product: str, timeframe: str, days: int) -> dict[str, Any]:
    asked = "1h" if timeframe == "4h" else timeframe
    endpoint: dict[str, Any] = {
        "path": f"products/{product}/candles",
        "data_selector": "$",
        "paginator": TimeWindows([window for window in windows(asked, days) if window.product == product]),
    }
    if timeframe == "4h":
        endpoint["response_actions"] = [_fold]
    return {
        "name": f"{product}_{timeframe}",
        "table_name": f"raw_market_data_{timeframe}",
        "endpoint": endpoint,
        "processing_steps": [{"map": partial(_row, product, timeframe)}],
    }


def main() -> None:
    """Backfill, and print the seconds it took, in all and by dlt's own steps."""
    given = arguments()
    os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"})
    defaults = {"table_format": "delta", "write_disposition": "append", "columns": _COLUMNS, "parallelized": True}
    config: Any = {
        "client": {"base_url": given.url},
        "resource_defaults": {**defaults, "max_table_nesting": 0},
        "resources": [_resource(product, frame, given.days) for frame, product in pairs((*NATIVE, "4h"), PRODUCTS)],
    }
    destination = filesystem(bucket_url=f"file://{given.lake}")
    with tempfile.TemporaryDirectory() as state:
        clock = time.perf_counter()
        pipeline = dlt.pipeline("bars", destination=destination, dataset_name="bronze", pipelines_dir=state)
        pipeline.run(rest_api_source(config))
        print(json.dumps({"seconds": time.perf_counter() - clock, "steps": _steps(pipeline)}))


def _steps(pipeline: dlt.Pipeline) -> dict[str, float]:
    steps = pipeline.last_trace.steps if pipeline.last_trace else []
    return {step.step: (step.finished_at - step.started_at).total_seconds() for step in steps if step.finished_at}


if __name__ == "__main__":
    main()
