"""Derived bars against pandas' resampling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.batch.aggregation import aggregate, whole_bars
from pipelines.intervals import Interval, IntervalSet
from pipelines.timeframes import Timeframe

ZERO = datetime(2025, 1, 1, tzinfo=UTC)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.2, 1.0))
def test_four_hours_from_one_equal_pandas(seed: int, hours: int, kept: float) -> None:
    random = np.random.default_rng(seed)
    opens = pd.date_range(ZERO, periods=hours, freq="1h", unit="us")[random.random(hours) < kept]
    frame = pd.DataFrame(random.random((len(opens), 5)), columns=["open", "high", "low", "close", "volume"])
    frame.insert(0, "timestamp", opens)
    frame.loc[random.random(len(opens)) < 0.3, "volume"] = None
    expected = (
        frame.set_index("timestamp")
        .resample("4h")
        .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": lambda v: v.sum(min_count=1)})
        .dropna(subset=["open"])
        .reset_index()
    )
    shuffled = frame.sample(frac=1, random_state=seed % 1000)
    found = aggregate(pa.Table.from_pandas(shuffled, preserve_index=False), Timeframe.H4).to_pandas()
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-12)


def test_only_wholly_covered_bars_count() -> None:
    def at(hour: int) -> datetime:
        return ZERO + timedelta(hours=hour)

    covered = IntervalSet([Interval(at(1), at(9)), Interval(at(12), at(15)), Interval(at(20), at(28))])
    assert whole_bars(covered, Timeframe.H4) == IntervalSet([Interval(at(4), at(8)), Interval(at(20), at(28))])
