"""The files source: conformance over a CSV, every format against pandas, and files that are broken in every way."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config import PROJECT_ROOT, FilesSettings
from pipelines.contracts import load_contracts
from pipelines.edge import EdgeContext, EdgeResult, validate
from pipelines.errors import SourceError, UnsupportedError
from pipelines.instruments import load_registry
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA, Page, Source, Window
from pipelines.sources.files import FileSpec, FilesSource, csv_files, json_files, parquet_files, read, source
from pipelines.timeframes import Timeframe
from tests.sources.conformance import Row, SourceConformance

REGISTRY = load_registry()
BTC = REGISTRY.resolve("BTCUSD")
SHARED = PROJECT_ROOT.parent / "shared" / "data"
LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC).replace(tzinfo=None)
NOW = datetime(2026, 1, 14, 12, 7, 30, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")


def made(rows: int, start: str = "2024-01-01", freq: str = "min", seed: int = 0) -> pd.DataFrame:
    """Bars as a user's pandas would hold them."""
    random = np.random.default_rng(seed)
    opens, closes = random.uniform(100, 110, (2, rows)).round(4)
    return pd.DataFrame(
        {
            "timestamp": pd.date_range(start, periods=rows, freq=freq, tz="UTC"),
            "open": opens,
            "high": np.maximum(opens, closes) + 0.25,
            "low": np.minimum(opens, closes) - 0.25,
            "close": closes,
            "volume": random.uniform(0, 50, rows),
        }
    )


def bars(path: Path | str, timeframe: Timeframe = Timeframe.M1, **spec: Any) -> FileSpec:
    return FileSpec(path, **{"instrument": BTC, "timeframe": timeframe, **spec})


def rows_of(spec: FileSpec) -> pd.DataFrame:
    return pa.concat_tables([page.table for page in read(spec)], promote_options="default").to_pandas()


def edge(spec: FileSpec, dataset: str = MARKET_DATA) -> EdgeResult:
    table = pa.concat_tables([page.table for page in read(spec)], promote_options="permissive")
    context = EdgeContext(load_contracts()[dataset], "files", NOW, instrument=spec.instrument, timeframe=spec.timeframe)
    return validate(table, context)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    found, expected = (f.astype({"timestamp": "datetime64[us, UTC]"}) for f in (found, expected))
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected, check_exact=True)


def lines(path: Path, *texts: str, end: str = "\n") -> Path:
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return path


HEADER = "timestamp,open,high,low,close,volume"


def line(minute: int, close: str = "100.5") -> str:
    return f"2024-01-01T{minute // 60:02}:{minute % 60:02}:00Z,100.1,101.25,99.5,{close},3.5"


# ---- the real files


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder of real data at {SHARED}")
@pytest.mark.parametrize(
    ("name", "pair", "timeframe", "rows"),
    [
        ("btc_usd_perp_1m_2022-01.csv", "BTCUSD", Timeframe.M1, 45_031),
        ("gbpusd_1m_bid_2012-02.csv", "GBPUSD", Timeframe.M1, 30_117),
        ("eth_btc_5m_2018-01.csv", "ETHBTC", Timeframe.M5, 5_760),
        ("ltc_btc_5m_2018-01.csv", "LTCBTC", Timeframe.M5, 5_760),
    ],
)
def test_real_files_load_whole(name: str, pair: str, timeframe: Timeframe, rows: int) -> None:
    spec = bars(SHARED / name, timeframe, instrument=REGISTRY.resolve(pair), tz="UTC" if "btc_usd" in name else None)
    # pandas' default reader is off in the last digit.
    expected = pd.read_csv(SHARED / name, float_precision="round_trip").rename(columns={"date": "timestamp"})
    expected["timestamp"] = pd.to_datetime(expected["timestamp"], utc=True)
    found = rows_of(spec)
    assert len(found) == rows
    assert ("volume" in expected) != found["volume"].isna().all()
    same(found, expected)
    result = edge(spec)
    assert (result.good.num_rows, result.refused) == (rows, [])
    if pair == "GBPUSD":
        gaps = found["timestamp"].diff().dropna() > timedelta(minutes=1)
        assert gaps.sum() > 100


# ---- conformance


class TestFiles(SourceConformance):
    """A file as a provider of windows."""

    source_class, settings_class = FilesSource, FilesSettings
    subject, timeframe = "BTCUSD", Timeframe.M1

    @pytest.fixture
    def server(self, tmp_path: Path) -> tuple[Path, pd.DataFrame]:
        first = self.start - timedelta(days=4)
        count = (self.now - first) // self.step + 200
        frame = made(count, first.isoformat())
        path = tmp_path / "bars.parquet"
        frame.to_parquet(path)
        return path, frame

    def make(self, server: Any, clock: Callable[[], datetime] | None = None, **settings: Any) -> Source:
        return FilesSource(FilesSettings(**settings), clock=clock or self.clock, spec=bars(server[0]))

    def truth(self, server: Any, start: datetime, end: datetime) -> list[Row]:
        frame = server[1]
        end = min(end, self.timeframe.floor(self.now))
        kept = frame[(frame["timestamp"] >= start) & (frame["timestamp"] < end)]
        return [(row[0].to_pydatetime(), *row[1:]) for row in kept.itertuples(index=False)]


async def test_a_file_answers_only_for_what_it_holds(tmp_path: Path) -> None:
    made(10).to_csv(tmp_path / "a.csv", index=False)
    source = FilesSource(clock=lambda: NOW, spec=bars(tmp_path / "a.csv"))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    window = Window(MARKET_DATA, "BTCUSD", start - timedelta(days=1), start + timedelta(days=1), BTC, Timeframe.M1)
    page = await source.fetch(window)
    assert page.covered == Interval(start, start + timedelta(minutes=10))
    other = REGISTRY.resolve("ETHUSD")
    for wrong in (
        Window(MARKET_DATA, "BTCUSD", start, NOW, BTC, Timeframe.M5),
        Window(MARKET_DATA, "ETHUSD", start, NOW, other, Timeframe.M1),
    ):
        with pytest.raises(UnsupportedError, match="holds"):
            await source.fetch(wrong)
    assert FilesSource().unavailable_reason() == "no file is named; use `lakehouse load PATH`"
    with pytest.raises(UnsupportedError, match="lakehouse load"):
        await FilesSource().fetch(window)


async def test_a_window_keeps_rows_it_cannot_place(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", HEADER, line(0), "oops,1,1,1,1,1", line(1, "abc"), "?,2")
    window = Window(MARKET_DATA, "BTCUSD", datetime(2024, 1, 1, tzinfo=UTC), NOW, BTC, Timeframe.M1)
    page = await FilesSource(clock=lambda: NOW, spec=bars(path)).fetch(window)
    assert page.table.num_rows == 4


# ---- formats against pandas


def write(frame: pd.DataFrame, path: Path) -> Path:
    text = frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif ".csv" in path.name:
        text.to_csv(path, index=False)
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt") as file:
            if ".jsonl" in path.name:
                file.writelines(json.dumps(row) + "\n" for row in text.to_dict("records"))
            else:
                json.dump(text.to_dict("records"), file)
    return path


FORMATS = ("a.csv", "a.csv.gz", "a.parquet", "a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz")
numbers = st.floats(0, 1e9, allow_nan=False).map(lambda x: round(x, 6))
frames = st.lists(
    st.tuples(st.integers(0, 10**6), numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=40
).map(
    lambda rows: pd.DataFrame(
        {
            "timestamp": pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta([row[0] for row in rows], unit="min"),
            **{name: [row[i] for row in rows] for i, name in enumerate((*PRICES, "volume"), start=1)},
        }
    )
)


@pytest.mark.parametrize("name", FORMATS)
@given(frame=frames)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_every_format(tmp_path: Path, name: str, frame: pd.DataFrame) -> None:
    same(rows_of(bars(write(frame, tmp_path / name))), frame)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every buffer small, so that a small file has as many seams as a large one."""
    for module, name, value in (
        (csv_files, "_BLOCK", 1 << 12), (csv_files, "_PAGE_ROWS", 300), (json_files, "_BLOCK", 1 << 12),
        (json_files, "_TEXT_BLOCK", 1 << 9), (json_files, "_ARRAY_ROWS", 100), (parquet_files, "BATCH_ROWS", 300),
        (source, "BATCH_ROWS", 300),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("small_blocks")
def test_large_files_come_in_pages_without_seams(tmp_path: Path, name: str) -> None:
    frame = made(3_000)
    pages = list(read(bars(write(frame, tmp_path / name))))
    assert len(pages) > 5
    assert all(page.table.num_rows <= 300 for page in pages)
    same(pa.concat_tables([page.table for page in pages]).to_pandas(), frame)
    whole = Interval(frame["timestamp"].iloc[0].to_pydatetime(), frame["timestamp"].iloc[-1] + timedelta(minutes=1))
    assert IntervalSet(page.covered for page in pages) == IntervalSet([whole])


def test_folders_and_patterns(tmp_path: Path) -> None:
    frame = made(90)
    (tmp_path / "sub").mkdir()
    write(frame[:30], tmp_path / "a.csv")
    write(frame[30:60].reset_index(drop=True), tmp_path / "b.parquet")
    write(frame[60:], tmp_path / "sub" / "c.jsonl.gz")
    for other in ("README.md", "_SUCCESS", ".hidden.csv"):
        (tmp_path / other).write_text("not data")
    same(rows_of(bars(tmp_path)), frame)
    same(rows_of(bars(str(tmp_path / "*.csv"))), frame[:30])
    same(rows_of(bars(str(tmp_path / "**" / "*.jsonl.gz"))), frame[60:].reset_index(drop=True))


@pytest.mark.parametrize(
    "header", ["Date,O,H,L,C,V", "Open Time;Open;High;Low;Close;Vol", "ts\topen\thigh\tlow\tclose\tVOLUME"]
)
def test_usual_names_are_found(tmp_path: Path, header: str) -> None:
    mark = next(mark for mark in ";\t," if mark in header)
    path = lines(tmp_path / "a.csv", header, line(0).replace(",", mark))
    assert rows_of(bars(path)).iloc[0].tolist()[1:] == [100.1, 101.25, 99.5, 100.5, 3.5]


def test_mapping_names_the_rest(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", "when,first,top,bottom,last,close", line(0).replace("3.5", "9"))
    mapping = {"timestamp": "When", "open": "first", "high": "top", "low": "bottom", "close": "last"}
    found = rows_of(bars(path, mapping=mapping))
    assert found.loc[0, list(PRICES)].tolist() == [100.1, 101.25, 99.5, 100.5]
    assert math.isnan(found.loc[0, "volume"])


def test_columns_that_do_not_fit_are_clear_errors(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", "when,open,high,low", "1,2,3,4")
    with pytest.raises(SourceError, match="no column for timestamp, close; the file has when, open, high, low"):
        rows_of(bars(path))
    with pytest.raises(SourceError, match="close is mapped to 'last', but the file has when"):
        rows_of(bars(path, mapping={"timestamp": "when", "close": "last"}))
    with pytest.raises(SourceError, match="cannot map 'closing'"):
        rows_of(bars(path, mapping={"closing": "low"}))
    with pytest.raises(SourceError, match="both 'Open' and 'open' could be open"):
        rows_of(bars(lines(path, "ts,Open,open,h,l,c", "1,2,3,4,5,6")))
    with pytest.raises(SourceError, match="names a column twice: 'open'"):
        rows_of(bars(lines(path, "ts,open,open,h,l,c", "1,2,3,4,5,6")))
    with pytest.raises(SourceError, match="asset_pair"):
        rows_of(bars(lines(path, HEADER, line(0)), instrument=None))


# ---- time


@pytest.mark.parametrize(
    ("text", "tz", "utc"),
    [
        ("2024-07-01 09:30:00", "America/New_York", "2024-07-01T13:30Z"),
        ("2024-01-02T09:30", "America/New_York", "2024-01-02T14:30Z"),
        ("2024-07-01 09:30:00+02:00", "America/New_York", "2024-07-01T07:30Z"),
        ("2024-07-01T09:30:00.000Z", None, "2024-07-01T09:30Z"),
        ("2024-07-01T09:30:00.000000000Z", None, "2024-07-01T09:30Z"),
        ("20240701T093000Z", None, "2024-07-01T09:30Z"),
        ("1719826200", None, "2024-07-01T09:30Z"),
        ("1719826200.0", None, "2024-07-01T09:30Z"),
        ("1719826200000", None, "2024-07-01T09:30Z"),
        ("1719826200000000", None, "2024-07-01T09:30Z"),
        ("1719826200000000000", None, "2024-07-01T09:30Z"),
    ],
)
def test_times_are_understood(tmp_path: Path, text: str, tz: str | None, utc: str) -> None:
    expected = pd.Timestamp(utc)
    path = lines(tmp_path / "a.csv", "t,o,h,l,c", f"{text},1,2,1,2", f"{text},1,2,1,2")
    found = rows_of(bars(path, tz=tz, mapping={"timestamp": "t"}))
    assert found["timestamp"].tolist() == [expected, expected]
    assert "_defect" not in found
    # The same beside one that cannot be read.
    lines(path, "t,o,h,l,c", f"{text},1,2,1,2", "yesterday,1,2,1,2")
    found = rows_of(bars(path, tz=tz, mapping={"timestamp": "t"}))
    assert found["timestamp"].tolist() == [expected, pd.NaT]
    assert found["_defect"].tolist() == ["", "unreadable timestamp 'yesterday'"]


@given(
    st.integers(0, 15 * 366 * 86_400).map(lambda n: LONG_AGO + timedelta(seconds=n)),
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Tokyo", "Australia/Lord_Howe", "UTC"]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_declared_zones_against_pandas(tmp_path: Path, local: datetime, zone: str, mixed: bool) -> None:
    path = lines(tmp_path / "a.csv", "ts,o,h,l,c", f"{local},1,2,1,2", *(["?,1,2,1,2"] if mixed else []))
    oracle = pd.Series([local]).dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")
    found = rows_of(bars(path, tz=zone))
    assert found["timestamp"].iloc[0] is oracle.iloc[0] or found["timestamp"].iloc[0] == oracle.iloc[0]


@pytest.mark.parametrize("local", ["2024-03-10 02:30:00", "2024-11-03 01:30:00"])
def test_hours_lost_or_doubled_by_a_clock_change_are_refused(tmp_path: Path, local: str) -> None:
    path = lines(tmp_path / "a.csv", HEADER, f"{local},1,2,1,2,3", "2024-03-11 02:30:00,1,2,1,2,3")
    result = edge(bars(path, tz="America/New_York"))
    assert result.good.num_rows == 1
    assert f"{local[:13]}" in result.refused[0].reason
    assert "clock change" in result.refused[0].reason


def test_zoneless_times_stay_so_for_the_edge_to_refuse(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", HEADER, "2024-03-11 02:30:00,1,2,1,2,3")
    assert next(read(bars(path))).table.schema.field("timestamp").type == pa.timestamp("us")
    assert [row.reason for row in edge(bars(path)).refused] == ["timestamp has no time zone"]
    mixed = lines(tmp_path / "b.csv", HEADER, "2024-03-11 02:30:00,1,2,1,2,3", line(1))
    assert "has no time zone" in edge(bars(mixed)).refused[0].reason


def test_daily_dates_are_utc_days_in_every_format(tmp_path: Path) -> None:
    day = pd.Timestamp("2024-03-11", tz="UTC")
    lines(tmp_path / "a.csv", HEADER, "2024-03-11,1,2,1,2,3")
    pq.write_table(pa.table({"date": [day.date()], **{name: [1.0] for name in PRICES}}), tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        for tz in (None, "America/New_York"):
            assert rows_of(bars(tmp_path / name, Timeframe.D1, tz=tz))["timestamp"].tolist() == [day]
        assert edge(bars(tmp_path / name, Timeframe.M1)).good.num_rows == 0


def test_a_number_that_spells_a_date_is_not_taken_for_seconds(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", HEADER, "20240311,1,2,1,2,3")
    assert "looks like a date" in edge(bars(path, Timeframe.D1)).refused[0].reason


def test_parquet_time_types(tmp_path: Path) -> None:
    local = LONG_AGO.replace(year=2024, month=7, hour=9, minute=30)
    for kind, tz in ((pa.timestamp("ns"), "America/New_York"), (pa.timestamp("ms", "America/New_York"), None)):
        values = pa.array([local if tz else local.replace(tzinfo=UTC) + timedelta(hours=4)], kind)
        pq.write_table(pa.table({"ts": values, **{name: [1] for name in PRICES}}), tmp_path / "a.parquet")
        found = rows_of(bars(tmp_path / "a.parquet", tz=tz))
        assert found["timestamp"].tolist() == [pd.Timestamp("2024-07-01T13:30Z")]
        assert found["open"].dtype == float


def test_an_unknown_zone_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="unknown time zone 'EST5'"):
        rows_of(bars(tmp_path / "a.csv", tz="EST5"))


# ---- bad rows: each refused with a reason, the rest lands


def test_bad_values_spoil_only_their_rows(tmp_path: Path) -> None:
    good = [line(n) for n in range(30)]
    bad = [
        line(30, "abc"),
        line(31, ""),
        line(32, "nan"),
        line(33) + ",extra",
        "2024-01-01T00:34:00Z,100.1",
        "not a time,100.1,101.25,99.5,100.5,3.5",
        ",100.1,101.25,99.5,100.5,3.5",
    ]
    path = lines(tmp_path / "a.csv", HEADER, *good[:10], *bad, *good[10:])
    result = edge(bars(path))
    assert result.good.num_rows == 30
    reasons = {str(row.record["timestamp"]): row.reason for row in result.refused}
    assert len(result.refused) == len(bad)
    told = " | ".join(row.reason for row in result.refused)
    for part in (
        "wrong type: close",
        "null close",
        "NaN close",
        "line 15 has 7 fields, not 6",
        "line 16 has 2 fields, not 6: '2024-01-01T00:34:00Z,100.1'",
        "unreadable timestamp 'not a time'",
        "null timestamp",
    ):
        assert part in told, reasons
    assert IntervalSet(page.covered for page in read(bars(path))).length == timedelta(minutes=33)
    # Where a broken line still says when, the refusal knows it too.
    assert datetime(2024, 1, 1, 0, 34, tzinfo=UTC) in {row.event_time for row in result.refused}


def test_a_stray_quote_spoils_only_its_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", HEADER, line(0), line(1) + ',"', line(2), line(3) + '"', line(4))
    result = edge(bars(path))
    assert sorted(t.minute for t in result.good["timestamp"].to_pylist()) == [0, 2, 4]
    assert [row.event_time.minute for row in result.refused if row.event_time] == [1, 3]


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_open_over_blocks_is_a_clear_error(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.csv", HEADER, line(0) + ',"', *(line(n) for n in range(1, 300)))
    with pytest.raises(SourceError, match="line 2 leaves a quote open"):
        list(read(bars(path)))


def test_bad_lines_of_json_spoil_only_themselves(tmp_path: Path) -> None:
    frame = made(20)
    texts = write(frame, tmp_path / "a.jsonl").read_text().splitlines()
    texts[5:5] = ["{not json", "[1, 2]", "", texts[3].replace('"open":', '"open":"x",  "was":')]
    path = lines(tmp_path / "b.jsonl", *texts)
    result = edge(bars(path))
    assert result.good.num_rows == 20
    told = [row.reason for row in result.refused]
    assert "line 6 is not JSON" in told[0]
    assert "line 7 is not a JSON object: '[1, 2]'" in told[1]
    assert "wrong type: open" in told[2]
    (tmp_path / "c.json").write_text("[" + ", ".join([texts[0], "7", texts[1]]) + "]")
    result = edge(bars(tmp_path / "c.json"))
    assert result.good.num_rows == 2
    assert "element 2 is not a JSON object: '7'" in result.refused[0].reason


def test_future_and_still_open_bars_are_left_to_the_edge(tmp_path: Path) -> None:
    made(3, "2026-01-14T12:06:00").to_csv(tmp_path / "a.csv", index=False)
    result = edge(bars(tmp_path / "a.csv"))
    assert result.good.num_rows == 1
    assert [row.reason for row in result.refused] == ["bar not closed yet", "bar not closed yet"]


# ---- broken files: a clear error before anything of them comes out


def first_page(path: Path) -> Page:
    return next(read(bars(path)))


@pytest.mark.parametrize("name", FORMATS)
@given(share=st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_half_written_files_are_refused_whole(tmp_path: Path, name: str, share: float) -> None:
    whole = write(made(60), tmp_path / name).read_bytes()
    cut = whole[: int(len(whole) * share)]
    path = tmp_path / name
    path.write_bytes(cut)
    if name in ("a.csv", "a.jsonl"):
        # Cut at a line end there is nothing to see; cut inside the last number there may not be.
        rest = cut.rsplit(b"\n", 1)[-1]
        if not rest or rest.count(b",") == 5 or rest.endswith(b"}"):
            return
    with pytest.raises(SourceError, match=name):
        first_page(path)


def test_a_last_line_cut_in_its_last_value_is_noticed(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.csv", "ts,o,h,l,c", *(f"{1719826200 + 60 * n},1.5001,1.6001,1.4001,1.5002" for n in range(50))
    )
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SourceError, match="shorter than any before it"):
        first_page(path)
    # A missing line end alone is no fault.
    lines(path, HEADER, *(line(n) for n in range(50)), end="")
    assert first_page(path).table.num_rows == 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\n\n", "empty"),
        ("a.csv", f"{HEADER}\n{line(0)}\n2024\xff,1,2,1,2,3\n".encode("latin-1"), "line 3 is not UTF-8"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b'{"ts": 1, "o": 2', "cut in its last line, at byte 0"),
        ("a.json", b'[{"ts": 1}, {"ts"', "no end, at byte 17"),
        ("a.json", b'[{"ts": 1} {"ts": 2}]', "broken or cut near character 11"),
        ("a.json", b"[1, 2] x ]", "broken or cut"),
        ("a.parquet", b"PAR1" + b"x" * 100, "not a complete Parquet file"),
        ("a.parquet", b"", "not a complete Parquet file"),
        ("a.csv.gz", b"plain text", "cut or damaged"),
        ("a.csv.gz", gzip.compress(b"a,b\n" * 999, mtime=0)[:-9], "cut or damaged"),
    ],
)  # fmt: skip
def test_unreadable_files_name_the_file_and_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        list(read(bars(path)))
    assert str(path) in str(caught.value)


def test_a_damaged_parquet_is_not_read_short(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pandas(made(5_000)), path, row_group_size=1_000, compression="zstd")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2_000] = b"\0" * 2_000
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet: (damaged|not a complete)"):
        list(read(bars(path)))


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# hello")
    with pytest.raises(SourceError, match="no file at"):
        read(bars(tmp_path / "missing.csv"))
    with pytest.raises(SourceError, match="no file at"):
        read(bars(str(tmp_path / "*.csv")))
    with pytest.raises(SourceError, match="cannot tell the format"):
        read(bars(tmp_path / "notes.md"))
    with pytest.raises(SourceError, match="no data file in the folder"):
        read(bars(tmp_path))
    with pytest.raises(UnsupportedError, match="unknown dataset 'bars'"):
        read(bars(tmp_path, dataset="bars"))
    with pytest.raises(UnsupportedError, match="need a timeframe"):
        read(FileSpec(tmp_path, instrument=BTC))


def test_a_header_alone_is_a_file_without_rows(tmp_path: Path) -> None:
    assert sum(page.table.num_rows for page in read(bars(lines(tmp_path / "a.csv", HEADER)))) == 0
    (tmp_path / "a.json").write_text("[]\n")
    assert sum(page.table.num_rows for page in read(bars(tmp_path / "a.json"))) == 0


# ---- coverage


def test_gaps_inside_a_file_are_vouched_for_but_not_between_files(tmp_path: Path) -> None:
    frame = made(100)
    write(frame.drop(index=range(20, 30)).iloc[:40], tmp_path / "a.csv")
    write(frame[80:], tmp_path / "b.csv")
    start = datetime(2024, 1, 1, tzinfo=UTC)
    covered = IntervalSet(page.covered for page in read(bars(tmp_path)))
    expected = [(0, 50), (80, 100)]
    assert covered == IntervalSet(Interval(*(start + timedelta(minutes=n) for n in part)) for part in expected)


@pytest.mark.usefixtures("small_blocks")
def test_a_file_out_of_order_vouches_only_after_its_last_row(tmp_path: Path) -> None:
    frame = made(3_000)
    write(frame[::-1], tmp_path / "a.parquet")
    pages = list(read(bars(tmp_path / "a.parquet")))
    *before, last = pages
    assert not any(page.covered for page in before)
    assert last.table.num_rows == 0
    assert last.covered.length == timedelta(minutes=3_000)


# ---- other datasets, and the asset from a column


def test_the_asset_may_be_a_column(tmp_path: Path) -> None:
    frame = pd.concat([made(50).assign(symbol="BTCUSD"), made(50, seed=1).assign(symbol="ETHUSD")])
    frame = frame.sort_values("timestamp", kind="stable").reset_index(drop=True)
    write(frame, tmp_path / "a.csv")
    pages = list(read(bars(tmp_path / "a.csv", instrument=None)))
    assert [set(page.table["asset_pair"].to_pylist()) for page in pages] == [{"BTCUSD"}, {"ETHUSD"}]
    assert all(page.covered.length == timedelta(minutes=50) for page in pages)
    assert edge(bars(tmp_path / "a.csv", instrument=None)).good.num_rows == 100


EVENTS: dict[str, list[dict[str, Any]]] = {
    "raw_ai_decisions": [
        {
            "decision_id": f"d{n}", "asset_pair": "BTCUSD", "timestamp": f"2024-01-01T0{n}:00:00Z", "action": "BUY",
            "confidence": 0.75, "strategy": "voting", "providers": ["a", "b"],
            "votes": [
                {"action": "BUY", "provider": "a", "confidence": 0.5},
                {"provider": "b", "action": "HOLD", "confidence": 1},
            ],
            "timeframe": "4h", "reasoning": 'why, "so"', "model_version": "1",
        }
        for n in range(3)
    ],
    "raw_trade_executions": [
        {
            "execution_id": f"e{n}", "order_id": "o1", "decision_id": None if n else "d1", "asset_pair": "BTCUSD",
            "timestamp": 1719826200000 + n, "side": "SELL", "quantity": 0.5, "price": 60000, "fee": 0,
            "fee_currency": "USD", "venue": "x", "status": "filled",
        }
        for n in range(3)
    ],
    "raw_news_sentiment": [
        {
            "article_id": 17 + n, "asset_pair": "BTCUSD", "timestamp": f"2024-01-01T0{n}:00:00+01:00", "title": "T",
            "url": "https://news.example/1", "source_name": "s", "summary": 'line one, "two"',
            "sentiment_score": -0.5, "sentiment_label": "Bearish", "relevance_score": 1, "topics": ["t"],
        }
        for n in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("dataset", list(EVENTS))
@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_events_load_like_bars(tmp_path: Path, dataset: str, form: str, named: bool) -> None:
    path, rows = tmp_path / f"a.{form}", EVENTS[dataset]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        lines(path, *(json.dumps(row) for row in rows))
    else:
        nested = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pd.DataFrame(nested).to_csv(path, index=False)
    spec = FileSpec(path, dataset, instrument=BTC if named else None)
    result = edge(spec, dataset)
    assert result.refused == []
    found = result.good.to_pylist()
    assert len(found) == 3
    for name, value in rows[1].items():
        if name == "votes":
            assert found[1][name][0] == {"provider": "a", "action": "BUY", "confidence": 0.5}
        elif name == "timestamp":
            oracle = pd.Timestamp(value, unit="ms", tz="UTC") if isinstance(value, int) else pd.Timestamp(value)
            assert found[1][name] == oracle
        else:
            assert found[1][name] == (str(value) if name == "article_id" else value)


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    rows = [
        {**row, "providers": "a|b" if n == 1 else row["providers"]} for n, row in enumerate(EVENTS["raw_ai_decisions"])
    ]
    path = lines(tmp_path / "a.jsonl", *(json.dumps(row) for row in rows))
    result = edge(FileSpec(path, "raw_ai_decisions", instrument=BTC), "raw_ai_decisions")
    assert result.good.num_rows == 2
    assert "providers is not" in result.refused[0].reason


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    write(made(10), tmp_path / "a.csv.gz")
    list(read(bars(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.gz"]
    shutil.rmtree(tmp_path)
