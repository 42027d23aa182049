"""Prometheus metrics of the pipeline; label sets are bounded: assets, timeframes, providers, status codes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ingestion_records_total = Counter(
    "pipeline_ingestion_records_total",
    "Rows landed in bronze.",
    ["asset_pair", "timeframe", "provider"],
)
ingestion_errors_total = Counter(
    "pipeline_ingestion_errors_total",
    "Failed windows, refused batches and refused rows, by kind.",
    ["error_type"],
)
ingestion_duration_seconds = Histogram(
    "pipeline_ingestion_duration_seconds",
    "Seconds from asking for a range to its last commit.",
    ["asset_pair", "timeframe"],
    buckets=(0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
data_quality_checks_total = Counter(
    "pipeline_data_quality_checks_total",
    "Batches checked against a suite or contract, by outcome.",
    ["suite", "status"],
)
delta_table_size_bytes = Gauge(
    "pipeline_delta_table_size_bytes",
    "Bytes of the live data files of a table.",
    ["table"],
)
external_api_requests_total = Counter(
    "external_api_requests_total",
    "Requests to a provider; status is the HTTP code, or timeout, error, refused.",
    ["api", "status"],
)
api_request_duration_seconds = Histogram(
    "api_request_duration_seconds",
    "Seconds one request to a provider took.",
    ["api"],
)
circuit_open = Gauge(
    "pipeline_circuit_open",
    "1 while a provider's circuit breaker refuses calls, 0.5 while it probes, 0 when closed.",
    ["api"],
)
kafka_messages_produced_total = Counter(
    "kafka_messages_produced_total",
    "Messages that a broker acknowledged.",
    ["topic"],
)
kafka_messages_consumed_total = Counter(
    "kafka_messages_consumed_total",
    "Messages that micro-batches have read and accounted for.",
    ["topic"],
)
stream_lag_messages = Gauge(
    "pipeline_stream_lag_messages",
    "Messages of a partition that were at the broker and not in the lake when the last micro-batch ended.",
    ["topic", "partition"],
)
stream_batch_seconds = Histogram(
    "pipeline_stream_batch_seconds",
    "Seconds one micro-batch took.",
    ["topic"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 30, 60, 120),
)
stream_watermark_seconds_behind = Gauge(
    "pipeline_stream_watermark_seconds_behind",
    "Seconds from a topic's watermark to the end of its last micro-batch.",
    ["topic"],
)
stream_refused_total = Counter(
    "pipeline_stream_refused_total",
    "Messages that went to the dead letters.",
    ["topic"],
)
stream_lost_offsets_total = Counter(
    "pipeline_stream_lost_offsets_total",
    "Messages that expired at the broker before they were read.",
    ["topic"],
)
