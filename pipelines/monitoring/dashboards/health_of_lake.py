"""Panels of what came in and what the lake holds."""

from __future__ import annotations

from pipelines.monitoring.dashboards.panels import Limits, Panel, Query
from pipelines.monitoring.dashboards.queries import BARS, NO_EXPORTER, NO_PUSH, growth, quantile, rise

_RECORDS = f"pipeline_ingestion_records_total{{{BARS}}}"
_CHECKS = "pipeline_data_quality_checks_total"
_SIZES = "pipeline_delta_table_size_bytes"


def _failures(by: str) -> str:
    """Return the share of checks of the last day that failed; nothing where none ran."""
    failed, ran = (rise(series, "1d") for series in (f'{_CHECKS}{{status="failed"}}', _CHECKS))
    return f"sum {by} ({failed}) / (sum {by} ({ran}) > 0)"


FIVE = (
    Panel(
        title="Ingestion rate",
        kind="timeseries",
        queries=(Query(f"sum by (asset_pair) ({rise(_RECORDS, '1h')})", "{{asset_pair}}"),),
        shows="Records that landed in bronze within the last hour, by asset: those that are in the lake, counted there",
        act="0 while a job should run: see Freshness, DAGs and Errors of jobs",
        empty=NO_EXPORTER,
        unit="suffix: records/h",
        stacked=True,
    ),
    Panel(
        title="Data-quality failure rate",
        kind="timeseries",
        queries=(Query(_failures(""), "all"), Query(_failures("by (suite)"), "{{suite}}")),
        shows="Checks of the last 24 hours that failed, as a share of those that ran: in all, and by suite",
        act=(
            "`lakehouse quality` names the checks, `lakehouse dlq stats` the reasons and `lakehouse validate` the rows"
        ),
        runbook="dataqualityfailurerate",
        empty="no checks in the last 24 hours",
        unit="percentunit",
        limits=Limits(0.01, 0.05),
    ),
    Panel(
        title="Latency",
        kind="timeseries",
        queries=(
            *(
                Query(quantile(share, "pipeline_ingestion_duration_seconds", BARS), f"ingestion p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ),
            *(
                Query(quantile(share, "api_request_duration_seconds"), f"API request p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ),
        ),
        shows=(
            "Seconds from asking for a range to its last commit, and of single requests to providers: p50, p95 and p99 "
            "of the newest run of each job, and of running streams since they began"
        ),
        act="see Requests to providers, and whether a circuit is open",
        empty=NO_PUSH,
        unit="s",
    ),
    Panel(
        title="Storage growth",
        kind="timeseries",
        queries=(
            Query(f"sum ({growth(_SIZES, '1d')}) / 1e9", "all"),
            Query(f"topk(5, sum by (table) ({growth(_SIZES, '1d')})) / 1e9", "{{table}}"),
        ),
        shows="By how many GB the live data of the tables grew within the last 24 hours: in all, and the five foremost",
        act="`lakehouse cost` says what a year of it takes, and `lakehouse maintain` what compaction saves",
        runbook="what-it-costs",
        empty=NO_EXPORTER,
        unit="suffix: GB/day",
        decimals=3,
    ),
    Panel(
        title="Provider distribution",
        kind="piechart",
        queries=(Query(f"sum by (provider) ({_RECORDS})", "{{provider}}"),),
        shows="Records in bronze, by the provider they came from",
        act="a share that moves to the fallback says that the first provider fails: see Requests to providers",
        empty=NO_EXPORTER,
        width=8,
    ),
)

LAKE = (
    Panel(
        title="Freshness",
        kind="table",
        queries=(
            Query(f"max by (asset_pair, timeframe) (pipeline_data_freshness_seconds{{{BARS}}})", "age", "s"),
            Query(
                f"max by (asset_pair, timeframe) (pipeline_data_overdue_seconds{{{BARS}}})",
                "overdue",
                "s",
                Limits(26 * 3600, 50 * 3600),
            ),
        ),
        columns={"asset_pair": "asset", "timeframe": "timeframe"},
        shows=(
            "Time since the close of the newest bar of each series, and by how much it lacks bars that its trading "
            "calendar and its contract's latency owe by now; its limits are for bars that a daily run fetches"
        ),
        act="`lakehouse backfill` fetches what is missing, and says what fails; then see DAGs and Circuits",
        runbook="datastale",
        empty=NO_EXPORTER,
        width=8,
    ),
    Panel(
        title="Coverage",
        kind="table",
        queries=(
            Query(
                f"min by (asset_pair, timeframe) (pipeline_coverage_ratio{{{BARS}}})",
                "coverage",
                "percentunit",
                Limits(0.999, 0.95),
            ),
            Query(f"max by (asset_pair, timeframe) (pipeline_gaps{{{BARS}}})", "gaps", "none", Limits(1, 10)),
            Query(
                f"max by (asset_pair, timeframe) (pipeline_rejected_intervals{{{BARS}}})",
                "refused",
                "none",
                Limits(1, 10),
            ),
        ),
        columns={"asset_pair": "asset", "timeframe": "timeframe"},
        shows=(
            "By series: how much of the time from its first to its last instant providers have answered for, the "
            "stretches that nobody asked for, and those whose rows were refused"
        ),
        act="`lakehouse gaps` names them and says why, `lakehouse gaps --repair` fetches what can be had",
        empty=NO_EXPORTER,
        width=8,
    ),
    Panel(
        title="Dead letters",
        kind="timeseries",
        queries=(Query("sum by (reason) (max by (reason, instance) (pipeline_dlq_records))", "{{reason}}"),),
        shows="Refused rows that wait in the dead letter queue, by reason; one with two reasons is under both",
        act="`lakehouse dlq stats` and `lakehouse dlq show` say what they are, `lakehouse dlq replay` tries them again",
        runbook="deadlettersgrowing",
        empty="the queue is empty, or lakehouse exporter does not run",
        stacked=True,
        width=8,
    ),
    Panel(
        title="Rows of tables",
        kind="table",
        queries=(
            Query("max by (table) (pipeline_delta_table_rows)", "rows", "none"),
            Query(f"max by (table) ({_SIZES})", "size", "decbytes"),
            Query("max by (table) (pipeline_delta_table_files)", "files", "none"),
            Query("max by (table) (pipeline_partition_files_max)", "most in a partition", "none", Limits(50, 100)),
            Query("max by (table) (pipeline_delta_table_version)", "version", "none"),
        ),
        columns={"table": "table"},
        shows="What each table holds: rows, bytes, files, the most files of one partition, and its newest version",
        act="many small files slow reading down: `lakehouse maintain` compacts them",
        runbook="smallfiles",
        empty=NO_EXPORTER,
        width=16,
    ),
    Panel(
        title="Disk",
        kind="bargauge",
        queries=(
            Query("1 - max by (instance) (pipeline_disk_free_bytes / pipeline_disk_size_bytes)", "used, {{instance}}"),
        ),
        shows="Share of the disk under the lake that is used",
        act="`lakehouse maintain` removes what has expired; then make room before the disk is full",
        runbook="diskfilling",
        empty="no disk to look at: the lake is in an object store, or lakehouse exporter does not run",
        unit="percentunit",
        limits=Limits(0.85, 0.95),
        width=8,
    ),
)
