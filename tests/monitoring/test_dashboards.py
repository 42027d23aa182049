"""Dashboards: what the code makes is what Grafana gets; every query finds data in a real run, and it is the lake's."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from pipelines.config import PROJECT_ROOT
from pipelines.monitoring.dashboards import probe
from pipelines.monitoring.dashboards.__main__ import BOARDS, files, main
from pipelines.monitoring.dashboards.panels import Board, anchor
from pipelines.monitoring.dashboards.queries import rise
from tests.monitoring.oracle import records
from tests.monitoring.panels import Shown, dead_letters, failures, figures, table_bytes, tables
from tests.monitoring.watched import DAG, RUN, TASKS, Watched, traded, watched
from tests.servers.kafka import Broker
from tests.servers.prometheus import program

GRAFANA = PROJECT_ROOT / "monitoring" / "grafana"
FIVE = ["Ingestion rate", "Data-quality failure rate", "Latency", "Storage growth", "Provider distribution"]
each_board = pytest.mark.parametrize("board", BOARDS, ids=[board.uid for board in BOARDS])


def loaded(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / board.file).read_text(encoding="utf-8"))
    return found


def drawn(board: Board) -> list[dict[str, Any]]:
    return [panel for panel in loaded(board)["panels"] if panel["type"] != "row"]


# ---- the files


def test_the_files_are_what_the_code_makes() -> None:
    assert main(["--check"]) == 0


def test_a_stale_file_is_noticed_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 0
    stale = tmp_path / "monitoring" / "grafana" / "pipeline_health.json"
    stale.write_text("{}", encoding="utf-8")
    assert main(["--root", str(tmp_path), "--check"]) == 1
    assert str(stale) in capsys.readouterr().err
    assert main(["--root", str(tmp_path)]) == 0
    assert {path.read_text(encoding="utf-8") for path in files(tmp_path)} == set(files(tmp_path).values())


@each_board
def test_grafanas_sdk_reads_the_file_and_gives_it_back(board: Board) -> None:
    register_default_plugins()
    text = (GRAFANA / board.file).read_text(encoding="utf-8")
    again = json.loads(json.dumps(Dashboard.from_json(json.loads(text)), cls=JSONEncoder))
    # What it adds are a plugin's defaults, and what only variables of intervals have.
    assert added(json.loads(text), again) <= {"custom", "auto", "auto_min", "auto_count"}


def added(given: Any, again: Any) -> set[str]:
    """Assert that all that was given is there unchanged; return the names of what came on top."""
    assert type(given) is type(again)
    if isinstance(given, dict):
        assert given.keys() <= again.keys()
        return (again.keys() - given.keys()).union(*(added(given[name], again[name]) for name in given))
    if isinstance(given, list):
        return set().union(*(added(*pair) for pair in zip(given, again, strict=True)))
    assert given == again
    return set()


def test_the_five_main_panels_come_first() -> None:
    assert [panel["title"] for panel in drawn(BOARDS[0])][:5] == FIVE


def test_a_failure_rate_below_1_percent_is_green_and_above_5_red() -> None:
    steps = drawn(BOARDS[0])[1]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == [(None, "green"), (0.01, "yellow"), (0.05, "red")]


@each_board
def test_panels_lie_side_by_side(board: Board) -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in loaded(board)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken.update(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
    assert taken.most_common(1)[0][1] == 1
    # No row of the grid is left empty.
    assert {y for _, y in taken} == set(range(max(y for _, y in taken) + 1))


@each_board
def test_every_panel_says_what_it_shows_what_to_do_and_what_is_missing(board: Board) -> None:
    for panel in drawn(board):
        shows, _, act = panel["description"].partition("\n\n**")
        assert len(shows) > 20, panel["title"]
        assert act.startswith(("When it is red:**", "If it looks wrong:**")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_board
def test_queries_use_the_boards_own_variables(board: Board) -> None:
    declared = {each["name"] for each in loaded(board)["templating"]["list"]}
    used = {name for panel in board.panels() for query in panel.queries for name in re.findall(r"\$(\w+)", query.expr)}
    assert used | {"datasource", "docs"} == declared


def test_links_lead_to_headings_that_are_there() -> None:
    headings = {page: anchors(page) for page in ("dashboards.md", "operations.md")}
    for panel in itertools.chain.from_iterable(map(drawn, BOARDS)):
        page, _, name = panel["links"][0]["url"].removeprefix("${docs}/").partition("#")
        assert headings[page][name] == 1, panel["title"]
    for panel in itertools.chain.from_iterable(board.panels() for board in BOARDS):
        assert not panel.runbook or headings["operations.md"][panel.runbook], panel.title


def anchors(page: str) -> Counter[str]:
    text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
    return Counter(anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE))


def test_grafana_is_told_where_the_dashboards_and_their_data_are() -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    (provider,) = provisioned("dashboards/lakehouse.yml")["providers"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    for board in BOARDS:
        (variable,) = [each for each in loaded(board)["templating"]["list"] if each["type"] == "datasource"]
        assert (variable["query"], variable["current"]["value"]) == (source["type"], source["uid"])
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    scraped = yaml.safe_load((PROJECT_ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    # Where the compose file puts them.
    mounts = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    for board in BOARDS:
        assert f"./monitoring/grafana/{board.file}:{provider['options']['path']}/{board.file}:ro" in mounts


def provisioned(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((GRAFANA / "provisioning" / name).read_text(encoding="utf-8"))
    return found


# ---- queries of their own, tried with Prometheus' own tool


@pytest.mark.parametrize(
    ("looks", "rows", "expected"),
    [
        pytest.param("1x120", "7x120", 0, id="nothing landed"),
        pytest.param("1x120", "7x100 30x20", 23, id="rows landed"),
        pytest.param("1x120", "_x100 30x20", 30, id="a new series counts in full"),
        pytest.param("_x100 1x20", "_x100 30x20", 0, id="what was there before anybody looked does not count"),
        pytest.param("1x120", "900x90 40x10 45x20", 5, id="a table was restored to fewer rows"),
        pytest.param("1x120", "900x90 40x30", 0, id="it was restored, and nothing landed since"),
        pytest.param("1x20 _x80 1x20", "7x20 _x80 9x20", 0, id="nobody looked for long"),
    ],
)
def test_a_rise_is_what_landed_to_the_last_row(tmp_path: Path, looks: str, rows: str, expected: float) -> None:
    series = {"pipeline_exporter_last_look_timestamp_seconds": looks, "rows_total": rows}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}{{job="exporter",instance="a"}}', "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"sum ({rise('rows_total', '1h')})",
                "eval_time": "115m",
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump({"tests": [case]}), encoding="utf-8")
    done = subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- what they show of a real run


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, kafka: Broker) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("seen"), kafka) as found:
        yield found


@pytest.fixture(scope="module")
def shown(seen: Watched) -> Shown:
    return Shown(BOARDS, seen.prometheus.url)


@pytest.mark.kafka
def test_every_query_of_every_panel_has_data(shown: Shown) -> None:
    print("\n".join(probe.report(shown.answers)))  # noqa: T201 - the table is what one wants to see of it
    assert [
        (each.panel, each.query.legend, each.error) for each in shown.answers if each.error or not each.values
    ] == []
    assert {each.panel for each in shown.answers} == {panel.title for board in BOARDS for panel in board.panels()}


@pytest.mark.kafka
def test_the_probe_prints_a_line_per_query(seen: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--probe", seen.prometheus.url]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(len(panel.queries) for board in BOARDS for panel in board.panels())
    assert (
        last == f"{len(lines)} queries of {sum(1 for board in BOARDS for _ in board.panels())} panels, 0 without data"
    )


@pytest.mark.kafka
def test_the_ingestion_rate_is_what_landed_in_the_last_hour(seen: Watched, shown: Shown) -> None:
    landed: Counter[str] = Counter()
    for (asset, *key), rows in records(seen.lake).items():
        landed[asset] += rows - seen.before.get((asset, *key), 0)
    assert landed["ETHUSD"] > 0 < landed["BTCUSD"]
    assert shown.series("Ingestion rate", "{{asset_pair}}") == landed


@pytest.mark.kafka
def test_the_rate_of_the_past_is_none_and_new_assets_count_in_full(seen: Watched) -> None:
    (query,) = next(panel for panel in BOARDS[0].panels() if panel.title == FIVE[0]).queries
    asked = {"query": query.filled({}), "start": time.time() - 7200, "end": time.time(), "step": 60}
    found = seen.prometheus.get("/api/v1/query_range", **{name: str(value) for name, value in asked.items()})["result"]
    values = {each["metric"]["asset_pair"]: [float(value) for _, value in each["values"]] for each in found}
    assert set(values["BTCUSD"][:110]) == {0.0}
    assert len(values["ETHUSD"]) <= 2


@pytest.mark.kafka
def test_the_failure_rate_is_that_of_the_lakes_results(seen: Watched, shown: Shown) -> None:
    expected = failures(seen.lake)
    assert shown.series("Data-quality failure rate", "{{suite}}") == {
        suite: pytest.approx(failed / ran) for suite, (failed, ran) in expected.items()
    }
    failed, ran = (sum(column) for column in zip(*expected.values(), strict=True))
    assert 0 < failed < ran
    assert shown.one("Data-quality failure rate", "all") == pytest.approx(failed / ran)


@pytest.mark.kafka
def test_latencies_lie_where_the_gateway_has_them(seen: Watched, shown: Shown) -> None:
    for name, metric in (("ingestion", "pipeline_ingestion_duration"), ("API request", "api_request_duration")):
        below, at_most = bounds(seen.pushgateway.metrics(), f"{metric}_seconds_bucket")
        quantiles = [shown.one("Latency", f"{name} p{each}") for each in (50, 95, 99)]
        assert below <= quantiles[0] <= quantiles[1] <= quantiles[2] <= at_most, name


def bounds(text: str, metric: str) -> tuple[float, float]:
    """Return between which bounds of a histogram, of all labels together, its observations lie."""
    buckets: Counter[float] = Counter()
    for bound, count in re.findall(rf'^{metric}{{.*le="([^"]+)".*}} (\S+)$', text, re.MULTILINE):
        buckets[float(bound)] += int(count)
    order = sorted(buckets)
    first = next(index for index, bound in enumerate(order) if buckets[bound])
    last = next(bound for bound in order if buckets[bound] == buckets[order[-1]])
    return order[first - 1] if first else 0.0, last


@pytest.mark.kafka
def test_storage_growth_is_what_the_disk_took_in_a_day(seen: Watched, shown: Shown) -> None:
    grown = {name: (size - seen.sizes.get(name, 0)) / 1e9 for name, size in table_bytes(seen.lake).items()}
    # Prometheus draws what it knows of the day out to its whole length, by less than a part in a hundred.
    assert shown.one("Storage growth", "all") == pytest.approx(sum(grown.values()), rel=0.01)
    foremost = shown.series("Storage growth", "{{table}}")
    assert len(foremost) == 5
    assert foremost == {name: pytest.approx(grown[name], rel=0.01) for name in foremost}
    assert max(grown, key=lambda name: grown[name]) in foremost


@pytest.mark.kafka
def test_providers_are_counted_as_the_lake_has_them(seen: Watched, shown: Shown) -> None:
    held: Counter[str] = Counter()
    for (*_, provider), rows in records(seen.lake).items():
        held[provider] += rows
    assert shown.series("Provider distribution", "{{provider}}") == held


@pytest.mark.kafka
def test_tables_are_as_delta_rs_has_them(seen: Watched, shown: Shown) -> None:
    held, panel = tables(seen.lake), "Rows of tables"
    assert {"raw_market_data_1m", "quality_results", "gold.mart_trading_performance"} <= set(held)
    assert shown.series(panel, "rows") == {name: table.count() for name, table in held.items()}
    assert shown.series(panel, "size") == table_bytes(seen.lake)
    assert shown.series(panel, "files") == {name: len(table.file_uris()) for name, table in held.items()}
    assert shown.series(panel, "version") == {name: table.version() for name, table in held.items()}
    folders = {name: Counter(Path(uri).parent for uri in table.file_uris()) for name, table in held.items()}
    assert shown.series(panel, "most in a partition") == {name: max(of.values()) for name, of in folders.items()}


@pytest.mark.kafka
def test_dead_letters_are_those_in_the_folder(seen: Watched, shown: Shown) -> None:
    waiting = dead_letters(seen.folder / "dlq")
    assert waiting["high < low"] == 1
    assert shown.series("Dead letters", "{{reason}}") == waiting


@pytest.mark.kafka
def test_every_request_of_the_last_run_is_counted(seen: Watched, shown: Shown) -> None:
    assert shown.series("Requests to providers", "{{api}} {{status}}") == {("coinbase", "200"): seen.requests}
    assert shown.series("Circuits", "{{api}}") == {"coinbase": 0}
    assert shown.series("Errors of jobs", "{{job}}: {{error_type}}") == {("rejected_rows", "backfill"): 1}
    assert shown.series("Jobs", "did all") == {"backfill": 1}


@pytest.mark.kafka
def test_lag_is_what_the_broker_has_and_the_stream_has_not(seen: Watched, shown: Shown) -> None:
    assert shown.series("Stream lag", "{{topic}}") == {
        seen.topic: sum(seen.ends[each] - at for each, at in seen.positions.items())
    }
    assert shown.series("Stream states", "in it") == {("running", seen.topic): 1}
    assert shown.series("Messages refused and lost", "refused, {{topic}}")[seen.topic] == 6


@pytest.mark.kafka
def test_dags_are_as_airflow_says(shown: Shown) -> None:
    assert shown.series("Seconds per task", "{{dag_id}}: {{task_id}}") == {
        (DAG, name): each for name, each in TASKS.items()
    }
    assert shown.series("DAGs", "last run") == {(DAG, "success"): 1}
    assert shown.one("DAGs", "took") == RUN["duration"]
    assert shown.one("DAGs", "running") == 0


@pytest.mark.kafka
def test_every_figure_of_trading_is_that_of_the_newest_day(seen: Watched, shown: Shown) -> None:
    assert_figures(shown, seen.lake)


@pytest.mark.soak
@pytest.mark.spark(alone=True)
def test_the_board_of_trading_shows_what_a_real_transform_made(tmp_path: Path) -> None:
    with traded(tmp_path) as (lake, prometheus):
        shown = Shown(BOARDS, prometheus.url)
        print("\n".join(probe.report(shown.answers)))  # noqa: T201 - the table is what one wants to see of it
        empty = {each.panel for each in shown.answers if each.board == BOARDS[1].title and not each.values}
        assert empty == set()
        assert_figures(shown, lake)
        assert shown.series("Jobs", "did all") == {"backfill": 1, "transform": 1}
        rows = shown.series("Rows of tables", "rows")
        assert rows == {name: table.count() for name, table in tables(lake).items()}
        assert rows["silver.market_data_enriched"] == 2 * 7 * (24 + 6 + 1)


def assert_figures(shown: Shown, lake: Path) -> None:
    """Assert that all figures are those of the marts' newest day, as DuckDB reads them."""
    checked = 0
    for answer in shown.answers:
        metric = re.search(r"\b(trading_\w+)\{", answer.query.expr)
        if metric is None:
            continue
        expected = figures(lake, metric[1])
        if 'asset_pair="ALL"' in answer.query.expr:
            expected = {key - {"asset_pair=ALL"}: value for key, value in expected.items() if "asset_pair=ALL" in key}
        elif 'asset_pair!="ALL"' in answer.query.expr:
            expected = {key: value for key, value in expected.items() if "asset_pair=ALL" not in key}
        assert {frozenset(key): value for key, value in answer.values.items()} == expected, answer.query.expr
        checked += 1
    assert checked == sum(len(panel.queries) for panel in BOARDS[1].panels()) - 1


@pytest.mark.kafka
def test_variables_have_values_and_narrow_the_panels_down(seen: Watched) -> None:
    for board in BOARDS:
        for choice in board.choices:
            found = seen.prometheus.get(f"/api/v1/label/{choice.key}/values", **{"match[]": choice.metric})
            assert [value for value in found if value], choice.name
    narrow = Shown(BOARDS, seen.prometheus.url, asset="BTCUSD", timeframe="1h", book="paper")
    assert list(narrow.series("Ingestion rate", "{{asset_pair}}")) == ["BTCUSD"]
    assert list(narrow.series("Freshness", "age")) == [("BTCUSD", "1h")]
    hours = records(seen.lake)["BTCUSD", "1h", "coinbase"]
    assert narrow.series("Provider distribution", "{{provider}}") == {"coinbase": hours}
    assert set(narrow.series("Performance by asset", "trades")) == {("ALL", "paper", "USD"), ("BTCUSD", "paper", "USD")}
