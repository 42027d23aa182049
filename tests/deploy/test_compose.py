"""docker-compose.yml, the Dockerfile and what they call. `make compose-check` has Compose itself read the first."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyspark
import pytest
import yaml

from pipelines.cli import main
from pipelines.config import PROJECT_ROOT, load_settings

FILE = PROJECT_ROOT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
ENTRIES = re.findall(r"^([A-Z0-9_]+)=(.*)$", (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
EXAMPLE = dict(ENTRIES)
# They do their work and end.
ONCE = {name for name, each in SERVICES.items() if each["restart"].startswith("on-failure")}
OURS = {name for name, each in SERVICES.items() if "build" in each}
SECRET = re.compile(r"PASSWORD$|SECRET|TOKEN$|KEY$|KEY_ID$|WEBHOOK$|SQL_ALCHEMY_CONN$")


def words(service: dict[str, Any]) -> list[str]:
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else command


def test_it_has_the_services_that_it_is_to_have() -> None:
    assert SERVICES.keys() > {
        "airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-init",
        "kafka", "s3", "postgres", "prometheus", "pushgateway", "alertmanager", "grafana",
        "spark-master", "spark-worker", "stream", "exporter",
    }  # fmt: skip
    assert {"airflow-init", "s3-init", "topics"} == ONCE


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_limited_watched_and_closed_to_the_outside(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].partition(":")
    assert "/" not in image.split("/")[0]
    assert re.search(r"\d+\.\d+", tag), "no version"
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory"}
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    if name in ONCE:
        assert "healthcheck" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}
        assert service["healthcheck"]["test"][0] == "CMD"
    if name in OURS:
        assert service["cap_drop"] == ["ALL"]


def test_it_waits_for_what_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if other in ONCE else "service_healthy"), name


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in (service.get("environment") or {}).items()}


def test_no_secret_is_written_down() -> None:
    found = [
        (name, key, value)
        for name, service in SERVICES.items()
        for key, value in settings_of(service).items()
        if SECRET.search(key)
    ]
    assert len({key for _, key, _ in found}) >= 8
    for name, key, value in found:
        variable = re.search(r"\$\{([A-Z0-9_]+)(:\?set \1 in \.env, see \.env\.example|:-)\}", value)
        assert variable, (name, key)
        # What is needed has an example that `make up` refuses; what is optional is left empty.
        assert EXAMPLE[variable[1]].startswith("change-me" if "?" in variable[2] else ""), key
        assert bool(EXAMPLE[variable[1]]) == ("?" in variable[2]), key


def test_each_variable_is_explained_and_none_is_without_use() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT))
    assert used == EXAMPLE.keys()
    assert len(ENTRIES) == len(EXAMPLE)


def test_what_is_mounted_is_there() -> None:
    named = set(yaml.safe_load(TEXT)["volumes"])
    mounted = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, *where = volume.split(":")
            if source.startswith("."):
                assert (PROJECT_ROOT / source).exists(), source
                assert where[-1] == "ro"
            elif where:
                mounted.add(source)
    assert mounted == named


def test_configuration_files_that_are_named_are_in_what_is_mounted() -> None:
    for name in ("prometheus", "alertmanager"):
        (option,) = [each for each in SERVICES[name]["command"] if each.startswith("--config.file=")]
        (mount,) = [each for each in SERVICES[name]["volumes"] if each.startswith("./")]
        source, target, _ = mount.split(":")
        path = Path(option.partition("=")[2])
        assert (PROJECT_ROOT / source / path.relative_to(target)).is_file()


def test_the_secret_of_alertmanager_is_where_it_looks() -> None:
    text = (PROJECT_ROOT / "monitoring" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["global"]["slack_api_url_file"] == "/run/secrets/slack_webhook"
    assert SERVICES["alertmanager"]["secrets"] == ["slack_webhook"]
    assert yaml.safe_load(TEXT)["secrets"] == {"slack_webhook": {"environment": "SLACK_WEBHOOK"}}


def addresses() -> Iterator[tuple[str, int]]:
    """Yield host and port of all that services and mounted files call each other by."""
    text = TEXT + "".join(
        path.read_text(encoding="utf-8")
        for path in (PROJECT_ROOT / "monitoring").rglob("*.yml")
        if "test" not in path.name
    )
    for host, port in re.findall(r"(?<![\w.-])([a-z][a-z0-9-]*):(\d{4,5})\b", text):
        yield host, int(port)


PORTS = {
    "s3": {8333}, "kafka": {9092, 9093}, "postgres": {5432}, "prometheus": {9090}, "pushgateway": {9091},
    "alertmanager": {9093}, "grafana": {3000}, "airflow-api": {8080}, "exporter": {9401}, "stream": {9402},
    "spark-master": {7077},
}  # fmt: skip


def test_services_call_each_other_by_names_and_ports_that_are_there() -> None:
    found = {(host, port) for host, port in addresses() if host != "localhost"}
    assert {("exporter", 9401), ("stream", 9402), ("pushgateway", 9091), ("alertmanager", 9093)} <= found
    for host, port in found:
        assert port in PORTS[host], f"{host}:{port}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_settings_of_our_services_are_settings(name: str) -> None:
    given = {key: value for key, value in settings_of(SERVICES[name]).items() if key.startswith("LAKEHOUSE__")}
    plain = {key: re.sub(r"\$\{.*\}", "http://somewhere", value) for key, value in given.items()}
    settings = load_settings(environ=plain)
    assert bool(given) == (settings.delta_lake.storage_path == "s3://lakehouse/lake")


def calls(name: str) -> Iterator[list[str]]:
    """Yield the command lines of ours in a service: its command, or those in its shell, and its health check."""
    command = words(SERVICES[name])
    if command[0] == "sh":
        yield from (shlex.split(part) for part in command[2].split("&&"))
    else:
        yield command
    if "healthcheck" in SERVICES[name]:
        yield SERVICES[name]["healthcheck"]["test"][1:]


@pytest.mark.parametrize("name", sorted(OURS))
def test_commands_of_our_services_are_commands(name: str) -> None:
    for program, *arguments in calls(name):
        if program == "lakehouse":
            assert_understood(arguments)
        elif program == "python":
            assert (PROJECT_ROOT / arguments[0]).is_file()
            assert arguments[0].startswith("deploy/services/")
        elif program == "spark-class":
            assert_class(arguments[0])
        else:
            from airflow.cli.cli_parser import get_parser

            assert program == "airflow"
            get_parser().parse_args(arguments)


def assert_understood(arguments: list[str]) -> None:
    """Assert that a command of ours takes these arguments."""
    context, command = click.Context(main), main
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, list(arguments))
        assert found is not None
        command = found
        if isinstance(found, click.Group):
            context = click.Context(found, parent=context, info_name=name)
    command.make_context(command.name, list(arguments), parent=context)


def assert_class(name: str) -> None:
    (core,) = (Path(pyspark.__file__).parent / "jars").glob("spark-core_*.jar")
    with zipfile.ZipFile(core) as jar:
        assert f"{name.replace('.', '/')}.class" in jar.namelist()


# ---- the image


DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--strict-labels", "--failure-threshold", "info", "Dockerfile"],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    bases = re.findall(r"^FROM (\S+)(?: AS (\w+))?", DOCKERFILE, re.MULTILINE)
    stages = {stage for _, stage in bases}
    assert [base for base, _ in bases if base not in stages] == ["python:3.11.14-slim-bookworm"]
    assert len(bases) > 2
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    user = int(re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)[-1])
    assert user > 0
    assert f"--uid {user} " in last


def test_the_image_gets_what_it_copies_and_nothing_secret() -> None:
    kept = {
        line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    for source in copied:
        assert (PROJECT_ROOT / source).exists(), source
        assert {source.split("/")[0], source.rstrip("/")} & kept, source
    assert not {".env", "data", "config.local.yaml"} & kept
    assert "config/config.local.yaml" in (PROJECT_ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_the_version_of_the_image_is_that_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (PROJECT_ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version
    assert {SERVICES[name]["image"] for name in OURS} == {f"finance-lakehouse:{version[1]}"}
