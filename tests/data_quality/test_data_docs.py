"""Data Docs: pages that stand on their own, say what was found, and hold nothing of any row."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest

from pipelines.data_quality.lake_validation import TableValidation, validate_table
from pipelines.data_quality.quality_project import QualityProject
from pipelines.storage import DeltaLakeManager
from pipelines.storage.scan import Selection
from tests.browser import open_page
from tests.conftest import make_settings
from tests.storage.bars import bars

TABLE, CLEAN = "raw_market_data_1h", "raw_market_data_1d"
# A price that nothing else has, in a row that fails.
TELLTALE = 987_654_321.125
PHONE = 390


def validated(manager: DeltaLakeManager, project: QualityProject, table: str, run: str = "run-1") -> TableValidation:
    version = next(info.version for info in manager.tables() if info.name == table)
    return validate_table(manager, project, table, version, Selection(), run)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> DeltaLakeManager:
    settings = make_settings(tmp_path_factory.mktemp("docs"), {"storage": {"engine": "embedded"}})
    manager = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    frame = bars(count=200).to_pandas()
    frame.loc[[3, 77], ["open", "high", "low", "close"]] = TELLTALE
    manager.append(TABLE, pa.Table.from_pandas(frame, schema=bars(count=1).schema, preserve_index=False), "r1")
    manager.append(CLEAN, bars("1d", count=50), "r2")
    return manager


@pytest.fixture(scope="module")
def site(lake: DeltaLakeManager) -> Path:
    """The folder of pages of one run over a table with defects and one without."""
    project = QualityProject(lake.settings.quality.path, keep_runs=20)
    assert not validated(lake, project, TABLE).ok
    assert validated(lake, project, CLEAN).ok
    return project.build_docs().parent


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given["id"]} if given.get("id") else set()
        self.found += [str(given[name]) for name in ("href", "src", "action", "data-href") if given.get(name)]


def links_of(page: Path) -> Links:
    reader = Links()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def page_of(site: Path, table: str) -> Path:
    (found,) = (site / "validations").rglob(f"*{table}.html")
    return found


def test_there_is_a_page_for_each_result_and_suite(site: Path) -> None:
    assert len(list((site / "validations").rglob("*.html"))) == 2
    assert [page.name for page in (site / "expectations").rglob("*.html")] == ["market_data_quality.html"]


def test_every_link_leads_to_a_page_of_the_site_and_every_page_is_reached(site: Path) -> None:
    reached, waiting = set[Path](), [site / "index.html"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        read = links_of(page)
        for link in read.found:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            assert not parts.scheme, f"{page}: {link}"
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{page}: {link}"
            if parts.fragment:
                assert parts.fragment in links_of(target).ids, f"{page}: {link}"
            waiting.append(target)
    assert reached == {page.resolve() for page in pages(site)}


def test_no_file_of_the_site_names_another_host_or_has_a_script(site: Path) -> None:
    for path in site.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?:https?:)?//\w|<script|\bon\w+=|@import", text), path
            assert text.strip().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("width", [1280, PHONE])
def test_a_browser_shows_them_without_asking_anybody(site: Path, width: int) -> None:
    for page in pages(site):
        seen = open_page(page, width=width)
        assert (seen.errors, seen.outside) == ([], [])
        assert seen.scroll_width <= width, page
    seen = open_page(page_of(site, TABLE), width=width)
    assert "Validation result" in seen.title
    assert "no row is blamed for “high < low”: high >= low" in seen.text
    assert "2 unexpected values found" in seen.text
    # By an oracle that has not seen the code: of the expectations, one fails.
    statistics = dict(re.findall(r"(Evaluated|Successful|Unsuccessful) Expectations\s+(\d+)", seen.text))
    assert int(statistics["Unsuccessful"]) >= 1
    assert int(statistics["Evaluated"]) == int(statistics["Successful"]) + int(statistics["Unsuccessful"])
    index = open_page(site / "index.html", width=width).text
    assert TABLE in index
    assert "run-1" in index


def test_a_share_is_of_all_rows_whatever_column_carries_the_rule(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    manager = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    frame = bars(count=200).to_pandas()
    frame.loc[[50, 120], ["open", "high", "low", "close"]] *= 1.3
    manager.append(TABLE, pa.Table.from_pandas(frame, schema=bars(count=1).schema, preserve_index=False), "r1")
    project = QualityProject(settings.quality.path, keep_runs=20)
    assert validated(manager, project, TABLE).ok
    text = open_page(page_of(project.build_docs().parent, TABLE)).text
    found = re.findall(r"(\d+) unexpected values? found\. \W*([\d.]+)% of 400 total rows", text)
    assert found == [("2", "0.5")]


def test_nothing_of_a_row_gets_in(site: Path, lake: DeltaLakeManager) -> None:
    letters = [path.read_text(encoding="utf-8") for path in Path(lake.settings.dlq.path).glob("*.json")]
    assert any(str(TELLTALE) in text for text in letters)
    digits = str(int(TELLTALE))
    written = [path for path in site.parent.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if digits in path.read_text(encoding="utf-8").replace(",", "")] == []


def test_old_runs_go_with_their_pages(lake: DeltaLakeManager, tmp_path: Path) -> None:
    project = QualityProject(tmp_path, keep_runs=2)
    for run in ("run-a", "run-b", "run-c"):
        for table in (TABLE, CLEAN):
            validated(lake, project, table, run)
        project.forget_old()
        project.build_docs()
    for folder in (tmp_path / "gx" / "validations", tmp_path / "data_docs" / "validations"):
        runs = {path.relative_to(folder).parts[1] for path in folder.rglob("lake-*")}
        assert runs == {"run-b", "run-c"}
    index = (tmp_path / "data_docs" / "index.html").read_text(encoding="utf-8")
    assert tuple(run in index for run in ("run-a", "run-b", "run-c")) == (False, True, True)


def test_pages_are_built_once(lake: DeltaLakeManager, tmp_path: Path) -> None:
    project = QualityProject(tmp_path, keep_runs=5)
    validated(lake, project, CLEAN, "first")
    project.build_docs()
    (page,) = (tmp_path / "data_docs" / "validations").rglob("*.html")
    page.write_text("<!DOCTYPE html>kept", encoding="utf-8")
    validated(lake, project, CLEAN, "second")
    project.build_docs()
    assert page.read_text(encoding="utf-8") == "<!DOCTYPE html>kept"
    assert len(list((tmp_path / "data_docs" / "validations").rglob("*.html"))) == 2


def test_a_folder_without_results_has_pages_all_the_same(tmp_path: Path) -> None:
    index = QualityProject(tmp_path / "new", keep_runs=5).build_docs()
    assert "None yet" in index.read_text(encoding="utf-8")


def test_nobody_is_called_and_nothing_is_left_elsewhere(
    lake: DeltaLakeManager, tmp_path: Path, cut_off: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    project = QualityProject(tmp_path / "quality", keep_runs=5)
    validated(lake, project, TABLE)
    project.build_docs()
    assert [left for folder in cut_off for left in folder.iterdir()] == []
    assert {path.name for path in (tmp_path / "quality").iterdir()} == {"gx", "data_docs"}
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
