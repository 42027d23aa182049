"""Names of sources, and the order in which they are asked."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.config import ProviderSettings, Settings
    from pipelines.instruments import Instrument
    from pipelines.sources.base import Source
    from pipelines.timeframes import Timeframe

# Imported when asked for, so that no vendor package is loaded for nothing.
SOURCES: dict[str, str] = {
    "alpha_vantage": "pipelines.sources.alpha_vantage:AlphaVantageProvider",
    "coinbase": "pipelines.sources.coinbase:CoinbaseSource",
    "oanda": "pipelines.sources.oanda:OandaSource",
    "yfinance": "pipelines.sources.yfinance:YfinanceSource",
    "fred": "pipelines.sources.fred:FredSource",
    "files": "pipelines.sources.files:FilesSource",
    "sample": "pipelines.sources.sample:SampleSource",
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source of the chain that is not asked, and why."""

    name: str
    reason: str


def source_class(name: str) -> type[Source]:
    """Import a source's class.

    Raises:
        ConfigError: there is no source of that name; names the nearest.
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(name.lower(), SOURCES, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(SOURCES)}"
        raise ConfigError(f"unknown provider {name!r}; {hint}")
    module, _, attribute = SOURCES[name].partition(":")
    found: type[Source] = getattr(importlib.import_module(module), attribute)
    return found


def open_source(name: str, settings: Settings) -> Source:
    """Make a source with its section of the settings.

    Raises:
        ConfigError: there is no source of that name; names the nearest.
    """
    make: type[Source] = source_class(name)
    section: ProviderSettings | None = getattr(settings.providers, name, None)
    return make(section)  # type: ignore[call-arg]


def why_not(
    source: Source, settings: Settings, dataset: str, instrument: Instrument | None, timeframe: Timeframe | None
) -> str | None:
    """Return why a source cannot be asked for this, or None if it can."""
    section: ProviderSettings | None = getattr(settings.providers, source.name, None)
    if section is not None and not section.enabled:
        return f"disabled by providers.{source.name}.enabled"
    if not source.supports(dataset, instrument, timeframe):
        what = " ".join(str(part) for part in (instrument and instrument.pair, timeframe) if part)
        return f"does not serve {dataset}{f' for {what}' if what else ''}"
    return source.unavailable_reason()
