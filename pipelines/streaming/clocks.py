"""Event time as ticks tell it: which ticks are too late, and up to when bars may be closed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from pipelines.coercion import INSTANT
from pipelines.streaming.decoding import PARTITION

if TYPE_CHECKING:
    import pyarrow as pa

_ASSET, _TIME = "asset_pair", "timestamp"
_HAND, _BEFORE = "hand", "before"
_BY = (_ASSET, PARTITION)


class Clocks:
    """The newest event time (aware UTC) of each asset in each partition of a topic.

    A partition keeps its order, so what is late in it does not depend on how its messages are cut into batches.
    """

    def __init__(self, hands: pl.DataFrame | None = None) -> None:
        """Set the clocks.

        Args:
            hands: asset_pair, kafka_partition and `hand`, the newest event time; none for a topic that is new.
        """
        schema = {_ASSET: pl.String(), PARTITION: pl.Int64(), _HAND: INSTANT}
        self._hands = (
            pl.DataFrame(schema=schema)
            if hands is None
            else hands.select([pl.col(name).cast(kind) for name, kind in schema.items()])
        )

    @property
    def assets(self) -> list[str]:
        """The assets that have ticked, sorted."""
        return sorted(self._hands[_ASSET].unique())

    def late(self, ticks: pa.Table, lateness: timedelta) -> pl.Series:
        """Say of each tick, in the order of offsets, whether it is later than its asset's newest by more than that."""
        frame = pl.DataFrame(ticks.select([_ASSET, PARTITION, _TIME])).with_columns(
            pl.col(_TIME).cum_max().over(_BY).shift(1).over(_BY).alias(_BEFORE)
        )
        frame = frame.join(self._hands, on=list(_BY), how="left", maintain_order="left")
        newest = pl.max_horizontal(_BEFORE, _HAND)
        return frame.select((pl.col(_TIME) < newest - lateness).fill_null(value=False)).to_series()

    def advance(self, ticks: pa.Table) -> None:
        """Move the clocks on by ticks that have landed."""
        moved = pl.DataFrame(ticks.select([_ASSET, PARTITION, _TIME])).rename({_TIME: _HAND})
        both = pl.concat([self._hands, moved])
        self._hands = both.group_by(_BY).agg(pl.col(_HAND).max())

    def reached(self, behind: Iterable[int]) -> datetime | None:
        """Return up to when, in event time (aware UTC), the topic has been read; None if that is not known.

        Args:
            behind: partitions that have messages which are not read yet: the slowest of them decides.
        """
        each: dict[int, datetime] = dict(
            self._hands.group_by(PARTITION).agg(pl.col(_HAND).max()).select(PARTITION, _HAND).iter_rows()
        )
        waiting = [each.get(partition) for partition in behind]
        if None in waiting:
            return None
        return min((hand for hand in waiting if hand), default=max(each.values(), default=None))
