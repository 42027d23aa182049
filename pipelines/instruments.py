"""The instrument registry: asset pairs, their class, trading calendar, price bounds and each provider's own symbol."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipelines.config import CONFIG_DIR
from pipelines.errors import ConfigError, UnknownAssetError

_PAIR = re.compile(r"[A-Z0-9^.\-]{1,16}")


class AssetClass(StrEnum):
    """What kind of instrument it is."""

    CRYPTO = "crypto"
    FOREX = "forex"
    EQUITY = "equity"
    BOND = "bond"


class Instrument(BaseModel):
    """One tradable or observable instrument.

    `price_min` and `price_max` are exclusive bounds in quote currency (percent for yields); `calendar` is "24/7",
    "forex" (Sunday to Friday 17:00 New York) or an `exchange_calendars` name. `listed_from` is the first date in UTC
    on which it trades and `listed_until` the first on which it does not any more; None for no such limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: str
    asset_class: AssetClass
    calendar: str
    price_min: float = 0.0001
    price_max: float = Field(default=1_000_000.0, validate_default=True)
    base: str = ""
    quote: str = "USD"
    listed_from: date | None = None
    listed_until: date | None = None
    symbols: dict[str, str] = Field(default_factory=dict)

    @field_validator("price_max")
    @classmethod
    def _room_for_prices(cls, price_max: float, info: ValidationInfo) -> float:
        price_min = info.data.get("price_min")
        if price_min is not None and not price_max > price_min:
            raise ValueError(f"must be above price_min ({price_min:g}): no price lies between {price_max:g} and that")
        return price_max

    @field_validator("listed_until")
    @classmethod
    def _listed_at_all(cls, until: date | None, info: ValidationInfo) -> date | None:
        since = info.data.get("listed_from")
        if until is not None and since is not None and until <= since:
            raise ValueError(f"must be after listed_from ({since}): it is the first date without trading")
        return until

    @property
    def listing(self) -> tuple[datetime, datetime]:
        """The time, aware UTC, from which on it trades and from which on it does not any more."""
        return _midnight(self.listed_from or date.min), _midnight(self.listed_until or date.max)

    def symbol(self, provider: str) -> str:
        """Return the provider's own name of this instrument."""
        return self.symbols.get(provider) or _by_rule(provider, self)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _by_rule(provider: str, instrument: Instrument) -> str:
    base, quote = instrument.base, instrument.quote
    if instrument.asset_class in (AssetClass.EQUITY, AssetClass.BOND):
        return instrument.pair
    rules = {
        "coinbase": f"{base}-{quote}",
        "oanda": f"{base}_{quote}",
        "alpha_vantage": f"{base}/{quote}",
        "yfinance": f"{base}-{quote}" if instrument.asset_class is AssetClass.CRYPTO else f"{base}{quote}=X",
    }
    return rules.get(provider, instrument.pair)


class InstrumentRegistry:
    """Looks instruments up by asset pair; an unregistered crypto or forex pair is made by rule."""

    def __init__(self, instruments: dict[str, Instrument], fiat: frozenset[str], crypto: frozenset[str]) -> None:
        self._instruments = instruments
        self._fiat = fiat
        self._crypto = crypto

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments.values())

    def resolve(self, pair: str) -> Instrument:
        """Return the instrument of an asset pair, in any case and with or without - / _ between its halves.

        Raises:
            UnknownAssetError: neither registered nor two known currencies.
        """
        name = pair.strip().upper()
        compact = re.sub(r"[-/_]", "", name)
        found = self._instruments.get(name) or self._instruments.get(compact)
        if found is not None:
            return found
        if not _PAIR.fullmatch(compact):
            raise UnknownAssetError(f"{pair!r} is not an asset pair; write for example BTCUSD, EURUSD or AAPL")
        made = self._made_by_rule(compact)
        if made is None:
            close = difflib.get_close_matches(compact, self._instruments, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else "."
            raise UnknownAssetError(
                f"unknown asset {pair!r}{hint} Crypto and forex pairs work by rule (BASEQUOTE); "
                "register anything else in config/assets.yaml"
            )
        return made

    def _made_by_rule(self, pair: str) -> Instrument | None:
        for cut in range(len(pair) - 3, 1, -1):
            base, quote = pair[:cut], pair[cut:]
            if base == quote:
                continue
            if base in self._fiat and quote in self._fiat:
                return Instrument(pair=pair, asset_class=AssetClass.FOREX, calendar="forex", base=base, quote=quote)
            if base in self._crypto and quote in self._fiat | self._crypto:
                # Unregistered coins can be worth far less than the default lower bound.
                return Instrument(
                    pair=pair, asset_class=AssetClass.CRYPTO, calendar="24/7", base=base, quote=quote, price_min=0.0
                )
        return None


@cache
def load_registry(path: Path = CONFIG_DIR / "assets.yaml") -> InstrumentRegistry:
    """Load the registry.

    Raises:
        ConfigError: the file is missing, not YAML, or an entry is wrong; names the entry and the key.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries, currencies = document["assets"], document["currencies"]
        fiat, crypto = frozenset(currencies["fiat"]), frozenset(currencies["crypto"])
    except FileNotFoundError:
        raise ConfigError(f"no instrument registry at {path}") from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise ConfigError(f"{path} needs the keys `assets` and `currencies` (fiat, crypto)") from None
    instruments: dict[str, Instrument] = {}
    for pair, fields in entries.items():
        try:
            instruments[str(pair)] = Instrument(pair=str(pair), **(fields or {}))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise ConfigError(f"{path}: assets.{pair}.{key}: {problem['msg']}") from None
    return InstrumentRegistry(instruments, fiat, crypto)
