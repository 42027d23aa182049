"""Watching the pipeline: Prometheus metrics."""
