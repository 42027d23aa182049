"""Panels of what works on the lake, streams, jobs, providers and Airflow, and of who watches."""

from __future__ import annotations

from pipelines.monitoring.dashboards.panels import Limits, Panel, Query, State
from pipelines.monitoring.dashboards.queries import LOOK, NO_EXPORTER, NO_PUSH

_LAG = "max by (topic, partition) (pipeline_stream_lag_messages)"
_NO_STREAM = "no stream is running"
_NO_AIRFLOW = "no data from Airflow: see monitoring.airflow_url"

STREAMS = (
    Panel(
        title="Stream states",
        kind="table",
        queries=(
            Query("max by (topic, state) (pipeline_stream_state == 1)", "in it", "none"),
            Query(
                "time() - max by (topic) (pipeline_stream_last_batch_timestamp_seconds)",
                "since batch",
                "s",
                Limits(300, 600),
            ),
        ),
        columns={"topic": "topic", "state": "state"},
        shows="The state that each stream says it is in, and how long ago its last micro-batch ended",
        act="`lakehouse stream status` says more; start it again with `lakehouse stream run`: nothing is lost or twice",
        runbook="streamstalled",
        empty="nothing was streamed into this lake",
        width=8,
    ),
    Panel(
        title="Stream lag",
        kind="timeseries",
        queries=(Query(f"sum by (topic) ({_LAG})", "{{topic}}"),),
        shows="Messages that are at the broker and not in the lake, by topic",
        act="`lakehouse stream status` says whether the job runs; a lag that grows while it does needs more cores",
        runbook="streamlag",
        empty=_NO_STREAM,
        limits=Limits(10_000, 50_000),
        width=8,
    ),
    Panel(
        title="Messages",
        kind="timeseries",
        queries=(
            Query("sum by (topic) (rate(kafka_messages_produced_total[5m]))", "produced, {{topic}}"),
            Query("sum by (topic) (rate(kafka_messages_consumed_total[5m]))", "landed, {{topic}}"),
        ),
        shows="Messages a second over the last 5 minutes that producers sent and that micro-batches landed, by topic",
        act="messages produced and not landed add to the lag",
        empty=_NO_STREAM,
        unit="suffix: msg/s",
        width=8,
    ),
    Panel(
        title="Micro-batches",
        kind="timeseries",
        queries=(
            Query(
                "histogram_quantile(0.95, sum by (le, topic) (rate(pipeline_stream_batch_seconds_bucket[5m])))",
                "batch p95, {{topic}}",
            ),
            Query("max by (topic) (pipeline_stream_watermark_seconds_behind)", "watermark behind, {{topic}}"),
        ),
        shows="Seconds that micro-batches of the last 5 minutes took (p95) and watermarks are behind, by topic",
        act="batches longer than `streaming.trigger_seconds` fall behind",
        empty=_NO_STREAM,
        unit="s",
        width=8,
    ),
    Panel(
        title="Messages refused and lost",
        kind="timeseries",
        queries=(
            Query("sum by (topic) (pipeline_stream_refused_total)", "refused, {{topic}}"),
            Query("sum by (topic) (pipeline_stream_lost_offsets_total)", "lost, {{topic}}"),
        ),
        shows="Messages that went to the dead letters, and that expired before they were read, since the job began",
        act="lost messages are gone at the broker: keep them longer, and let the bars be healed from providers",
        runbook="streammessageslost",
        empty=_NO_STREAM,
        width=8,
    ),
)

PROVIDERS = (
    Panel(
        title="Requests to providers",
        kind="bargauge",
        queries=(Query("sum by (api, status) (external_api_requests_total)", "{{api}} {{status}}"),),
        shows="Requests by provider and answer, of the newest run of each job and of running streams",
        act="429 is a limit set too high, 401 and 403 a key, 5xx and timeout the provider: `lakehouse doctor` tells",
        runbook="ingestionfailurerate",
        empty=NO_PUSH,
        width=8,
    ),
    Panel(
        title="Circuits",
        kind="states",
        queries=(Query("max by (api) (pipeline_circuit_open)", "{{api}}"),),
        states={0: State("closed", "green"), 0.5: State("probing", "yellow"), 1: State("open", "red")},
        shows="Whether calls to a provider go out, or are refused after failures in a row",
        act="the provider fails: jobs go on with the next of `providers.chain`; it is probed again by itself",
        runbook="circuitopen",
        empty=NO_PUSH,
        limits=Limits(0.5, 1),
        width=8,
    ),
    Panel(
        title="Jobs",
        kind="table",
        queries=(
            Query("min by (job) (pipeline_job_ok)", "did all", "bool_yes_no", Limits(1, 0.5)),
            Query("max by (job) (pipeline_job_seconds)", "took", "s"),
            Query("time() - max by (job) (push_time_seconds)", "ago", "s"),
        ),
        columns={"job": "job"},
        shows="The newest run of each batch job: whether it did all it had to, how long it took, and how long ago",
        act="run it again: it does only what is left to do, and says what fails",
        runbook="jobfailed",
        empty=NO_PUSH,
        width=8,
    ),
    Panel(
        title="Errors of jobs",
        kind="bargauge",
        queries=(Query("sum by (job, error_type) (pipeline_ingestion_errors_total)", "{{job}}: {{error_type}}"),),
        shows="Failed windows, refused batches and refused rows of the newest run of each job, by kind",
        act="`lakehouse backfill` again: it fetches only what is missing, and says what fails",
        runbook="jobfailed",
        empty="no job has pushed an error",
        width=8,
    ),
)

AIRFLOW = (
    Panel(
        title="DAGs",
        kind="table",
        queries=(
            Query("max by (dag_id, state) (airflow_dag_last_run_state == 1)", "last run", "none"),
            Query("max by (dag_id) (airflow_dag_running)", "running", "none"),
            Query("max by (dag_id) (airflow_dag_last_run_seconds)", "took", "s", Limits(5400, 7200)),
            Query(
                "time() - max by (dag_id) (airflow_dag_last_success_timestamp_seconds)",
                "since success",
                "s",
                Limits(25 * 3600, 26 * 3600),
            ),
        ),
        columns={"dag_id": "DAG", "state": "state"},
        shows="The state of each DAG's newest run, how many run now, how long it took, and when one last succeeded",
        act="open the run in Airflow: the log of the failed task says where to look; a run again is harmless",
        runbook="dagfailed",
        empty=_NO_AIRFLOW,
    ),
    Panel(
        title="Seconds per task",
        kind="bargauge",
        queries=(Query("max by (dag_id, task_id) (airflow_task_seconds)", "{{dag_id}}: {{task_id}}"),),
        shows="How long each task of the newest run of each DAG took",
        act="a task that grew says where the DAG's deadline goes",
        empty=_NO_AIRFLOW,
        unit="s",
    ),
    Panel(
        title="Runs over time",
        kind="timeseries",
        queries=(Query("max by (dag_id) (airflow_dag_last_run_seconds)", "{{dag_id}}"),),
        shows="Seconds that the newest run of each DAG took",
        act="two hours are the daily DAG's deadline: see which task grew",
        runbook="dagdeadline",
        empty=_NO_AIRFLOW,
        unit="s",
        limits=Limits(5400, 7200),
    ),
)

WATCHING = (
    Panel(
        title="Alerts firing",
        kind="stat",
        queries=(Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),),
        shows="Alerts of Prometheus that fire now",
        act="Prometheus' page Alerts names them, each with a link to its runbook",
        runbook="alerts",
        empty="no data from Prometheus",
        limits=Limits(1, 1),
        width=6,
        height=5,
    ),
    Panel(
        title="Age of the last look",
        kind="stat",
        queries=(Query(f"max (time() - {LOOK})", "age"),),
        shows="Seconds since lakehouse exporter last finished looking at the lake: all its figures are that old",
        act="see what it logs, and Errors of the exporter",
        runbook="exporterstale",
        empty=NO_EXPORTER,
        unit="s",
        limits=Limits(120, 600),
        width=6,
        height=5,
    ),
    Panel(
        title="Duration of a look",
        kind="stat",
        queries=(Query("max (pipeline_exporter_look_seconds)", "took"),),
        shows="Seconds that the last look at the lake took; a scrape does not wait for it",
        act="a look that takes longer than `monitoring.refresh_seconds` comes late: compact, or look less often",
        empty=NO_EXPORTER,
        unit="s",
        limits=Limits(30, 120),
        width=6,
        height=5,
    ),
    Panel(
        title="Errors of the exporter",
        kind="stat",
        queries=(Query("sum (increase(pipeline_exporter_errors_total[1h])) or vector(0)", "errors"),),
        shows="Parts of looks that failed within the last hour: their figures are those of an earlier look",
        act="its log names the part: a table that cannot be read (`lakehouse fsck`), Airflow or Kafka that is down",
        runbook="exportererrors",
        empty=NO_EXPORTER,
        limits=Limits(1, 10),
        decimals=0,
        width=6,
        height=5,
    ),
    Panel(
        title="Scraped processes",
        kind="states",
        queries=(Query("max by (job, instance) (up)", "{{job}} {{instance}}"),),
        states={0: State("down", "red"), 1: State("up", "green")},
        shows="Whether Prometheus reaches what it scrapes",
        act="start it again; figures of jobs that have finished are kept by the Pushgateway",
        runbook="exporterdown",
        empty="no data from Prometheus",
        limits=Limits(1, 0.5),
        width=24,
        height=6,
    ),
)
