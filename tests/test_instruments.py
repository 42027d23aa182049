"""The instrument registry: registered assets, pairs by rule, nonsense."""

from __future__ import annotations

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
