"""Numbers, times and the progress display, as people read them."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from pipelines.cli import progress
from pipelines.cli.progress import Lines, LiveBar, Tally, progress_display
from pipelines.cli.render import counted, duration, instant, listing, percent, size


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0 %"), (0.99999, "99.9 %"), (0.979, "97.9 %"), (0.0, "0.0 %"), (2 / 3, "66.6 %")]
)
def test_only_what_is_whole_is_shown_as_whole(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (14.4, "14 s"), (59.7, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_other_quantities() -> None:
    assert [size(number) for number in (0, 1023, 1024, 5 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [counted(number, "files") for number in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]
    assert instant(datetime(2025, 12, 7, 1, 2, tzinfo=UTC)) == "2025-12-07 01:02"
    assert listing(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_the_tally_says_what_remains() -> None:
    tally = Tally()
    assert "waiting for the first answer" in tally.summary()
    tally.planned(3)
    tally.fetched(300)
    tally.failed()
    assert "300 rows" in tally.summary()
    assert "1 failed" in tally.summary()
    assert "ETA" in tally.summary()
    tally.fetched(0)
    assert tally.summary().endswith("writing")
    tally.landed(300)
    assert tally.summary().endswith("finishing")


def test_lines_come_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(seconds_between=3600) as rare:
        rare.planned(1)
        rare.fetched(10)
    with Lines("pages", seconds_between=0) as frequent:
        frequent.planned(1)
        frequent.fetched(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" · ")[0] for line in err.splitlines()] == ["0/1 pages", "1/1 pages"]


def test_the_bar_is_for_terminals_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=140)
    monkeypatch.setattr(progress, "console", lambda **_: terminal)
    with progress_display(quiet=False) as display:
        assert isinstance(display, LiveBar)
        display.planned(2)
        display.fetched(1234)
        display.note("a remark")
    assert "1,234 rows" in screen.getvalue()
    assert "a remark" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("\x1b[2K")
    assert type(progress_display(quiet=True)) is Tally
