"""`lakehouse doctor`: is everything there that the lakehouse needs?"""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import config_option, examples, json_option, verbose_option


@click.command(
    epilog=examples(
        "lakehouse doctor --offline",
        "lakehouse doctor --lake s3://bucket/lake",
    )
)
@click.option("--offline", is_flag=True, help="Do not try to reach the providers.")
@click.option("--lake", metavar="PATH", help="Another lake: a folder or an s3:// address.")
@config_option
@json_option
@verbose_option
@click.pass_context
def doctor(ctx: click.Context, *, offline: bool, lake: str | None, config_file: Path | None, as_json: bool) -> None:
    """Check that all is there that is needed.

    Settings, Java, jars, lakes, disk or bucket, keys and providers: each line is ok, or says what to do.

    Exit codes: 0 everything essential is there, 1 something essential is broken.
    """
    from pipelines.cli.checkup import run_checks

    ctx.exit(run_checks(config_file, lake, offline=offline, as_json=as_json))
