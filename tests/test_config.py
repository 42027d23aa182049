"""Settings: layers, errors that name the file, the key and the nearest valid one, and the documented defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.config import CONFIG_DIR, Settings, load_settings, settings_from
from pipelines.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("ingest:\n  chunk_rows: 10\n", encoding="utf-8")
    return path


def local(config: Path, text: str) -> None:
    (config.parent / "config.local.yaml").write_text(text, encoding="utf-8")


def test_config_yaml_documents_every_default() -> None:
    documented = yaml.safe_load((CONFIG_DIR / "config.yaml").read_text(encoding="utf-8"))
    defaults = Settings().model_dump(mode="json")
    # These two have no network, so what bounds a network client is not documented for them.
    for name in ("files", "sample"):
        kept = documented["providers"][name]
        defaults["providers"][name] = {key: defaults["providers"][name][key] for key in kept}
    assert documented == defaults


def test_later_layers_win(config: Path) -> None:
    assert load_settings(config, environ={}).ingest.chunk_rows == 10
    local(config, "ingest: {chunk_rows: 20}\ndelta_lake: {storage_path: s3://bucket/lake}\n")
    assert load_settings(config, environ={}).ingest.chunk_rows == 20
    environ = {"LAKEHOUSE__INGEST__CHUNK_ROWS": "30"}
    assert load_settings(config, environ=environ).ingest.chunk_rows == 30
    settings = load_settings(config, {"ingest": {"chunk_rows": 40}}, environ)
    assert settings.ingest.chunk_rows == 40
    assert settings.delta_lake.storage_path == "s3://bucket/lake"


def test_nested_environment_variables(config: Path) -> None:
    environ = {
        "LAKEHOUSE__PROVIDERS__COINBASE__BASE_URL": "http://127.0.0.1:9",
        "LAKEHOUSE__DELTA_LAKE__STORAGE_PATH": "/tmp/lake",
        "LAKEHOUSE__PROVIDERS__CHAIN": "[coinbase, oanda]",
        "LAKEHOUSE__PROVIDERS__FRED__API_KEY": "0123",
    }
    settings = load_settings(config, environ=environ)
    assert settings.providers.coinbase.base_url == "http://127.0.0.1:9"
    assert settings.delta_lake.storage_path == "/tmp/lake"
    assert settings.providers.chain == ["coinbase", "oanda"]
    assert settings.providers.fred.api_key is not None
    assert settings.providers.fred.api_key.get_secret_value() == "0123"


def test_vendor_names_of_keys_work_and_secrets_do_not_show(config: Path) -> None:
    settings = load_settings(config, environ={"ALPHA_VANTAGE_API_KEY": "sesame"})
    assert settings.providers.alpha_vantage.api_key is not None
    assert "sesame" not in repr(settings)
    assert load_settings(config, environ={"ALPHA_VANTAGE_API_KEY": ""}).providers.alpha_vantage.api_key is None


SASL = {
    "LAKEHOUSE__STREAMING__SECURITY_PROTOCOL": "sasl_ssl",
    "LAKEHOUSE__STREAMING__SASL_MECHANISM": "SCRAM-SHA-512",
    "LAKEHOUSE__STREAMING__SASL_USERNAME": "me",
    "LAKEHOUSE__STREAMING__SASL_PASSWORD": "sesame",
    "LAKEHOUSE__STREAMING__SSL_KEY_PASSWORD": "simsim",
}


def test_passwords_of_kafka_come_from_the_environment_and_do_not_show(config: Path) -> None:
    settings = load_settings(config, environ=SASL)
    assert settings.streaming.sasl_password is not None
    assert settings.streaming.sasl_password.get_secret_value() == "sesame"
    assert settings.streaming.ssl_key_password is not None
    assert settings.streaming.ssl_key_password.get_secret_value() == "simsim"
    for shown in (repr(settings), str(settings.streaming), str(settings.model_dump()), settings.model_dump_json()):
        assert "sasl_password" in shown
        assert "sesame" not in shown
        assert "simsim" not in shown


@pytest.mark.parametrize("lost", ["SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD"])
@pytest.mark.parametrize("protocol", ["sasl_ssl", "sasl_plaintext"])
def test_sasl_is_whole_or_not_wanted(config: Path, lost: str, protocol: str) -> None:
    environ = {name: value for name, value in SASL.items() if not name.endswith(lost)}
    environ["LAKEHOUSE__STREAMING__SECURITY_PROTOCOL"] = protocol
    with pytest.raises(ConfigError, match="needs sasl_mechanism, sasl_username and sasl_password") as error:
        load_settings(config, environ=environ)
    assert "LAKEHOUSE__STREAMING__SASL_PASSWORD" in str(error.value)
    assert "sesame" not in str(error.value)
    environ["LAKEHOUSE__STREAMING__SECURITY_PROTOCOL"] = "ssl"
    assert load_settings(config, environ=environ).streaming.security_protocol == "ssl"


def test_a_password_of_kafka_that_is_empty_is_none(config: Path) -> None:
    with pytest.raises(ConfigError, match="needs sasl_mechanism"):
        load_settings(config, environ=SASL | {"LAKEHOUSE__STREAMING__SASL_PASSWORD": ""})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("delta_lake: {storage_paht: x}", ["config.local.yaml", "delta_lake.storage_paht", "delta_lake.storage_path"]),
        ("providers: {coinbas: {}}", ["config.local.yaml", "providers.coinbas", "providers.coinbase"]),
        ("ingest: {chunk_rows: many}", ["config.local.yaml", "ingest.chunk_rows", "integer"]),
        ("ingest: {chunk_rows: 0}", ["config.local.yaml", "ingest.chunk_rows", "greater than or equal to 1"]),
        ("delta_lake: {partition_granularity: {1m: week}}", ["config.local.yaml", "partition_granularity"]),
        ("streaming: {topics: {x: {format: json}}}", ["streaming.topics.x.dataset", "required"]),
        ("streaming: {topics: {x: {dataset: y, format: xml}}}", ["config.local.yaml", "streaming.topics.x.format"]),
        ("streaming: {security_protocol: tls}", ["config.local.yaml", "streaming.security_protocol", "sasl_ssl"]),
        ("zzz: 1", ["config.local.yaml", "zzz", "valid here", "delta_lake"]),
        ("[]", ["config.local.yaml", "mapping"]),
        ("a: [", ["config.local.yaml", "not valid YAML"]),
    ],
)
def test_errors_name_file_key_and_nearest(config: Path, text: str, expected: list[str]) -> None:
    local(config, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(config, environ={})
    for part in expected:
        assert part in str(caught.value)


def test_environment_errors_name_the_variable(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"LAKEHOUSE__INGEST__CHUNK_ROW; did you mean LAKEHOUSE__INGEST__CHUNK_ROWS"):
        load_settings(config, environ={"LAKEHOUSE__INGEST__CHUNK_ROW": "1"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")


def test_settings_from_what_a_caller_has(config: Path) -> None:
    settings = Settings()
    assert settings_from(settings) is settings
    assert settings_from({"ingest": {"lookback_bars": 3}}).ingest.lookback_bars == 3
    assert settings_from(config).ingest.chunk_rows == 10


def test_relative_paths_are_taken_from_the_project_root() -> None:
    settings = Settings()
    assert Path(settings.resolve("data/x")) == settings.root / "data/x"
    assert settings.resolve("/abs/x") == "/abs/x"
    assert settings.resolve("s3://bucket/x") == "s3://bucket/x"
