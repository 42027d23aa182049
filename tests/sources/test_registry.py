"""Names, sources, and why one is not asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.config import Settings
from pipelines.errors import ConfigError
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.registry import SOURCES, open_source, source_class, why_not
from pipelines.timeframes import Timeframe


def reason(name: str, pair: str, timeframe: Timeframe = Timeframe.M1, **section: object) -> str | None:
    settings = Settings.model_validate({"providers": {name: section}})
    source = open_source(name, settings)
    return why_not(source, settings, MARKET_DATA, load_registry().resolve(pair), timeframe)


@pytest.mark.parametrize("name", SOURCES)
def test_every_name_opens_its_source(name: str) -> None:
    assert open_source(name, Settings()).name == name


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean coinbase"):
        source_class("coinbse")
    with pytest.raises(ConfigError, match="known are alpha_vantage"):
        source_class("zzz")


def test_what_it_does_not_serve_is_a_reason() -> None:
    assert reason("coinbase", "BTCUSD") is None
    assert reason("oanda", "BTCUSD") == "does not serve raw_market_data for BTCUSD 1m"


def test_a_missing_key_is_a_reason() -> None:
    assert "OANDA_API_TOKEN" in str(reason("oanda", "EURUSD"))
    assert reason("oanda", "EURUSD", api_token="t" * 32) is None


def test_a_disabled_one_is_a_reason() -> None:
    assert reason("coinbase", "BTCUSD", enabled=False) == "disabled by providers.coinbase.enabled"


def test_a_derived_timeframe_is_served() -> None:
    assert reason("coinbase", "BTCUSD", Timeframe.H4) is None


def test_naming_sources_loads_none() -> None:
    loaded = "import sys, pipelines.sources.registry; print([m for m in ('httpx', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
