"""From a lake to a message: exporter, Prometheus, Alertmanager and a receiver of Slack's format, all real."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import PROJECT_ROOT
from tests.cli.shell import run, spawn
from tests.cli.test_exporter import EMBEDDED, address_of
from tests.monitoring.oracle import records
from tests.servers.prometheus import Alertmanager, Prometheus, Pushgateway
from tests.servers.slack import Message, SlackServer

FOLDER = PROJECT_ROOT / "monitoring"
BROKEN = "raw_market_data_1h"


def quickened(value: Any) -> Any:
    """Return settings or rules that wait a second where they wait longer."""
    waits = {"for", "group_wait", "group_interval", "scrape_interval", "evaluation_interval", "resolve_timeout"}
    if isinstance(value, dict):
        return {name: "1s" if name in waits else quickened(part) for name, part in value.items()}
    return [quickened(part) for part in value] if isinstance(value, list) else value


def copied(source: str, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a quick copy of a file of monitoring/, with changes."""
    found = quickened(yaml.safe_load((FOLDER / source).read_text()))
    change(found)
    path = target / Path(source).name
    path.write_text(yaml.safe_dump(found), encoding="utf-8")
    return path


class Watched:
    """A lake, all that watches it, and what Slack was told."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.lake = folder, folder / "sample"
        self.slack = stack.enter_context(SlackServer())
        quick = EMBEDDED | {"LAKEHOUSE__MONITORING__REFRESH_SECONDS": "0.5"}
        self.exporter = stack.enter_context(spawn(folder, "exporter", "--sample", "--port", "0", **quick))
        stack.callback(self.exporter.kill)
        exported = address_of(self.exporter).split("/")[2]
        secret = folder / "webhook"
        secret.write_text(self.slack.webhook)
        config = copied(
            "alertmanager/alertmanager.yml", folder,
            lambda found: found["global"].update(slack_api_url_file=str(secret)),
        )  # fmt: skip
        manager = stack.enter_context(Alertmanager(config))
        gateway = stack.enter_context(Pushgateway())
        self.pushes = EMBEDDED | {"LAKEHOUSE__MONITORING__PUSHGATEWAY": gateway.address}
        self.addresses = {
            "exporter:9401": exported,
            "alertmanager:9093": manager.address,
            "pushgateway:9091": gateway.address,
        }
        copied("prometheus/rules.yml", folder, self._short)
        self.prometheus = stack.enter_context(Prometheus(copied("prometheus/prometheus.yml", folder, self._here)))

    def _here(self, found: dict[str, Any]) -> None:
        """Replace the names of services by where they listen."""
        jobs = [each for each in found["scrape_configs"] if each["job_name"] in {"exporter", "pushgateway"}]
        found["scrape_configs"] = jobs
        for each in (*jobs, *found["alerting"]["alertmanagers"]):
            for static in each["static_configs"]:
                static["targets"] = [self.addresses[target] for target in static["targets"]]

    def _short(self, found: dict[str, Any]) -> None:
        """Make the time short after which errors of the exporter are forgotten."""
        for rule in (rule for group in found["groups"] for rule in group["rules"]):
            rule["expr"] = rule["expr"].replace("[10m]", "[5s]")

    def told(self, text: str) -> Message:
        return self.slack.wait_for(text, 90)

    def wait_until(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the result of a query as soon as it has one."""
        for _ in range(1200):
            if found := self.prometheus.query(expression):
                return found
            time.sleep(0.05)
        raise AssertionError(expression)


@pytest.fixture
def watched(sample_folder: Path, tmp_path: Path) -> Iterator[Watched]:
    shutil.copytree(sample_folder / "sample", tmp_path / "sample")
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


def test_prometheus_counts_what_the_lake_holds_and_a_damaged_table_reaches_slack_until_it_is_mended(watched):
    name = "pipeline_ingestion_records_total"
    found = watched.wait_until(name)
    counted = {(each["asset_pair"], each["timeframe"], each["provider"]): value for each, value in found}
    assert counted == records(watched.lake)

    newest = max((watched.lake / BROKEN / "_delta_log").glob("*.json"))
    whole = newest.read_bytes()
    newest.write_bytes(b"{not json")
    fired = watched.told("[warning] ExporterErrors").attachment
    assert fired["color"] == "#f2a900"
    assert "The exporter cannot look at tables" in fired["text"]
    assert "docs/operations.md#exportererrors" in fired["text"]

    newest.write_bytes(whole)
    resolved = watched.told("[resolved] ExporterErrors").attachment
    assert resolved["color"] == "#2eb886"
    # The sample lake's bars are long ago, so that its freshness is told of too.
    assert watched.told("DataStale").attachment["color"] == "#f2a900"

    watched.exporter.kill()
    assert watched.told("[critical] ExporterDown").attachment["color"] == "#d00000"


def test_what_is_done_while_prometheus_is_down_is_on_the_board_when_it_is_back(watched):
    name = "pipeline_ingestion_records_total"
    total = f"sum({name})"
    watched.wait_until(total)
    before = sum(records(watched.lake).values())
    watched.prometheus.stop()
    down = time.time()

    done = run(
        watched.folder, "backfill", "--provider", "sample", "--assets", "BTCUSD", "--start", "2025-12-04",
        "--end", "2025-12-05", "--quiet", **watched.pushes,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    after = sum(records(watched.lake).values())
    assert after > before

    watched.prometheus.start()
    assert watched.wait_until(f"{total} > {before}") == [({}, after)]
    assert watched.wait_until(f"increase(({total})[10m:1s]) > 0"), "the increase over the time it was down"
    assert watched.wait_until('pipeline_job_ok{job="backfill"}')[0][1] == 1
    assert watched.prometheus.query(f"sum({name} @ {down})") == [({}, before)], "what it knew before"
