"""One Airflow for all tests of scheduled runs, with an exchange that has real bars, and somebody to alert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.config import Settings
from pipelines.session import INTERPRETED
from pipelines.storage import DeltaLakeManager
from tests.batch.exchange import Exchange
from tests.conftest import make_settings
from tests.data_quality.planting import SHARED
from tests.servers.airflow import Airflow
from tests.servers.alpha_vantage import AlphaVantageServer
from tests.servers.base import status
from tests.servers.slack import SlackServer

REAL_BARS = SHARED / "btc_usd_perp_1m_2022-01.csv"
FOLDER = Path(__file__).parent / "dags"
# Nobody listens there.
CLOSED = "127.0.0.1:9"


@dataclass(frozen=True)
class Platform:
    """All that a run meets: Airflow, a provider that is down, one that serves, Slack; and where things are."""

    airflow: Airflow
    exchange: Exchange
    slack: SlackServer
    folder: Path

    def settings(self) -> Settings:
        return make_settings(self.folder, {"storage": {"engine": "embedded"}})

    def lake(self, *, sample: bool = False) -> DeltaLakeManager:
        return DeltaLakeManager(self.folder / ("sample" if sample else "lake"), self.settings())


def real_minutes() -> pd.DataFrame:
    """The real bars, indexed by open."""
    frame = pd.read_csv(REAL_BARS)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
    return frame.set_index("timestamp")


def as_candles(rows: list[Any]) -> list[Any]:
    """Put real bars in the place of an exchange's own, those of the same minutes."""
    known = real_minutes()
    opens = [pd.Timestamp(row[0], unit="s", tz="UTC") for row in rows]
    columns = ["low", "high", "open", "close", "volume"]
    return [
        [row[0], *map(float, known.loc[when, columns])] if when in known.index else row
        for row, when in zip(rows, opens, strict=True)
    ]


def environment(folder: Path, exchange: Exchange, down: AlphaVantageServer, slack: SlackServer) -> dict[str, str]:
    """The settings of all runs, as environment variables."""
    fast = {"requests_per_minute": 600_000, "burst": 1000, "backoff_seconds": 0.001}
    sections: dict[str, dict[str, Any]] = {
        "delta_lake": {"storage_path": str(folder / "lake"), "sample_storage_path": str(folder / "sample")},
        "dlq": {"path": str(folder / "dlq")},
        "quality": {"path": str(folder / "quality")},
        "transform": {"path": str(folder / "transform")},
        "spark": {"extra_conf": INTERPRETED},
        "monitoring": {
            "path": str(folder / "monitoring"),
            "slack_webhook": slack.webhook,
            "pushgateway": CLOSED,
            # One that it gives up on pauses all of them.
            "slack_timeout_seconds": 30,
        },
        "orchestration": {"retry_minutes": 0.02, "deadline_minutes": 0.05, "grafana_url": f"http://{CLOSED}"},
        "providers": {
            "chain": ["alpha_vantage", "coinbase"],
            "alpha_vantage": {"api_key": "made-up", "base_url": down.url, "max_retries": 0, **fast},
            "coinbase": {"base_url": exchange.url, **fast},
        },
    }
    return {
        f"LAKEHOUSE__{section}__{name}".upper(): value if isinstance(value, str) else json.dumps(value)
        for section, values in sections.items()
        for name, value in values.items()
    }


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    with Exchange() as exchange, AlphaVantageServer() as down, SlackServer() as slack:
        down.always(status(503))
        if REAL_BARS.is_file():
            exchange.edit = as_candles
        with Airflow(environment(folder, exchange, down, slack), [FOLDER]) as airflow:
            yield Platform(airflow, exchange, slack, folder)
