"""What makes an instrument's made-up prices look like its own: level, volatility, tick size and volume."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.sample.noise import digest

# Rough values of one unit in US dollars, so that any pair's level is the ratio of its halves.
_USD = {
    "USD": 1.0, "EUR": 1.08, "GBP": 1.27, "JPY": 0.0067, "CHF": 1.12, "CAD": 0.73, "AUD": 0.66, "NZD": 0.61,
    "SEK": 0.095, "NOK": 0.094, "DKK": 0.145, "PLN": 0.25, "CZK": 0.043, "HUF": 0.0028, "TRY": 0.03, "ZAR": 0.054,
    "MXN": 0.055, "SGD": 0.74, "HKD": 0.128, "CNH": 0.138, "CNY": 0.138, "INR": 0.012, "THB": 0.028, "KRW": 0.00074,
    "BRL": 0.19, "ILS": 0.27, "BTC": 60_000.0, "ETH": 3_000.0, "SOL": 150.0, "ADA": 0.5, "XRP": 0.6, "LTC": 80.0,
    "BCH": 400.0, "DOGE": 0.12, "DOT": 6.0, "AVAX": 30.0, "LINK": 14.0, "SHIB": 2e-5, "PEPE": 1e-5, "USDT": 1.0,
    "USDC": 1.0, "DAI": 1.0, "MKR": 2_500.0, "AAVE": 120.0, "TRX": 0.13, "XLM": 0.11,
}  # fmt: skip
_STABLE = frozenset({"USD", "USDT", "USDC", "DAI"})
_LISTED = {
    "AAPL": 190.0, "MSFT": 410.0, "AMZN": 180.0, "TSLA": 220.0, "NVDA": 120.0, "JPM": 200.0, "XOM": 115.0,
    "META": 480.0, "GOOGL": 165.0, "NFLX": 620.0, "^TNX": 4.2, "^IRX": 5.0, "^FVX": 4.1, "^TYX": 4.4,
}  # fmt: skip

# Class: volatility of the logarithm per day, its spread over decades, turnover per open minute in US dollars.
_BEHAVIOUR = {
    AssetClass.CRYPTO: (0.030, 0.40, 400_000.0),
    AssetClass.FOREX: (0.005, 0.08, 0.0),
    AssetClass.EQUITY: (0.016, 0.30, 20_000_000.0),
    AssetClass.BOND: (0.014, 0.22, 0.0),
}
_FOREX_TICKS = 90.0
_CALM = (0.0005, 0.001)
_DECIMALS = {AssetClass.EQUITY: 2, AssetClass.BOND: 3}
_MEAN_STEPS = 16
_CLIP = 4.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How one instrument's sample prices behave.

    Attributes:
        level: the price the path returns to, in quote currency (percent for yields).
        spread: standard deviation of log(price / level) over decades; the path stays within `reach`.
        reach: how far log(price / level) may go either way.
        daily: volatility of the log price per day.
        decimals: digits after the point of every price.
        volume: mean volume per open minute, in base units (ticks for forex, 0 for yields).
        volume_step: a power of two that every volume is a multiple of, so that sums are exact.
        usd: about how many US dollars one unit of the instrument is worth.
    """

    level: float
    spread: float
    reach: float
    daily: float
    decimals: int
    volume: float
    volume_step: float
    usd: float


def profile_of(instrument: Instrument) -> Profile:
    """Return an instrument's profile; one that is not in the tables gets a plausible one from its name."""
    kind = instrument.asset_class
    daily, spread, turnover = _BEHAVIOUR[kind]
    if {instrument.base, instrument.quote} <= _STABLE:
        daily, spread = _CALM
    level = _within_bounds(_level(instrument), _CLIP * spread, instrument)
    usd = level * _USD.get(instrument.quote, 1.0)
    volume = _FOREX_TICKS if kind is AssetClass.FOREX else turnover / usd
    whole = kind in (AssetClass.FOREX, AssetClass.EQUITY)
    digits = 0 if whole or not volume else max(0, _MEAN_STEPS - round(math.log2(volume)))
    return Profile(
        level=level,
        spread=spread,
        reach=_CLIP * spread,
        daily=daily,
        decimals=_DECIMALS.get(kind, _decimals(level)),
        volume=volume,
        volume_step=2.0**-digits,
        usd=usd,
    )


def _level(instrument: Instrument) -> float:
    if instrument.asset_class in (AssetClass.EQUITY, AssetClass.BOND):
        made_up = (2.0, 4.0) if instrument.asset_class is AssetClass.BOND else (20.0, 280.0)
        return _LISTED.get(instrument.pair) or made_up[0] + made_up[1] * _fraction(instrument.pair)
    base, quote = (_USD.get(half) or 0.5 + 5.0 * _fraction(half) for half in (instrument.base, instrument.quote))
    return base / quote


def _fraction(name: str) -> float:
    return int(digest(name), 16) / 2.0**64


def _within_bounds(level: float, reach: float, instrument: Instrument) -> float:
    """Move the level so that the whole path fits between the instrument's bounds, as far as they allow it."""
    low = max(instrument.price_min, 0.0) * math.exp(reach)
    high = instrument.price_max * math.exp(-reach)
    return math.sqrt(low * high) if low > high else min(max(level, low * 1.01), high * 0.99)


def _decimals(level: float) -> int:
    """Return the digits that leave a price about six significant ones."""
    return min(12, max(2, 5 - math.floor(math.log10(level))))
