"""Typed settings: config.yaml < config.local.yaml < environment LAKEHOUSE__SECTION__KEY < command-line arguments."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import yaml
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from pipelines.errors import ConfigError
from pipelines.timeframes import Timeframe

PROJECT_ROOT = Path(__file__).resolve().parent.parent
CONFIG_DIR = PROJECT_ROOT / "config"
ENV_PREFIX = "LAKEHOUSE__"

Granularity = Literal["day", "month", "year"]


class Section(BaseModel):
    """A group of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DeltaLakeSettings(Section):
    """Where tables live and how they are laid out."""

    storage_path: str = "data/delta_lake"
    sample_storage_path: str = "data/sample_lake"
    partition_granularity: dict[Timeframe, Granularity] = {
        Timeframe.M1: "day",
        Timeframe.M5: "day",
        Timeframe.M15: "day",
        Timeframe.H1: "month",
        Timeframe.H4: "month",
        Timeframe.D1: "year",
    }
    compression: Literal["zstd", "snappy", "gzip"] = "zstd"
    commit_retries: int = Field(default=20, ge=0)


class MaintenanceSettings(Section):
    """When files are small, when they are many, and how long old versions are kept."""

    small_file_mib: float = Field(default=32.0, gt=0)
    small_files: int = Field(default=4, ge=2)
    target_file_mib: int = Field(default=128, ge=1)
    keep_days: int = Field(default=30, ge=7)


class LifecycleSettings(Section):
    """When data files in S3 change to cheaper storage classes: such that can be read at once, no archives."""

    warm_after_days: int = Field(default=30, ge=30)
    warm_class: Literal["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING"] = "STANDARD_IA"
    cold_after_days: int = Field(default=90, ge=60)
    cold_class: Literal["GLACIER_IR"] = "GLACIER_IR"

    @model_validator(mode="after")
    def _thirty_days_between(self) -> Self:
        if self.cold_after_days < self.warm_after_days + 30:
            raise ValueError("cold_after_days must be 30 or more after warm_after_days: S3 bills a class for 30 days")
        return self


class StorageSettings(Section):
    """What writes to the tables."""

    engine: Literal["spark", "embedded"] = "spark"
    maintenance: MaintenanceSettings = MaintenanceSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()


class SparkSettings(Section):
    """The one SparkSession."""

    master: str = "local[*]"
    driver_memory: str = "2g"
    driver_host: str | None = None
    executor_memory: str = "2g"
    executor_cores: Annotated[int | None, Field(ge=1)] = None
    executor_python: str | None = None
    archives: list[str] = []
    java_options: str = "-XX:TieredStopAtLevel=1"
    shuffle_partitions: int = Field(default=4, ge=1)
    jars_dir: str = ".jars"
    extra_conf: dict[str, str] = {}


class IngestSettings(Section):
    """How ranges are fetched and landed."""

    settling_delay_seconds: float = Field(default=300.0, ge=0)
    lookback_bars: int = Field(default=0, ge=0)
    chunk_rows: int = Field(default=500_000, ge=1)
    windows_in_flight: int = Field(default=8, ge=1)
    max_rejected_ratio: float = Field(default=0.05, ge=0, le=1)


class DlqSettings(Section):
    """The dead letter queue."""

    path: str = "data/dlq"


def _local_folder(path: str) -> str:
    if "://" in path:
        raise ValueError("this is kept in a local folder, not in an object store")
    return path


class QualitySettings(Section):
    """Where results of checks are kept for people, and how tables are validated."""

    path: Annotated[str, AfterValidator(_local_folder)] = "data/quality"
    tolerance_bp: float = Field(default=50.0, ge=0)
    keep_runs: int = Field(default=20, ge=1)
    rows_per_part: int = Field(default=500_000, ge=1)
    spike_score: float = Field(default=30.0, gt=0)
    flat_run_bars: int = Field(default=10, ge=1)


Balance = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Currency = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{2,12}$"), AfterValidator(str.upper)]


class TransformSettings(Section):
    """How silver and gold are made from bronze; all but the path are variables of dbt's project."""

    path: Annotated[str, AfterValidator(_local_folder)] = "data/transform"
    initial_balance: Balance = 100_000.0
    initial_balances: dict[Currency, Balance] = {}
    risk_free_rate: float = Field(default=0.0, gt=-1, lt=1)
    regime_timeframe: Timeframe = Timeframe.H1

    def variables(self) -> dict[str, object]:
        """Return the variables of dbt's project, as JSON values."""
        return self.model_dump(mode="json", exclude={"path"})


class CostUsage(Section):
    """What a month of the platform uses besides storage."""

    batch_hours_per_day: float = Field(default=10.0, ge=0, le=24)
    kafka_brokers: int = Field(default=2, ge=0)
    kafka_broker_type: str = "m5.large"
    airflow_environment: str = "small"
    transfer_out_gb: float = Field(default=50.0, ge=0)


class CostPrices(Section):
    """Prices in US dollars: storage per GiB and month by S3 storage class, transfer per GiB, all else per hour."""

    region: str = "us-east-1"
    as_of: str = "2025"
    standard: float = Field(default=0.023, ge=0)
    standard_ia: float = Field(default=0.0125, ge=0)
    onezone_ia: float = Field(default=0.01, ge=0)
    intelligent_tiering: float = Field(default=0.0125, ge=0)
    glacier_ir: float = Field(default=0.004, ge=0)
    batch_hour: float = Field(default=0.5, ge=0)
    kafka_broker_hour: float = Field(default=0.21, ge=0)
    airflow_hour: float = Field(default=0.49, ge=0)
    transfer_out_gb: float = Field(default=0.09, ge=0)


class CostSettings(Section):
    """What `lakehouse cost` reckons with."""

    usage: CostUsage = CostUsage()
    prices: CostPrices = CostPrices()


def _none_if_blank(value: object) -> object:
    return None if value == "" else value


Secret = Annotated[SecretStr | None, BeforeValidator(_none_if_blank)]


class TopicSettings(Section):
    """What a topic's messages are, and how the topic is created."""

    dataset: str
    format: Literal["json", "avro"] = "json"
    partitions: int = Field(default=3, ge=1)
    retention_hours: float = Field(default=168.0, gt=0)


def _default_topics() -> dict[str, TopicSettings]:
    ticks = {"crypto_ticks": 6, "equities_ticks": 6, "bonds_data": 1}
    others = {
        "market.stocks": "raw_market_data",
        "news.sentiment": "raw_news_sentiment",
        "ai.decisions": "raw_ai_decisions",
        "trade.executions": "raw_trade_executions",
    }
    found = {name: TopicSettings(dataset="raw_market_ticks", partitions=count) for name, count in ticks.items()}
    return found | {name: TopicSettings(dataset=dataset) for name, dataset in others.items()}


class StreamingSettings(Section):
    """Kafka, and how its messages land in bronze."""

    bootstrap_servers: str = "localhost:9092"
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: Secret = None
    ssl_ca_file: str | None = None
    ssl_certificate_file: str | None = None
    ssl_key_file: str | None = None
    ssl_key_password: Secret = None
    trigger_seconds: float = Field(default=5.0, gt=0)
    starting_offsets: Literal["earliest", "latest"] = "earliest"
    max_messages_per_batch: int = Field(default=200_000, ge=1)
    max_message_bytes: int = Field(default=1_000_000, ge=1)
    bar_delay_seconds: float = Field(default=2.0, ge=0)
    lateness_minutes: float = Field(default=10.0, ge=0)
    future_seconds: float = Field(default=60.0, ge=0)
    heal_hours: float = Field(default=24.0, ge=0)
    compact_minutes: float = Field(default=5.0, ge=0)
    dlq_topic: str | None = "lakehouse.dlq"
    topics: dict[str, TopicSettings] = Field(default_factory=_default_topics)

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> Self:
        given = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.security_protocol.startswith("sasl") and None in given:
            raise ValueError(
                f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password; set the last with "
                f"{ENV_PREFIX}STREAMING__SASL_PASSWORD"
            )
        return self


class MonitoringSettings(Section):
    """What serves and pushes metrics, and where alerts go. The webhook's address is a secret: who has it can write."""

    host: str = "127.0.0.1"
    exporter_port: int = Field(default=9401, ge=0, le=65_535)
    refresh_seconds: float = Field(default=30.0, gt=0)
    metrics_port: Annotated[int | None, Field(ge=0, le=65_535)] = None
    pushgateway: str | None = None
    push_timeout_seconds: float = Field(default=3.0, gt=0)
    path: Annotated[str, AfterValidator(_local_folder)] = "data/monitoring"
    slack_webhook: Secret = None
    slack_per_hour: int = Field(default=20, ge=1)
    slack_timeout_seconds: float = Field(default=3.0, gt=0)
    airflow_url: str | None = None
    airflow_username: str = "admin"
    airflow_password: Secret = None


class OrchestrationSettings(Section):
    """The scheduled runs: what they fetch by default, how they are tried again, when they are late."""

    assets: list[str] = ["BTCUSD", "ETHUSD"]
    days: int = Field(default=3, ge=1, le=366)
    engine: Literal["embedded", "spark"] = "embedded"
    retries: int = Field(default=3, ge=0)
    retry_minutes: float = Field(default=5.0, gt=0)
    deadline_minutes: float = Field(default=120.0, gt=0)
    session_idle_seconds: float = Field(default=60.0, ge=0)
    stream_lag_messages: int = Field(default=100_000, ge=0)
    grafana_url: str | None = None
    grafana_token: Secret = None
    grafana_timeout_seconds: float = Field(default=5.0, gt=0)


class ProviderSettings(Section):
    """What every provider can be told; a provider without network ignores most of it."""

    enabled: bool = True
    base_url: str = ""
    requests_per_minute: float = Field(default=60.0, gt=0)
    requests_per_day: Annotated[int | None, Field(ge=1)] = None
    burst: int = Field(default=10, ge=1)
    timeout_seconds: float = Field(default=30.0, gt=0)
    max_retries: int = Field(default=4, ge=0)
    backoff_seconds: float = Field(default=0.5, ge=0)
    backoff_cap_seconds: float = Field(default=30.0, ge=0)
    max_retry_after_seconds: float = Field(default=120.0, ge=0)
    breaker_failures: int = Field(default=5, ge=1)
    breaker_reset_seconds: float = Field(default=60.0, ge=0)


class AlphaVantageSettings(ProviderSettings):
    """Alpha Vantage; premium keys allow 75 to 1200 requests a minute, the free one 5."""

    api_key: Secret = None
    base_url: str = "https://www.alphavantage.co"
    requests_per_minute: float = Field(default=75.0, gt=0)


class CoinbaseSettings(ProviderSettings):
    """Coinbase Exchange public candles; no key."""

    base_url: str = "https://api.exchange.coinbase.com"
    requests_per_minute: float = Field(default=600.0, gt=0)


class OandaSettings(ProviderSettings):
    """OANDA v20."""

    api_token: Secret = None
    base_url: str = "https://api-fxpractice.oanda.com"
    requests_per_minute: float = Field(default=3000.0, gt=0)
    burst: int = Field(default=50, ge=1)
    price_side: Literal["mid", "bid", "ask"] = "mid"


class YfinanceSettings(ProviderSettings):
    """Yahoo Finance through the yfinance package; no key."""

    base_url: str = "https://query2.finance.yahoo.com"


class FredSettings(ProviderSettings):
    """FRED macro series."""

    api_key: Secret = None
    base_url: str = "https://api.stlouisfed.org"
    requests_per_minute: float = Field(default=120.0, gt=0)


class FilesSettings(ProviderSettings):
    """Bars and records from local files."""


class SampleSettings(ProviderSettings):
    """The offline, deterministic, synthetic provider."""

    seed: int = 20_240_101


class ProvidersSettings(Section):
    """Every provider, and the order in which they are asked."""

    chain: list[str] = ["alpha_vantage", "coinbase", "oanda", "yfinance"]
    alpha_vantage: AlphaVantageSettings = AlphaVantageSettings()
    coinbase: CoinbaseSettings = CoinbaseSettings()
    oanda: OandaSettings = OandaSettings()
    yfinance: YfinanceSettings = YfinanceSettings()
    fred: FredSettings = FredSettings()
    files: FilesSettings = FilesSettings()
    sample: SampleSettings = SampleSettings()


class Settings(Section):
    """Everything that can be set. Relative paths are taken from the project's root folder."""

    delta_lake: DeltaLakeSettings = DeltaLakeSettings()
    storage: StorageSettings = StorageSettings()
    spark: SparkSettings = SparkSettings()
    ingest: IngestSettings = IngestSettings()
    dlq: DlqSettings = DlqSettings()
    quality: QualitySettings = QualitySettings()
    transform: TransformSettings = TransformSettings()
    streaming: StreamingSettings = StreamingSettings()
    costs: CostSettings = CostSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    orchestration: OrchestrationSettings = OrchestrationSettings()
    providers: ProvidersSettings = ProvidersSettings()

    root: ClassVar[Path] = PROJECT_ROOT

    def resolve(self, path: str) -> str:
        """Return a setting's path as an absolute one; an object-store address is left as it is."""
        return path if "://" in path else str(self.root / Path(path).expanduser())


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of settings and how to name a key of it in an error."""

    label: str
    values: dict[str, Any]

    def has(self, location: tuple[str, ...]) -> bool:
        node: Any = self.values
        for part in location:
            if not isinstance(node, Mapping) or part not in node:
                return False
            node = node[part]
        return True

    def key(self, location: tuple[str, ...]) -> str:
        if self.label == "the environment":
            return ENV_PREFIX + "__".join(part.upper() for part in location)
        return ".".join(location)


def load_settings(
    config: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Load and validate the settings.

    Args:
        config: another config.yaml; its config.local.yaml is looked for beside it.
        overrides: nested values from the command line, which win.
        environ: the environment; `os.environ` over the `.env` file of the project root by default.

    Raises:
        ConfigError: a file is missing or not YAML, or a key is unknown or has a wrong value.
    """
    path = Path(config) if config else CONFIG_DIR / "config.yaml"
    if config and not path.is_file():
        raise ConfigError(f"no settings file at {path}; give --config an existing YAML file")
    local = path.with_name(f"{path.stem}.local{path.suffix}")
    variables = {**_dotenv(), **os.environ} if environ is None else environ
    layers = [
        _Layer(str(path), _read_yaml(path)),
        _Layer(str(local), _read_yaml(local)),
        _Layer("the environment", _from_environment(variables)),
        _Layer("the command line", dict(overrides or {})),
    ]
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge_into(merged, layer.values)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, layers))) from None


def settings_from(config: Settings | Mapping[str, Any] | Path | str | None) -> Settings:
    """Return settings from what a caller has: settings, a nested mapping of overrides, a file's path, or nothing."""
    if isinstance(config, Settings):
        return config
    if isinstance(config, Mapping):
        return load_settings(overrides=config)
    return load_settings(config)


def _dotenv() -> dict[str, str]:
    values = dotenv_values(PROJECT_ROOT / ".env")
    return {key: value for key, value in values.items() if value is not None}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        # In C: every command waits for this, and the default is five times slower.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping of sections, not a {type(values).__name__}")
    return values


# The names the vendors' own documentation uses; they save a user the long form.
_WELL_KNOWN = {
    "ALPHA_VANTAGE_API_KEY": ("providers", "alpha_vantage", "api_key"),
    "ALPHAVANTAGE_API_KEY": ("providers", "alpha_vantage", "api_key"),
    "OANDA_API_TOKEN": ("providers", "oanda", "api_token"),
    "FRED_API_KEY": ("providers", "fred", "api_key"),
}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, known in _WELL_KNOWN.items():
        if environ.get(name):
            _put(values, known, environ[name])
    for name, text in sorted(environ.items()):
        if name.upper().startswith(ENV_PREFIX):
            location = tuple(part.lower() for part in name[len(ENV_PREFIX) :].split("__"))
            _put(values, location, text if _is_text(location) else _parsed(text))
    return values


def _parsed(text: str) -> object:
    """Read a variable as YAML, so that numbers, lists and booleans arrive as such."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_text(location: tuple[str, ...]) -> bool:
    """Say whether the setting is text or a secret, which YAML must not turn into a number."""
    model = _model_at(location[:-1])
    field = model.model_fields.get(location[-1]) if model else None
    if field is None:
        return False
    return field.annotation is str or SecretStr in get_args(field.annotation)


def _put(values: dict[str, Any], location: tuple[str, ...], value: object) -> None:
    for part in location[:-1]:
        child = values.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{ENV_PREFIX}{'__'.join(location).upper()} sets a key inside a plain value")
        values = child
    values[location[-1]] = value


def _merge_into(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge_into(base[key], value)
        elif isinstance(value, Mapping):
            base[key] = {}
            _merge_into(base[key], value)
        elif value is not None or key not in base:
            base[key] = value


def _explain(error: ValidationError, layers: list[_Layer]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        location = tuple(str(part) for part in problem["loc"])
        layer = next((layer for layer in reversed(layers) if layer.has(location)), None)
        where, key = (layer.label, layer.key(location)) if layer else ("the settings", ".".join(location))
        if problem["type"] == "extra_forbidden":
            yield f"{where}: unknown key {key}{_nearest(location, layer)}"
        else:
            yield f"{where}: {key}: {problem['msg']}"


def _nearest(location: tuple[str, ...], layer: _Layer | None) -> str:
    model = _model_at(location[:-1])
    names = list(model.model_fields) if model else []
    close = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
    if close:
        valid = (*location[:-1], close[0])
        return f"; did you mean {layer.key(valid) if layer else '.'.join(valid)}?"
    return f"; valid here: {', '.join(names)}" if names else ""


def _model_at(location: tuple[str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Settings
    for part in location:
        field = model.model_fields.get(part) if model else None
        annotation = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return model
