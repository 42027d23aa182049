"""Which series and which span a command looks at, as its options say it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelines.batch.jobs import parse_timeframe
from pipelines.cli.spans import asked_span
from pipelines.instruments import load_registry
from pipelines.intervals import Interval
from pipelines.timeframes import Timeframe


@dataclass(frozen=True)
class SeriesChoice:
    """The options as given; what they leave out means all.

    Raises:
        ConfigError: the options contradict each other.
        InvalidRangeError: an unknown timeframe, or a span that is empty or cannot be read.
        UnknownAssetError: an unknown asset pair.
    """

    assets: tuple[str, ...]
    timeframes: tuple[str, ...]
    days: int | None
    start: str | None
    end: str | None

    @cached_property
    def pairs(self) -> list[str] | None:
        """The asset pairs as registered; None for all."""
        return [load_registry().resolve(name).pair for name in self.assets] or None

    @cached_property
    def frames(self) -> list[Timeframe] | None:
        """The bar lengths; None for all."""
        return [parse_timeframe(name) for name in self.timeframes] or None

    @cached_property
    def interval(self) -> Interval | None:
        """The span of the bars' opens; None for all."""
        return asked_span(self.days, self.start, self.end)
