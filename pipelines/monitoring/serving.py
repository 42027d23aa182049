"""Serving metrics over HTTP, on loopback unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from pipelines.config import MonitoringSettings
from pipelines.errors import ConfigError
from pipelines.monitoring.own import OwnMetrics


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int, setting: str) -> Iterator[str]:
    """Serve a registry's metrics and yield the address, as http://127.0.0.1:9401/metrics; port 0 takes a free one.

    Args:
        registry: what to show.
        host: the address to listen at.
        port: its port.
        setting: what sets the port, for the error.

    Raises:
        ConfigError: it cannot be listened there.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot serve metrics at {host}:{port}: {reason}; set monitoring.host or {setting}"
        ) from None
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def own_metrics_served(settings: MonitoringSettings) -> Iterator[None]:
    """Serve this process's own metrics at monitoring.metrics_port, if that is set.

    Raises:
        ConfigError: it cannot be listened there.
    """
    if settings.metrics_port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(OwnMetrics())
    ProcessCollector(registry=registry)
    with served(registry, settings.host, settings.metrics_port, "monitoring.metrics_port"):
        yield
