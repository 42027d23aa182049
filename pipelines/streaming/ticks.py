"""Ticks on their way into bronze, and the bars that they close."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
from typing_extensions import override

from pipelines.edge import RefusedRow
from pipelines.storage.scan import literal
from pipelines.storage.writing.marks import STAMP, ByOffset, Reached
from pipelines.streaming.bars import LiveBars
from pipelines.streaming.clocks import Clocks
from pipelines.streaming.decoding import PARTITION
from pipelines.streaming.landing import Landing, Place
from pipelines.streaming.topics import TICKS
from pipelines.timeframes import Timeframe, from_micros, micros, utc_now

if TYPE_CHECKING:
    from pipelines.config import StreamingSettings
    from pipelines.streaming.checking import Checked
    from pipelines.streaming.dead_letters import DeadLetters
    from pipelines.streaming.status import LostRange
    from pipelines.streaming.topics import Topic

TOO_LATE = "later than its asset's newest tick by more than streaming.lateness_minutes"
_SINCE, _WATERMARK, _BARS = "since", "watermark", "bars"
# Stands for a beginning that is not known before the first ticks are there.
_JOINING = -1
# Of an asset that has been silent for longer no tick is too late.
_REMEMBERED = timedelta(days=1)
_CLAIM_EVERY = timedelta(hours=1)
# Asks the providers for what the stream cannot have seen of assets before an instant.
Heal = Callable[[Collection[str], datetime], None]


class TickLanding(Landing):
    """Lands ticks exactly once by offset, and builds bars of what has landed."""

    def __init__(
        self, topic: Topic, place: Place, settings: StreamingSettings, dead: DeadLetters, heal: Heal | None = None
    ) -> None:
        super().__init__(topic, place, settings, dead)
        self._heal = heal
        self._bars = LiveBars(place)
        self._clocks = Clocks()
        self._watermark: datetime | None = None
        self._barred = 0
        self._awaited: set[int] = set()
        self._moved = time.monotonic()
        self._claimed = utc_now()

    @property
    @override
    def watermark(self) -> datetime | None:
        return self._watermark

    @override
    def idle(self, ends: Mapping[int, int]) -> int:
        """Let event time pass as the clock does while no message comes, so that the last bars close too."""
        if self._behind(ends):
            return 0
        newest = self._clocks.reached(())
        if newest is None:
            return 0
        return self._close_up_to(newest + timedelta(seconds=time.monotonic() - self._moved))

    @override
    def close(self) -> None:
        self._bars.claim()

    @override
    def _mark_names(self) -> tuple[str, ...]:
        return _SINCE, _WATERMARK, _BARS

    @override
    def _others(self) -> dict[str, int]:
        since = self._bars.since
        found = {_SINCE: _JOINING if since is None else micros(since), _BARS: self._barred}
        return found if self._watermark is None else found | {_WATERMARK: micros(self._watermark)}

    @override
    def _restore(self, marks: Mapping[object, int]) -> None:
        since, watermark = marks.get(_SINCE, _JOINING), marks.get(_WATERMARK)
        self._bars.since = None if since == _JOINING else from_micros(since)
        self._watermark = None if watermark is None else from_micros(watermark)
        self._barred = marks.get(_BARS, 0)
        if STAMP not in marks:
            return
        recent = "" if self._watermark is None else f" AND timestamp >= {literal(self._watermark - _REMEMBERED)}"
        hands = self._ask(
            f"asset_pair, {PARTITION}, max(timestamp) AS hand", f"{recent} GROUP BY asset_pair, {PARTITION}"
        )
        self._clocks = Clocks(pl.DataFrame(hands))
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        """Note which bars are open, or were not built from all that has landed."""
        unfinished = f"ingested_at > {literal(from_micros(self._barred))}"
        if self._watermark is not None:
            minute = Timeframe.M1.floor(self._watermark)
            unfinished = f"({unfinished} OR timestamp >= {literal(minute)})"
            # A longer bar may be open that has had no tick in its last minutes.
            self._bars.touch_at((asset, minute) for asset in self._clocks.assets)
        found = self._ask("DISTINCT asset_pair, date_trunc('minute', timestamp) AS minute", f" AND {unfinished}")
        frame = pl.DataFrame(found).with_columns(pl.col("minute").cast(pl.Datetime("us", "UTC")))
        self._bars.touch_at(frame.select("asset_pair", "minute").iter_rows())

    def _ask(self, what: str, where: str) -> pa.Table:
        topic = literal(self._topic.name)
        sql = f"SELECT {what} FROM {TICKS} WHERE kafka_topic = {topic}{where}"  # noqa: S608 - literals are escaped
        return self._place.manager.query(sql)

    @override
    def _catch_up(self, ends: Mapping[int, int]) -> None:
        if not self._clocks.assets:
            return
        self._close_bars(ends)
        if self._heal is not None and self._watermark is not None:
            self._heal(self._clocks.assets, self._watermark)

    @override
    def _rejoin(self, lost: list[LostRange]) -> None:
        self._bars.since = None
        self._awaited |= {each.partition for each in lost}

    @override
    def _landed(self, checked: Checked, until: dict[int, int], ends: Mapping[int, int]) -> tuple[int, int, int]:
        ((_, ticks),) = checked.good
        late = self._clocks.late(ticks, timedelta(minutes=self._settings.lateness_minutes))
        if late.any():
            mask = late.to_arrow()
            checked.refused.extend(
                RefusedRow(row, TOO_LATE, row["timestamp"]) for row in ticks.filter(mask).to_pylist()
            )
            ticks = ticks.filter(late.not_().to_arrow())
        self._dead.write(checked.refused)
        self._join(ticks, until, ends)
        reached = Reached(self._topic.name, self.positions, until, self._others())
        self._place.append(self._table, ticks, ByOffset(reached))
        self.positions = until
        restating = self._count_late(ticks)
        self._clocks.advance(ticks)
        self._bars.touch(ticks)
        return ticks.num_rows, restating, self._close_bars(ends)

    def _join(self, ticks: pa.Table, until: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Set the first whole minute, once there are ticks to tell it: the one they begin in may be a part."""
        if self._bars.since is not None or not ticks.num_rows:
            return
        firsts = dict(pl.DataFrame(ticks.select([PARTITION, "timestamp"])).group_by(PARTITION).min().iter_rows())
        self._awaited -= firsts.keys()
        if any(ends.get(partition, 0) > until.get(partition, 0) for partition in self._awaited):
            return
        self._awaited.clear()
        from_its_beginning = not any(self.positions.values())
        first = (min if from_its_beginning else max)(firsts.values())
        self._bars.since = Timeframe.M1.floor(first) + Timeframe.M1.step
        if self._heal is not None:
            assets = sorted({*self._clocks.assets, *ticks["asset_pair"].unique().to_pylist()})
            self._heal(assets, self._bars.since)

    def _count_late(self, ticks: pa.Table) -> int:
        if self._watermark is None:
            return 0
        closed = Timeframe.M1.floor(self._watermark)
        return int((pl.Series(ticks["timestamp"]) < closed).sum())

    def _close_bars(self, ends: Mapping[int, int]) -> int:
        self._moved = time.monotonic()
        stamp = self._place.manager.marks(self._table, self._topic.name, [STAMP])[STAMP]
        reached = self._clocks.reached(self._behind(ends))
        built = self._close_up_to(reached) if reached is not None else 0
        self._barred = stamp
        return built

    def _close_up_to(self, reached: datetime) -> int:
        watermark = reached - timedelta(seconds=self._settings.bar_delay_seconds)
        if self._watermark is not None:
            watermark = max(watermark, self._watermark)
        self._watermark = watermark
        built = self._bars.close(watermark)
        if utc_now() - self._claimed >= _CLAIM_EVERY:
            self._bars.claim()
            self._claimed = utc_now()
        return built
