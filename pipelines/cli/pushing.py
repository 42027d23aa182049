"""What a command does when it ends, if it is one that Prometheus cannot come to see: push its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def pushing(job: str) -> Callable[[_F], _F]:
    """Make a command push its metrics when it ends, however it ends; not if it is a dry run, or is not set up for it.

    Args:
        job: under which name.
    """

    def decorate(command: _F) -> _F:
        @wraps(command)
        def together(*args: object, config_file: Path | None, **options: object) -> object:
            began, ok = time.monotonic(), False
            try:
                found = command(*args, config_file=config_file, **options)
                ok = True
            except click.exceptions.Exit as ended:
                ok = ended.exit_code == 0
                raise
            else:
                return found
            finally:
                if not options.get("dry_run"):
                    _push(job, config_file, time.monotonic() - began, ok=ok)

        return together  # type: ignore[return-value]

    return decorate


def _push(job: str, config_file: Path | None, seconds: float, *, ok: bool) -> None:
    from pipelines.config import load_settings
    from pipelines.errors import ConfigError

    try:
        settings = load_settings(config_file).monitoring
    except ConfigError:
        # The command has said so.
        return
    if settings.pushgateway is not None:
        from pipelines.monitoring.push import push_job

        push_job(settings, job, seconds, ok=ok)
