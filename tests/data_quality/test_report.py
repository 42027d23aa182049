"""The quality report tells what was planted, and its page stands by itself in a real browser, large and small."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.gaps import DayCount, SeriesGaps
from pipelines.data_quality.report import QualityReport, gather
from pipelines.data_quality.report.heatmap import class_of, heat_maps
from pipelines.data_quality.report.page import headlines, page
from pipelines.data_quality.report.words import lasting, share
from pipelines.intervals import Interval
from pipelines.storage import DeltaLakeManager, QualityResult
from pipelines.timeframes import Timeframe
from pipelines.wording import counted
from tests.browser import Page, open_page
from tests.cli.shell import run
from tests.conftest import make_settings
from tests.data_quality.troubled_lake import END, HOLE, HOSTILE, START, Troubles, make

DESK, PHONE = 1280, 390


@pytest.fixture
def dlq(tmp_path: Path) -> DeadLetterQueue:
    return DeadLetterQueue(tmp_path / "dlq")


@pytest.fixture
def told(embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue) -> Troubles:
    return make(embedded_lake, dlq)


def report_on(lake: DeltaLakeManager, dlq: DeadLetterQueue) -> QualityReport:
    return gather(lake, dlq, Interval(START, END), synthetic=False, now=END + timedelta(minutes=10))


def look_at(html: str, folder: Path, width: int = DESK) -> Page:
    place = folder / "page.html"
    place.write_text(html, encoding="utf-8")
    return open_page(place, width=width)


def test_each_trouble_is_told(embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue, told: Troubles) -> None:
    found = report_on(embedded_lake, dlq)
    assert {f"{each.asset_pair} {each.timeframe.value}": each.missing for each in found.gaps} == told.missing
    assert {each.asset_pair for each in found.freshness if not each.fresh} == {"EURUSD"}
    assert (found.refused.rows, len(found.refused.unreadable)) == (told.refused, 1)
    assert found.restated.total == told.restated
    assert [(each.bars, each.beyond) for each in found.agreement] == [(200, told.apart)]
    assert [row["check_name"] for row in found.checks] == ["stale price"]
    assert {each.label: each.value for each in headlines(found)} == {
        "completeness": "98.41 %",
        "freshness": "2",
        "dead letters": "2",
        "restatements": "3",
        "providers": "5",
        "checks": "0",
    }
    document = json.loads(json.dumps(found.as_dict(), default=str))
    hole = next(run for each in document["gaps"] for run in each["runs"] if run["bars"] == told.missing["BTCUSD 1h"])
    assert (hole["start"], hole["end"]) == (HOLE[0].isoformat(), HOLE[1].isoformat())
    days = {day["day"]: day for each in document["gaps"] if each["asset_pair"] == "BTCUSD" for day in each["days"]}
    assert days["2025-11-12"]["expected"] in (24, 1)


def test_a_lake_in_s3_is_reported_on_as_one_on_a_disk(
    s3_server: object, s3_lake_path: str, tmp_path: Path, dlq: DeadLetterQueue
) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(s3_lake_path, settings)
    told = make(lake, dlq)
    found = report_on(lake, dlq)
    assert {f"{each.asset_pair} {each.timeframe.value}": each.missing for each in found.gaps} == told.missing
    assert (found.restated.total, found.agreement[0].beyond) == (told.restated, told.apart)
    assert s3_lake_path in page(found)


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_page_stands_by_itself(
    embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue, told: Troubles, tmp_path: Path, width: int
) -> None:
    seen = look_at(page(report_on(embedded_lake, dlq)), tmp_path, width)
    assert seen.errors == []
    assert seen.outside == []
    # Nothing sticks out sideways: tables scroll inside themselves.
    assert seen.scroll_width == width
    assert seen.title.startswith("Data quality of ")
    for text in ("98.41 %", "provider has none", "rejected", "is cut", "stale price", "alpha_vantage / coinbase"):
        assert text in seen.text
    assert f"{told.missing['BTCUSD 1h']}\t" in seen.text


def test_what_a_source_wrote_is_shown_and_not_run(
    embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue, told: Troubles, tmp_path: Path
) -> None:
    html = page(report_on(embedded_lake, dlq))
    assert HOSTILE not in html
    assert told.refused
    seen = look_at(html, tmp_path)
    assert "<script>" in seen.text
    assert seen.errors == []


def test_an_empty_lake_has_a_page_too(embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue, tmp_path: Path) -> None:
    found = report_on(embedded_lake, dlq)
    assert found.gaps == []
    seen = look_at(page(found), tmp_path)
    assert seen.errors == []
    assert "There are no bars in this span." in seen.text


def test_only_the_newest_run_of_a_check_counts(embedded_lake: DeltaLakeManager, dlq: DeadLetterQueue) -> None:
    def edge(name: str, failed: int) -> QualityResult:
        return QualityResult(
            "edge", "raw_market_data", name, "critical", not failed, 24, failed, "raw_market_data_1h", "BTCUSD", "1h"
        )

    log = embedded_lake.quality
    log.record([edge("contract", 2), edge("high < low", 2)], "first")
    assert [row["check_name"] for row in report_on(embedded_lake, dlq).checks] == ["contract", "high < low"]
    log.record([edge("contract", 0)], "second")
    assert report_on(embedded_lake, dlq).checks == []


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path, {"storage": {"engine": "embedded"}, "delta_lake": {"storage_path": f"{tmp_path}/real"}}
    )
    make(DeltaLakeManager(settings.delta_lake.storage_path, settings), DeadLetterQueue(settings.dlq.path))
    where = {"LAKEHOUSE__QUALITY__PATH": str(tmp_path / "quality")}
    result = run(tmp_path, "quality", **where)
    assert result.exit_code == 0, result.output
    written = tmp_path / "quality" / "quality_report.html"
    assert str(written) in result.output
    assert re.search(r"completeness +98.* missing", result.output)
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    assert open_page(written).errors == []
    manager = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    assert manager.quality.read(kind="freshness").num_rows == 8

    options = ("--start", "2025-11-03", "--end", "2025-11-10", "--assets", "btc-usd", "--timeframe", "1h", "--json")
    document = json.loads(run(tmp_path, "quality", *options, **where).stdout)
    assert [(each["asset_pair"], each["expected"], each["missing"]) for each in document["gaps"]] == [
        ("BTCUSD", 168, 0)
    ]
    assert document["restatements"]["total"] == 3
    wrong = run(tmp_path, "quality", "--days", "3", "--start", "2025-11-03", **where)
    assert wrong.exit_code == 2
    assert "not both" in wrong.output
    blocked = run(tmp_path, "quality", "--output", str(tmp_path / "dlq" / "x" / "\0"), **where)
    assert blocked.exit_code != 0


def days_of(start: date, *counts: tuple[int, int]) -> tuple[DayCount, ...]:
    return tuple(DayCount(start + timedelta(days=place), *each) for place, each in enumerate(counts) if each[0])


def test_the_heat_map_keeps_its_days_under_each_other() -> None:
    whole = Interval(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 5, tzinfo=UTC))
    early = SeriesGaps("B", Timeframe.H1, whole, 48, 47, (), 0, days_of(date(2025, 1, 1), (24, 24), (0, 0), (24, 23)))
    late = SeriesGaps("A", Timeframe.H1, whole, 48, 24, (), 0, days_of(date(2025, 1, 3), (24, 0), (24, 24)))
    [found] = heat_maps([early, late])
    first, second = found.rows
    assert [row.asset_pair for row in found.rows] == ["A", "B"]
    assert [(cell.x // found.cell, cell.kind) for cell in first.cells] == [(2, "none"), (3, "whole")]
    assert [(cell.x // found.cell, cell.kind) for cell in second.cells] == [(0, "whole"), (1, "closed"), (2, "much")]
    assert [mark.text for mark in found.marks] == ["2025-01-01"]


@pytest.mark.parametrize(
    ("expected", "present", "kind"),
    [
        (0, 0, "closed"),
        (1440, 0, "none"),
        (1440, 1439, "most"),
        (1440, 1440, "whole"),
        (10, 5, "half"),
        (10, 4, "little"),
    ],
)
def test_a_day_is_whole_only_if_it_is(expected: int, present: int, kind: str) -> None:
    assert class_of(expected, present) == kind


def test_words() -> None:
    assert [share(part) for part in (1.0, 0.99999, 0.5)] == ["100 %", "99.99 %", "50 %"]
    assert [counted(number, "series") for number in (1, 2)] == ["1 series", "2 series"]
    times = (timedelta(seconds=59), timedelta(minutes=3), timedelta(hours=2, minutes=5), timedelta(days=1, hours=1))
    assert [lasting(time) for time in times] == ["59 s", "3 min", "2 h 5 min", "1 d 1 h"]
