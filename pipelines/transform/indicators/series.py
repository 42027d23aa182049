"""What indicators must know of a series beyond its bars: how many bars make a year, and which session a bar is in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines import calendars
from pipelines.instruments import Instrument, InstrumentRegistry, load_registry
from pipelines.timeframes import EPOCH, Timeframe

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_DAY = 86_400_000_000
_NEVER = np.iinfo(np.int64).max
# In the last place, which is where the one before the first is looked for.
_BEFORE_ANY = np.iinfo(np.int64).min
_DAY_SECONDS = 86_400
_DAYS_ALWAYS = 365
_DAYS_FOREX = 260
_SESSIONS_EXCHANGE = 252
# Whose sessions tell the usual length of one; fixed, so that a stored value never changes as time goes by.
_TYPICAL_YEARS = (datetime(2015, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class SeriesContext:
    """One series of bars: an instrument at one timeframe."""

    instrument: Instrument
    timeframe: Timeframe

    @classmethod
    def of(cls, asset_pair: str, timeframe: str, registry: InstrumentRegistry | None = None) -> Self:
        """Return the context of a series by the names its rows carry.

        Raises:
            UnknownAssetError: no such instrument.
            ValueError: no such timeframe.
        """
        return cls((registry or load_registry()).resolve(asset_pair), Timeframe(timeframe))

    @property
    def bars_per_year(self) -> float:
        """How many bars a year has, for annualising: trading time in a year over the bar's length.

        365 days on "24/7"; 260 days of 24 h on "forex"; on an exchange 252 sessions of the median length of its own in
        2015 to 2019, lunch breaks left out. A daily bar is one day or session.

        Raises:
            ConfigError: the instrument names an unknown calendar.
        """
        calendar = self.instrument.calendar
        if calendar == calendars.ALWAYS:
            return _DAYS_ALWAYS * _DAY_SECONDS / self.timeframe.seconds
        if calendar == calendars.FOREX:
            return _DAYS_FOREX * _DAY_SECONDS / self.timeframe.seconds
        if self.timeframe is Timeframe.D1:
            return float(_SESSIONS_EXCHANGE)
        return _SESSIONS_EXCHANGE * self._session_seconds() / self.timeframe.seconds

    def sessions(self, at: Micros) -> tuple[Micros, Mask]:
        """Return a number for each bar's session, rising with time, and whether the bar overlaps it at all.

        A bar that does not, as one in a lunch break, has the number of the session before. Of two sessions that a bar
        overlaps, it belongs to the first.

        Args:
            at: bar opens, microseconds since the epoch, UTC, sorted.

        Raises:
            ConfigError: the instrument names an unknown calendar.
        """
        if at.size == 0 or self.timeframe is Timeframe.D1 or self.instrument.calendar == calendars.ALWAYS:
            return at // _DAY, np.ones(at.size, dtype=np.bool_)
        step = self.timeframe.seconds * 1_000_000
        spans = calendars.sessions(self.instrument, _instant(at[0] - _DAY), _instant(at[-1] + step))
        span = np.searchsorted(spans.closes, at, side="right")
        inside = np.append(spans.opens, _NEVER)[span] < at + step
        # The two halves around a lunch break open on one date in UTC; no two sessions do.
        number = np.append(spans.opens // _DAY, _BEFORE_ANY)
        return number[np.where(inside, span, span - 1)], inside

    def _session_seconds(self) -> float:
        whole = self.instrument.model_copy(update={"listed_from": None, "listed_until": None})
        spans = calendars.sessions(whole, *_TYPICAL_YEARS)
        _, session = np.unique(spans.opens // _DAY, return_inverse=True)
        return float(np.median(np.bincount(session, weights=spans.closes - spans.opens))) / 1e6


def _instant(micros: np.int64) -> datetime:
    return EPOCH + timedelta(microseconds=int(micros))
