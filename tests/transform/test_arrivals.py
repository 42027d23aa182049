"""Bars in any order, late, twice, restated, taken back, of several providers: runs keep what a refresh would make.

The lake, the plans and the indicators are the real ones, over real tables; DuckDB and delta-rs do what Spark does.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import talib
from deltalake import CommitProperties, DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts import contract_for
from pipelines.storage import DeltaLakeManager
from pipelines.storage.travel.pins import Pin
from pipelines.timeframes import Timeframe
from pipelines.transform.functions import indicators_of
from pipelines.transform.indicators import COLUMNS, STATE_BARS, SeriesContext, arrow_schema, compute
from pipelines.transform.plan import Planner
from pipelines.transform.project import Project
from pipelines.transform.runner import dbt_environment, prepare
from pipelines.transform.sources import BAR
from tests.conftest import make_settings

MODEL = "model.finance_lakehouse.market_data_enriched"
PRIORITY = ["alpha_vantage", "coinbase", "oanda", "yfinance"]
LENGTH = 560
# Each begins so that its bars are in two partitions of silver.
SERIES = (
    ("BTCUSD", "1h", datetime(2024, 12, 18, tzinfo=UTC)),
    ("ETHUSD", "1h", datetime(2024, 12, 24, tzinfo=UTC)),
    ("BTCUSD", "1m", datetime(2024, 12, 31, 19, tzinfo=UTC)),
)


@dataclass(frozen=True, slots=True)
class Landing:
    """Bars `first` up to `first + count` of a series, as a provider tells them in some version of its own."""

    series: int
    first: int
    count: int
    provider: str
    version: int

    def rows(self) -> pa.Table:
        asset, timeframe, start = SERIES[self.series]
        numbers = np.arange(self.first, min(self.first + self.count, LENGTH))
        walk = np.random.default_rng(self.series).normal(0, 1, LENGTH).cumsum()
        noise = np.random.default_rng([self.version, len(self.provider)]).normal(0, 3 * (self.version > 0), LENGTH)
        close = (1000 + walk + noise)[numbers]
        # Some stretches do not move, some bars have no volume.
        close = np.where(numbers % 97 >= 77, np.round(close, -1), close)
        contract = contract_for(f"raw_market_data_{timeframe}")
        values = {
            "timestamp": [start + int(number) * Timeframe(timeframe).step for number in numbers],
            "open": close, "close": close, "high": close + numbers % 3, "low": close - numbers % 2,
            "volume": [None if number % 11 == 0 else float(number % 7) for number in numbers],
        }  # fmt: skip
        same = {"asset_pair": asset, "timeframe": timeframe, "provider": self.provider, "price_side": "trade",
                "is_adjusted": False, "is_derived": False}  # fmt: skip
        rows = pa.table(
            {
                column.name: pa.array(
                    values.get(column.name, [same.get(column.name)] * len(numbers)), column.arrow_type
                )
                for column in contract.columns
                if column.provided != "storage"
            }
        )
        # Some bars do not exist.
        return rows.filter(pa.array(numbers % 37 != 36))

    def land(self, lake: DeltaLakeManager) -> None:
        if (rows := self.rows()).num_rows:
            lake.append(f"raw_market_data_{SERIES[self.series][1]}", rows, "run")


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the model; what lands meanwhile is not seen by it."""

    meanwhile: Landing | None


@dataclass(frozen=True, slots=True)
class Compaction:
    """The files of both tables are made fewer."""


@dataclass(frozen=True, slots=True)
class Restore:
    """A table goes back by some versions."""

    timeframe: str
    versions: int


Event = Landing | Run | Compaction | Restore

places = st.one_of(st.just(0), st.integers(0, LENGTH - 1), st.integers(STATE_BARS - 3, STATE_BARS + 3))
landings = st.builds(
    Landing,
    series=st.integers(0, len(SERIES) - 1),
    first=places,
    count=st.sampled_from([1, 1, 2, 30, STATE_BARS, 400, LENGTH]),
    provider=st.sampled_from(["coinbase", "alpha_vantage", "zeta", "beta"]),
    version=st.integers(0, 3),
)
# History before the first run: enough to go on from.
histories = st.builds(
    Landing,
    series=st.integers(0, len(SERIES) - 1),
    first=st.sampled_from([0, 0, 100]),
    count=st.sampled_from([400, LENGTH]),
    provider=st.just("coinbase"),
    version=st.just(0),
)
events: st.SearchStrategy[Event] = st.one_of(
    landings,
    landings,
    st.builds(Run, meanwhile=st.none() | landings),
    st.just(Run(None)),
    st.just(Compaction()),
    st.builds(Restore, timeframe=st.sampled_from(["1h", "1m"]), versions=st.integers(1, 3)),
)


class Workbench:
    """A lake, and the model as Spark would keep it."""

    def __init__(self, folder: Path, project: Project) -> None:
        chosen = make_settings(folder, {"storage": {"engine": "embedded"}})
        self.lake = DeltaLakeManager(chosen.delta_lake.storage_path, chosen)
        self.address = f"{self.lake.storage_path}/silver/market_data_enriched"
        self.project = project
        self.rebuilds = self.increments = 0

    def apply(self, event: Event) -> None:
        if isinstance(event, Landing):
            event.land(self.lake)
        elif isinstance(event, Run):
            self.run(event.meanwhile)
        elif isinstance(event, Compaction):
            for table in self.tables():
                self.lake.optimize_table(table)
        else:
            table = f"raw_market_data_{event.timeframe}"
            if table in self.tables():
                # Nothing can go back to before the table had rows and keep being interesting: two versions make it.
                back = max(self.lake.pin(table).version - event.versions, 0)
                self.lake.restore_table(table, version=back)

    def tables(self) -> list[str]:
        return [info.name for info in self.lake.tables() if info.name.startswith("raw_market_data_")]

    def pins(self) -> dict[str, Pin]:
        return {table: self.lake.pin(table) for table in self.tables()}

    def bars(self, pins: dict[str, Pin]) -> pa.Table:
        """Bronze at the pinned versions, of each bar the version that counts: by pandas."""
        tables = [
            DeltaTable(f"{self.lake.storage_path}/{name}", version=pin.version).to_pyarrow_table()
            for name, pin in pins.items()
        ]
        rows = pa.concat_tables(tables).to_pandas()
        rows["rank"] = rows["provider"].map(lambda name: PRIORITY.index(name) if name in PRIORITY else len(PRIORITY))
        rows = rows.sort_values(["rank", "provider", "ingested_at"], ascending=[True, True, False])
        rows = rows.drop_duplicates(["asset_pair", "timeframe", "timestamp"]).drop(columns="rank")
        return pa.Table.from_pandas(rows, schema=tables[0].schema, preserve_index=False).sort_by("timestamp")

    def stored(self) -> pa.Table:
        return DeltaTable(self.address).to_pyarrow_table()

    def run(self, meanwhile: Landing | None = None) -> None:
        pins = self.pins()
        if not pins:
            return
        if meanwhile:
            meanwhile.land(self.lake)
        plan = Planner(self.lake, pins, self.project).plan(MODEL)
        assert plan is not None
        mark = CommitProperties(custom_metadata={"userMetadata": plan.mark})
        if plan.rebuild:
            self.rebuilds += 1
            made = enriched(self.bars(pins).select(BAR))
            write_deltalake(
                self.address, made, mode="overwrite", partition_by=["timeframe", "asset_pair", "partition_date"],
                commit_properties=mark,
            )  # fmt: skip
        elif plan.rows != "false":
            self.increments += 1
            source = chosen(self.bars(pins), plan.source).select(BAR)
            numbered = "*, row_number() over (partition by asset_pair, timeframe order by timestamp desc) as place"
            before = chosen(self.stored(), plan.before, numbered)
            before = before.filter(pc.less_equal(before["place"], STATE_BARS)).drop_columns(["place", "partition_date"])
            known = before.append_column("is_known", pa.array([True] * before.num_rows))
            news = source.append_column("is_known", pa.array([False] * source.num_rows))
            made = enriched(pa.concat_tables([news, known], promote_options="default"))
            # To delta-rs a literal is plain text.
            where = re.sub(r"(timestamp|date)'([^' ]+) ?([^']*)'", lambda found: literal(*found.groups()), plan.rows)
            write_deltalake(self.address, made, mode="overwrite", predicate=where, commit_properties=mark)


def literal(kind: str, day: str, time: str) -> str:
    return f"'{day}'" if kind == "date" else f"'{day}T{time}'"


def chosen(rows: pa.Table, condition: str, columns: str = "*") -> pa.Table:
    """The rows that meet a condition, before columns are made of them: DuckDB runs it."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows", rows)
        found = connection.sql(f"select {columns} from rows where {condition}").to_arrow_table()
    kinds = [rows.schema.field(name).type if name in rows.column_names else pa.int64() for name in found.column_names]
    return found.cast(pa.schema(list(zip(found.column_names, kinds, strict=True))))


BAR_FIELDS = [pa.field(name, contract_for("raw_market_data_1h").column(name).arrow_type) for name in BAR]
EMPTY = pa.schema([*BAR_FIELDS, *arrow_schema()]).empty_table()


def enriched(rows: pa.Table) -> pa.Table:
    """Bars with indicators, series by series, as the model's table has them."""
    found = [EMPTY]
    for asset, timeframe, _ in SERIES:
        of_series = pc.and_(pc.equal(rows["asset_pair"], asset), pc.equal(rows["timeframe"], timeframe))
        if (part := rows.filter(of_series)).num_rows:
            part = indicators_of(part)
            found += [part.cast(EMPTY.schema)] if part.num_rows else []
    made = pa.concat_tables(found)
    cut = pc.if_else(
        pc.equal(made["timeframe"], "1m"),
        pc.floor_temporal(made["timestamp"], unit="month"),
        pc.floor_temporal(made["timestamp"], unit="year"),
    )
    return made.append_column("partition_date", cut.cast(pa.date32()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("dbt")
    with dbt_environment(folder):
        return prepare([], DeltaLakeManager(str(folder / "lake"), make_settings(folder)))[1].project


def assert_close(found: pa.Table, wanted: pa.Table, names: list[str]) -> None:
    for name in names:
        ours, theirs = found[name], wanted[name]
        if not pa.types.is_floating(theirs.type):
            assert ours.to_pylist() == theirs.to_pylist(), name
            continue
        ours, theirs = (each.to_numpy(zero_copy_only=False).astype(float) for each in (ours, theirs))
        assert (np.isnan(ours) == np.isnan(theirs)).all(), name
        off = np.nan_to_num(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)))
        assert off.max() <= 1e-9, (name, off.max(), int(off.argmax()))


def check(bench: Workbench) -> None:
    """The stored table is the whole history's; a few columns are those of others, too."""
    bars = bench.bars(bench.pins()).select(BAR)
    stored = bench.stored()
    assert stored.num_rows == bars.num_rows
    for asset, timeframe, _ in SERIES:
        mine, theirs = (
            rows.filter(pc.and_(pc.equal(rows["asset_pair"], asset), pc.equal(rows["timeframe"], timeframe)))
            .sort_by("timestamp")
            for rows in (stored, bars)
        )  # fmt: skip
        if not theirs.num_rows:
            assert not mine.num_rows
            continue
        wanted = compute(theirs, SeriesContext.of(asset, timeframe))
        assert_close(mine, wanted, [*BAR, *(column.name for column in COLUMNS)])
        close = theirs["close"].to_pandas()
        high, low = (theirs[name].to_numpy() for name in ("high", "low"))
        others = {
            "sma_20": close.rolling(20).mean(), "sma_200": close.rolling(200).mean(),
            "running_max": close.cummax(), "cumulative_return": close / close[0] - 1,
            "rsi_14": talib.RSI(close.to_numpy(), 14), "atr_14": talib.ATR(high, low, close.to_numpy(), 14),
        }  # fmt: skip
        for name, values in others.items():
            ours = mine[name].to_numpy()
            known = ~np.isnan(ours)
            assert known.sum() >= (np.isfinite(values).sum() if name != "rsi_14" else 0), name
            np.testing.assert_allclose(
                ours[known], np.asarray(values, float)[known], rtol=1e-7, atol=1e-7, err_msg=name
            )


def tell(bench: Workbench, story: list[Event]) -> None:
    for event in story:
        bench.apply(event)
    bench.run()
    check(bench)
    # Nothing was made anew because the lake could not say what had changed.
    assert bench.rebuilds == 1


@settings(max_examples=60)
@given(
    first=st.lists(st.one_of(histories, histories, landings), min_size=1, max_size=3),
    story=st.lists(events, max_size=12),
)
def test_runs_in_between_keep_what_a_refresh_would_make(
    project: Project, first: list[Landing], story: list[Event]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tell(Workbench(Path(folder), project), [*first, Run(None), *story])


WHOLE = Landing(0, 0, LENGTH, "coinbase", 0)
STORIES: dict[str, list[Event]] = {
    "the first bar is restated": [WHOLE, Run(None), Landing(0, 0, 1, "coinbase", 1)],
    "an asset appears": [
        WHOLE, Run(None), Landing(1, 300, 30, "coinbase", 0), Run(None), Landing(1, 0, 300, "coinbase", 0),
    ],
    "a timeframe appears": [WHOLE, Run(None), Landing(2, 0, LENGTH, "coinbase", 0)],
    "a late bar in the middle": [
        Landing(0, 0, 300, "coinbase", 0), Landing(0, 301, 200, "coinbase", 0), Run(None),
        Landing(0, 300, 1, "coinbase", 0),
    ],
    "a better provider": [WHOLE, Run(None), Landing(0, 250, 30, "alpha_vantage", 2)],
    "a worse provider": [WHOLE, Run(None), Landing(0, 250, 30, "zeta", 2)],
    "one lands while a run goes on": [WHOLE, Run(Landing(0, 100, 2, "coinbase", 1))],
    "a restatement is taken back": [WHOLE, Landing(0, 240, 2, "coinbase", 1), Run(None), Restore("1h", 1)],
    "all of a series is taken back": [WHOLE, Landing(1, 0, 30, "coinbase", 0), Run(None), Restore("1h", 1)],
    "backwards": [
        event for first in range(500, -1, -100) for event in (Landing(0, first, 100, "coinbase", 0), Run(None))
    ],
    "a restatement in a partition with enough bars, most of them after it": [
        WHOLE, Run(None), Landing(0, 430, 1, "coinbase", 1),
    ],
    "several series at once": [
        *(Landing(series, 0, LENGTH, "coinbase", 0) for series in range(3)), Run(None),
        Landing(0, 300, 2, "coinbase", 1), Landing(1, 450, 2, "coinbase", 1), Landing(2, 0, 1, "coinbase", 1),
    ],
    # The newer partition alone has fewer bars than the state needs.
    "day by day": [
        Landing(0, 0, 380, "coinbase", 0), Run(None),
        *(event for first in range(380, LENGTH, 30) for event in (Landing(0, first, 30, "coinbase", 0), Run(None))),
    ],
    "everything twice": [WHOLE, WHOLE, Run(None), WHOLE, Run(None), Compaction(), Run(None)],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_story_ends_as_a_refresh_would(project: Project, tmp_path: Path, story: list[Event]) -> None:
    bench = Workbench(tmp_path, project)
    tell(bench, story)
    assert (bench.increments > 0) == (story != STORIES["everything twice"])


def test_what_is_known_already_is_not_made_again(project: Project, tmp_path: Path) -> None:
    bench = Workbench(tmp_path, project)
    tell(bench, STORIES["everything twice"])
    assert DeltaTable(bench.address).version() == 0
    Landing(0, LENGTH - 1, 1, "coinbase", 1).land(bench.lake)
    bench.run()
    assert DeltaTable(bench.address).version() == 1
    made = pd.Series(DeltaTable(bench.address).history(1)[0]["operationMetrics"])["num_added_rows"]
    assert made < LENGTH
