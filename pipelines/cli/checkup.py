"""The checks of `lakehouse doctor`, and how they are shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.text import Text

from pipelines.cli.checks import Check, State
from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.render import console, count, counted, show_json, size
from pipelines.config import ProviderSettings, Settings, load_settings
from pipelines.contracts import load_contracts
from pipelines.errors import ConfigError, LakehouseError
from pipelines.instruments import load_registry
from pipelines.jars import JarsError, jar_paths
from pipelines.jvm import MINIMUM_JAVA, java_version

_LITTLE_ROOM = 5 << 30
_NO_ROOM = 512 << 20


def run_checks(config_file: Path | None, lake: str | None, *, offline: bool, as_json: bool) -> int:
    """Run the checks and print them; returns the exit code."""
    checks = []
    for check in _checks(config_file, lake, offline=offline):
        checks.append(check)
        if not as_json:
            _show(check)
    broken = [check for check in checks if check.state is State.BROKEN]
    if as_json:
        show_json({"ok": not broken, "checks": [asdict(check) for check in checks]})
    return FAILED if broken else DONE


def _show(check: Check) -> None:
    style = {State.OK: "green", State.WARN: "yellow", State.BROKEN: "bold red"}[check.state]
    line = Text.assemble((f"{check.state:<7}", style), f"{check.name:<19} {check.found}")
    if check.do:
        line.append(f"; {check.do}" if check.state is State.OK else f" → {check.do}")
    console().print(line)


def _checks(config_file: Path | None, lake: str | None, *, offline: bool) -> Iterator[Check]:
    settings = Settings()
    try:
        settings = load_settings(config_file)
        yield Check("settings", State.OK, f"valid ({config_file or 'config/config.yaml'})")
    except ConfigError as error:
        yield Check("settings", State.BROKEN, str(error), "mend it; the checks below use the defaults")
    yield _declarations()
    yield from _for_spark(settings)
    yield from _lakes(settings, lake)
    yield _dead_letters(settings)
    yield from _keys(settings)
    if not offline:
        from pipelines.cli.reach import reached

        for name, address, problem in reached(settings):
            state = State.WARN if problem else State.OK
            do = f"check the network, or providers.{name}.base_url" if problem else ""
            yield Check(name, state, problem or f"answers at {address}", do)


def _declarations() -> Check:
    try:
        contracts, assets = load_contracts(), list(load_registry())
    except ConfigError as error:
        return Check("declarations", State.BROKEN, str(error), "mend the file in config/")
    return Check("declarations", State.OK, f"{len(contracts)} data contracts, {len(assets)} registered assets")


def _for_spark(settings: Settings) -> Iterator[Check]:
    """Check what Spark needs; where the embedded engine writes, it is only for `scan_table`."""
    for check in (_java(), _jars(settings)):
        if check.state is State.BROKEN and settings.storage.engine == "embedded":
            found = f"{check.found}; the embedded engine needs none, only scan_table does"
            yield replace(check, state=State.WARN, found=found)
        else:
            yield check


def _java() -> Check:
    try:
        version = java_version()
    except JarsError as error:
        return Check("java", State.BROKEN, "not found", str(error))
    if version is None or version < MINIMUM_JAVA:
        return Check(
            "java", State.BROKEN, f"version {version}", f"install Java {MINIMUM_JAVA} or later, or set JAVA_HOME"
        )
    return Check("java", State.OK, f"version {version}")


def _jars(settings: Settings) -> Check:
    folder = Path(settings.resolve(settings.spark.jars_dir))
    try:
        found = jar_paths(["delta"], folder)
    except JarsError as error:
        return Check("jars", State.BROKEN, "missing", str(error))
    return Check("jars", State.OK, f"{len(found)} Delta jars in {folder}")


def _lakes(settings: Settings, lake: str | None) -> Iterator[Check]:
    paths = settings.delta_lake
    if lake is not None:
        address = lake if "://" in lake else str(Path(lake).expanduser().absolute())
        yield from _lake("lake", address, None, settings)
        return
    yield from _lake("lake", settings.resolve(paths.storage_path), "real", settings)
    yield from _lake("sample lake", settings.resolve(paths.sample_storage_path), "synthetic", settings)


def _lake(name: str, address: str, wanted: str | None, settings: Settings) -> Iterator[Check]:
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.log_table import RECORDED

    if address.startswith("s3://"):
        from pipelines.cli.bucket_checks import bucket_checks

        found = list(bucket_checks(address, settings))
        yield from found
        if any(check.state is State.BROKEN and check.name != "s3 jars" for check in found):
            return
    try:
        tables = DeltaLakeManager(address, settings).tables()
    except LakehouseError as error:
        yield Check(name, State.BROKEN, str(error), "mend or move it, or set delta_lake.storage_path")
        return
    origins = {table.origin for table in tables}
    rows = count(sum(table.rows for table in tables if table.name not in RECORDED))
    if not tables:
        yield Check(name, State.OK, f"{address} is empty", "`lakehouse backfill --help` shows how to fill it")
    elif wanted and origins != {wanted}:
        kinds = " and ".join(sorted(map(str, origins)))
        yield Check(
            name, State.BROKEN, f"{address} holds {kinds} data, not {wanted}", "set delta_lake.storage_path anew"
        )
    else:
        kind = "SYNTHETIC" if "synthetic" in origins else "real"
        yield Check(name, State.OK, f"{address} holds {rows} rows of {kind} data in {len(tables)} tables")
    if "://" not in address:
        yield _room(name, Path(address))


def _room(name: str, folder: Path) -> Check:
    """Check that a folder can be written and has room; one that is yet to be made is judged by its parent."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(there, os.W_OK):
        return Check(f"{name} disk", State.BROKEN, f"{there} cannot be written", "change its permissions or owner")
    free = shutil.disk_usage(there).free
    found = f"{size(free)} free"
    if free < _NO_ROOM:
        return Check(f"{name} disk", State.BROKEN, found, "free some room before the next run")
    if free < _LITTLE_ROOM:
        return Check(f"{name} disk", State.WARN, found, "free some room soon")
    return Check(f"{name} disk", State.OK, found)


def _dead_letters(settings: Settings) -> Check:
    folder = Path(settings.resolve(settings.dlq.path))
    files = sorted(folder.glob("dlq_*.json"))
    if not files:
        return Check("dead letters", State.OK, "none")
    found = f"{counted(len(files), 'files')} in {folder}"
    return Check("dead letters", State.WARN, found, "`lakehouse dlq stats` tells why, `… dlq replay` tries again")


def _keys(settings: Settings) -> Iterator[Check]:
    """Say which keys are set; never what they are."""
    for name in type(settings.providers).model_fields:
        section = getattr(settings.providers, name)
        if not isinstance(section, ProviderSettings):
            continue
        for field in ("api_key", "api_token"):
            if field not in type(section).model_fields:
                continue
            variable = f"{name}_{field}".upper()
            if getattr(section, field) is None:
                do = f"set {variable} in the environment or in .env"
                yield Check(f"{name} key", State.WARN, "not set, so it is passed over", do)
            else:
                yield Check(f"{name} key", State.OK, "set")
