"""The instrument registry: registered assets, pairs by rule, nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.errors import ConfigError, UnknownAssetError
from pipelines.instruments import AssetClass, load_registry

REQUIRED = (
    "BTCUSD ETHUSD SOLUSD ADAUSD XRPUSD ETHBTC LTCBTC EURUSD GBPUSD USDJPY AAPL MSFT AMZN TSLA NVDA JPM XOM META GOOGL "
    "NFLX ^TNX ^IRX ^FVX ^TYX"
)


def test_the_registry_holds_what_users_expect() -> None:
    names = {instrument.pair for instrument in load_registry()}
    assert names >= set(REQUIRED.split())


@pytest.mark.parametrize("spelling", ["BTCUSD", "btcusd", "BTC-USD", "BTC/USD", "btc_usd", " BTCUSD "])
def test_spellings_of_one_pair(spelling: str) -> None:
    assert load_registry().resolve(spelling).pair == "BTCUSD"


@pytest.mark.parametrize(
    ("pair", "kind", "base", "quote"),
    [
        ("DOGEUSD", AssetClass.CRYPTO, "DOGE", "USD"),
        ("SOLBTC", AssetClass.CRYPTO, "SOL", "BTC"),
        ("EURCHF", AssetClass.FOREX, "EUR", "CHF"),
        ("USDTUSD", AssetClass.CRYPTO, "USDT", "USD"),
    ],
)
def test_unregistered_pairs_work_by_rule(pair: str, kind: AssetClass, base: str, quote: str) -> None:
    found = load_registry().resolve(pair)
    assert (found.asset_class, found.base, found.quote) == (kind, base, quote)


@pytest.mark.parametrize("pair", ["", "BTCUSX", "USDUSD", "XX", "../etc/passwd", "BTC USD; DROP", "A" * 40, "APPL"])
def test_nonsense_is_refused_with_a_hint(pair: str) -> None:
    with pytest.raises(UnknownAssetError, match=r"asset"):
        load_registry().resolve(pair)


@pytest.mark.parametrize(
    ("pair", "provider", "symbol"),
    [
        ("BTCUSD", "coinbase", "BTC-USD"),
        ("EURUSD", "oanda", "EUR_USD"),
        ("EURUSD", "yfinance", "EURUSD=X"),
        ("BTCUSD", "yfinance", "BTC-USD"),
        ("AAPL", "alpha_vantage", "AAPL"),
        ("^TNX", "yfinance", "^TNX"),
    ],
)
def test_provider_symbols(pair: str, provider: str, symbol: str) -> None:
    assert load_registry().resolve(pair).symbol(provider) == symbol


def test_yields_may_be_negative() -> None:
    assert load_registry().resolve("^IRX").price_min < 0


def test_a_wrong_entry_names_file_asset_and_key(tmp_path: Path) -> None:
    path = tmp_path / "assets.yaml"
    path.write_text("assets: {X: {asset_class: cryptoo, calendar: 24/7}}\ncurrencies: {fiat: [], crypto: []}\n")
    with pytest.raises(ConfigError, match=r"assets\.yaml: assets\.X\.asset_class"):
        load_registry(path)


def registry_with(folder: Path, fields: str) -> Path:
    path = folder / "assets.yaml"
    path.write_text(
        f"assets:\n  GONE: {{asset_class: equity, calendar: XNYS, {fields}}}\ncurrencies: {{fiat: [], crypto: []}}\n"
    )
    return path


def test_a_listing_is_read_as_dates(tmp_path: Path) -> None:
    found = load_registry(registry_with(tmp_path, "listed_from: 2014-06-02, listed_until: 2020-01-01")).resolve("GONE")
    assert found.listing == (datetime(2014, 6, 2, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("until", ["2014-06-01", "2014-06-02", "no date"])
def test_a_listing_that_ends_before_it_begins_is_named(tmp_path: Path, until: str) -> None:
    with pytest.raises(ConfigError, match=r"assets\.GONE\.listed_until"):
        load_registry(registry_with(tmp_path, f"listed_from: 2014-06-02, listed_until: {until}"))
