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
