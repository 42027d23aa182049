"""What Kafka's clients are told of the brokers, and of who we are; no repr of it shows a secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipelines.config import PROJECT_ROOT, StreamingSettings
from pipelines.errors import ConfigError
from pipelines.streaming.client_logs import Hidden

CLIENT_ID = "lakehouse"
_JAAS_MODULE = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_ENCRYPTED = b"ENCRYPTED"
_JAAS_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


def kafka_options(streaming: StreamingSettings) -> dict[str, Any]:
    """Return what every kafka-python client is told of the brokers and of who we are.

    Raises:
        ConfigError: a file of certificates or keys is not there.
    """
    return _given(
        {
            "bootstrap_servers": [server.strip() for server in streaming.bootstrap_servers.split(",")],
            "client_id": CLIENT_ID,
            "security_protocol": streaming.security_protocol.upper(),
            "ssl_cafile": _file(streaming, "ssl_ca_file"),
            "ssl_certfile": _file(streaming, "ssl_certificate_file"),
            "ssl_keyfile": _file(streaming, "ssl_key_file"),
            "ssl_password": _plain(streaming.ssl_key_password),
            "sasl_mechanism": _if_sasl(streaming, streaming.sasl_mechanism),
            "sasl_plain_username": _if_sasl(streaming, streaming.sasl_username),
            "sasl_plain_password": _if_sasl(streaming, _plain(streaming.sasl_password)),
        }
    )


def confluent_options(streaming: StreamingSettings) -> dict[str, Any]:
    """Return the same for a client of confluent-kafka.

    Raises:
        ConfigError: a file of certificates or keys is not there.
    """
    return _given(
        {
            "bootstrap.servers": streaming.bootstrap_servers,
            "client.id": CLIENT_ID,
            "security.protocol": streaming.security_protocol,
            "ssl.ca.location": _file(streaming, "ssl_ca_file"),
            "ssl.certificate.location": _file(streaming, "ssl_certificate_file"),
            "ssl.key.location": _file(streaming, "ssl_key_file"),
            "ssl.key.password": _plain(streaming.ssl_key_password),
            "sasl.mechanism": _if_sasl(streaming, streaming.sasl_mechanism),
            "sasl.username": _if_sasl(streaming, streaming.sasl_username),
            "sasl.password": _if_sasl(streaming, _plain(streaming.sasl_password)),
        }
    )


def spark_options(streaming: StreamingSettings) -> dict[str, str]:
    """Return the same for Spark's Kafka source, whose client is Java's.

    Raises:
        ConfigError: a file of certificates or keys is not there, or the key cannot be read.
    """
    trusted, chain = _file(streaming, "ssl_ca_file"), _file(streaming, "ssl_certificate_file")
    key = _file(streaming, "ssl_key_file") or chain
    options = {
        "bootstrap.servers": streaming.bootstrap_servers,
        "security.protocol": streaming.security_protocol.upper(),
        "ssl.truststore.type": trusted and "PEM",
        "ssl.truststore.location": trusted,
        "ssl.keystore.type": chain and "PEM",
        # As text: Java takes a file only if the key and its certificates are in it together.
        "ssl.keystore.certificate.chain": chain and Path(chain).read_text(encoding="utf-8"),
        "ssl.keystore.key": key and _key_for_java(streaming, Path(key)),
        "sasl.mechanism": _if_sasl(streaming, streaming.sasl_mechanism),
        "sasl.jaas.config": _if_sasl(streaming, _jaas(streaming)),
    }
    return {f"kafka.{name}": value for name, value in _given(options).items()}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _if_sasl(streaming: StreamingSettings, value: str | None) -> str | None:
    return value if streaming.security_protocol.startswith("sasl") else None


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else Hidden(secret.get_secret_value())


def _file(streaming: StreamingSettings, name: str) -> str | None:
    """Return the path of a file that the settings name, if Kafka is to be spoken to through TLS."""
    value: str | None = getattr(streaming, name)
    if value is None or not streaming.security_protocol.endswith("ssl"):
        return None
    path = PROJECT_ROOT / Path(value).expanduser()
    if not path.is_file():
        raise ConfigError(f"streaming.{name}: no file {path}")
    return str(path)


def _key_for_java(streaming: StreamingSettings, path: Path) -> str:
    """Return a private key as Java 17 reads it: PKCS #8, and not encrypted in a way that is newer than itself."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - few need it
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    text, password = path.read_bytes(), _plain(streaming.ssl_key_password)
    try:
        key = serialization.load_pem_private_key(text, password.encode() if password and _ENCRYPTED in text else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            f"streaming.ssl_key_file: no key can be read from {path}; it must be PEM, and an encrypted one needs "
            "streaming.ssl_key_password"
        ) from None
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Hidden(key.private_bytes(serialization.Encoding.PEM, form, plain).decode())


def _jaas(streaming: StreamingSettings) -> str | None:
    """Return how Java's client is told who we are; a password may hold quotes and backslashes."""
    if streaming.sasl_mechanism is None or streaming.sasl_username is None or streaming.sasl_password is None:
        return None
    user = streaming.sasl_username.translate(_JAAS_ESCAPES)
    password = streaming.sasl_password.get_secret_value().translate(_JAAS_ESCAPES)
    return Hidden(f'{_JAAS_MODULE[streaming.sasl_mechanism]} required username="{user}" password="{password}";')
