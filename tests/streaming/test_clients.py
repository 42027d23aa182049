"""How Kafka's clients are told of the brokers, and what they say when there is none. Listeners are a real broker's."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import UserScramCredentialUpsertion

from pipelines.config import Settings, StreamingSettings
from pipelines.errors import ConfigError
from pipelines.streaming.clients import (
    BrokerError,
    Offsets,
    TopicNotFoundError,
    admin,
    confluent_options,
    connected,
    consumer,
    kafka_options,
    offsets,
    spark_options,
)
from pipelines.streaming.ports import reserved_port
from tests.servers.certificates import Authority
from tests.servers.kafka import PASSWORD, USER

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.servers.kafka import Broker

# What shows of the password even where it was quoted by somebody.
TELLTALE = PASSWORD.rpartition("\\")[2]
HOSTILE = 'a"b\\c\nd'
SECURED = [
    ("sasl_plaintext", "PLAIN"),
    ("sasl_plaintext", "SCRAM-SHA-256"),
    ("sasl_plaintext", "SCRAM-SHA-512"),
    ("ssl", "PLAIN"),
    ("sasl_ssl", "PLAIN"),
    ("sasl_ssl", "SCRAM-SHA-512"),
]


def streaming(**wanted: Any) -> StreamingSettings:
    return StreamingSettings.model_validate(wanted)


def sasl(mechanism: str, protocol: str = "sasl_plaintext", password: str = HOSTILE) -> StreamingSettings:
    return streaming(
        bootstrap_servers="one:1, two:2", security_protocol=protocol,
        sasl_mechanism=mechanism, sasl_username="me", sasl_password=password,
    )  # fmt: skip


@pytest.fixture
def pems(tmp_path: Path) -> dict[str, str]:
    """Settings of files that are there, with a key under a password."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client", "open sesame")
    return {
        "ssl_ca_file": str(authority.certificate),
        "ssl_certificate_file": str(certificate),
        "ssl_key_file": str(key),
        "ssl_key_password": "open sesame",
    }


# ---- what clients are told


def test_without_security_only_addresses_are_told() -> None:
    told = streaming(bootstrap_servers="one:1, two:2", sasl_username="unused", sasl_password="unused")
    assert kafka_options(told) == {
        "bootstrap_servers": ["one:1", "two:2"],
        "client_id": "lakehouse",
        "security_protocol": "PLAINTEXT",
    }
    assert confluent_options(told) == {
        "bootstrap.servers": "one:1, two:2",
        "client.id": "lakehouse",
        "security.protocol": "plaintext",
    }
    assert spark_options(told) == {
        "kafka.bootstrap.servers": "one:1, two:2",
        "kafka.security.protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize(
    ("mechanism", "module"),
    [
        ("PLAIN", "org.apache.kafka.common.security.plain.PlainLoginModule"),
        ("SCRAM-SHA-256", "org.apache.kafka.common.security.scram.ScramLoginModule"),
        ("SCRAM-SHA-512", "org.apache.kafka.common.security.scram.ScramLoginModule"),
    ],
)
@pytest.mark.parametrize("protocol", ["sasl_plaintext", "sasl_ssl"])
def test_every_client_is_told_who_we_are(mechanism: str, module: str, protocol: str) -> None:
    told = sasl(mechanism, protocol)
    assert kafka_options(told) == {
        "bootstrap_servers": ["one:1", "two:2"],
        "client_id": "lakehouse",
        "security_protocol": protocol.upper(),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "me",
        "sasl_plain_password": HOSTILE,
    }
    found = confluent_options(told)
    assert (found["sasl.mechanism"], found["sasl.username"], found["sasl.password"]) == (mechanism, "me", HOSTILE)
    assert found["security.protocol"] == protocol
    found = spark_options(told)
    assert found["kafka.security.protocol"] == protocol.upper()
    assert found["kafka.sasl.mechanism"] == mechanism
    assert found["kafka.sasl.jaas.config"] == f'{module} required username="me" password="a\\"b\\\\c\\nd";'


def test_every_client_is_told_of_certificates(pems: dict[str, str]) -> None:
    told = streaming(security_protocol="ssl", **pems)
    found = kafka_options(told)
    assert {name: value for name, value in found.items() if name.startswith("ssl_")} == {
        "ssl_cafile": pems["ssl_ca_file"],
        "ssl_certfile": pems["ssl_certificate_file"],
        "ssl_keyfile": pems["ssl_key_file"],
        "ssl_password": "open sesame",
    }
    found = confluent_options(told)
    assert {name: value for name, value in found.items() if name.startswith("ssl.")} == {
        "ssl.ca.location": pems["ssl_ca_file"],
        "ssl.certificate.location": pems["ssl_certificate_file"],
        "ssl.key.location": pems["ssl_key_file"],
        "ssl.key.password": "open sesame",
    }
    # It opens the files, and knows every option.
    AdminClient(found)
    found = spark_options(told)
    key = found.pop("kafka.ssl.keystore.key")
    assert {name: value for name, value in found.items() if name.startswith("kafka.ssl.")} == {
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": pems["ssl_ca_file"],
        "kafka.ssl.keystore.type": "PEM",
        "kafka.ssl.keystore.certificate.chain": Path(pems["ssl_certificate_file"]).read_text("utf-8"),
    }
    assert numbers(key) == numbers(Path(pems["ssl_key_file"]).read_text("utf-8"), "open sesame")


def numbers(pem: str, password: str | None = None) -> object:
    """Return what a private key is, however it is written."""
    key = serialization.load_pem_private_key(pem.encode(), password.encode() if password else None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers()


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("password", [None, "open sesame"])
@pytest.mark.parametrize("beside_certificate", [True, False])
def test_spark_is_given_any_key_as_java_reads_it(
    pems: dict[str, str], tmp_path: Path, form: str, password: str | None, beside_certificate: bool
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), hidden)
    certificate, file = Path(pems["ssl_certificate_file"]), tmp_path / "own.pem"
    file.write_bytes((certificate.read_bytes() if beside_certificate else b"") + text)
    told = {"ssl_certificate_file": str(file if beside_certificate else certificate), "ssl_key_password": password}
    if not beside_certificate:
        told["ssl_key_file"] = str(file)
    given = spark_options(streaming(security_protocol="ssl", **told))["kafka.ssl.keystore.key"]
    assert given.startswith("-----BEGIN PRIVATE KEY-----")
    assert numbers(given) == key.private_numbers()


@pytest.mark.parametrize("password", [None, "wrong", ""])
def test_a_key_that_cannot_be_read_is_named(pems: dict[str, str], password: str | None) -> None:
    with pytest.raises(ConfigError, match=r"streaming\.ssl_key_file: no key .*streaming\.ssl_key_password") as error:
        spark_options(streaming(security_protocol="ssl", **pems | {"ssl_key_password": password}))
    assert "wrong" not in str(error.value)


@pytest.mark.parametrize("told", [kafka_options, confluent_options, spark_options])
def test_a_file_that_is_not_there_is_named(told: Callable[[StreamingSettings], object], tmp_path: Path) -> None:
    lost = {"ssl_ca_file": str(tmp_path / "lost.pem")}
    with pytest.raises(ConfigError, match=r"streaming\.ssl_ca_file: no file .*lost\.pem"):
        told(streaming(security_protocol="ssl", **lost))
    told(streaming(security_protocol="plaintext", **lost))


def test_no_secret_shows() -> None:
    settings = Settings(streaming=sasl("PLAIN", password="telltale"))
    shown = [repr(settings), str(settings), settings.model_dump_json()]
    for told in (kafka_options, confluent_options, spark_options):
        options = told(settings.streaming)
        shown += [repr(options), str(options), f"{options}", "%s" % options]  # noqa: UP031
        assert "telltale" in "".join(map(str, options.values()))
    assert not [each for each in shown if "telltale" in each]


# ---- no broker


def test_a_broker_that_is_not_there_is_told_within_seconds(caplog: pytest.LogCaptureFixture) -> None:
    address = f"127.0.0.1:{reserved_port()}"
    settings = Settings(streaming=streaming(bootstrap_servers=address))
    before, threads = time.monotonic(), set(threading.enumerate())
    with pytest.raises(BrokerError, match=rf"{address}.*REFUSED.*streaming\.bootstrap_servers"), consumer(settings):
        pass
    assert time.monotonic() - before < 10
    assert set(threading.enumerate()) <= threads
    # The error says it all; a warning for each attempt would bury it.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_client_that_is_ended_while_it_connects_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(KafkaConsumer):  # type: ignore[misc]
        def __init__(self, **options: object) -> None:
            super().__init__(**options, api_version=(4, 1))
            raise KeyboardInterrupt

    threads = set(threading.enumerate())
    told = streaming(bootstrap_servers=f"127.0.0.1:{reserved_port()}")
    with pytest.raises(KeyboardInterrupt), connected(told, Interrupted):
        pass
    assert set(threading.enumerate()) <= threads


# ---- a real broker


@pytest.fixture(scope="session")
def users(kafka: Broker) -> Broker:
    """The broker, which knows the user by both kinds of SCRAM too."""
    with admin(Settings(streaming=streaming(bootstrap_servers=kafka.bootstrap))) as client:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            # A broker takes one a request.
            answer = client.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, PASSWORD)])
            assert answer == {USER: None}
    return kafka


@pytest.fixture
def topic(kafka: Broker) -> Iterator[str]:
    """A topic of two partitions."""
    name = f"some_{uuid.uuid4().hex[:12]}"
    with admin(Settings(streaming=streaming(bootstrap_servers=kafka.bootstrap))) as client:
        client.create_topics({name: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
        yield name
        client.delete_topics([name])


def sent_by_kafka_python(told: StreamingSettings, topic: str, values: list[bytes]) -> None:
    with connected(told, KafkaProducer) as producer:
        for value in values:
            producer.send(topic, value, partition=0).get(10)


def sent_by_confluent(told: StreamingSettings, topic: str, values: list[bytes]) -> None:
    producer = confluent_kafka.Producer(confluent_options(told))
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def read_by_kafka_python(told: StreamingSettings, topic: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    with consumer(Settings(streaming=told)) as client:
        client.assign([TopicPartition(topic, 0)])
        client.seek_to_beginning()
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            found += [record.value for records in client.poll(500).values() for record in records]
    return found


def read_by_confluent(told: StreamingSettings, topic: str, count: int) -> list[bytes]:
    client = confluent_kafka.Consumer(confluent_options(told) | {"group.id": topic, "enable.auto.commit": False})
    client.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found = client.consume(count, 20)
    client.close()
    return [message.value() for message in found]


@pytest.mark.kafka
@pytest.mark.parametrize(("protocol", "mechanism"), SECURED)
def test_messages_go_through_every_secured_listener(users: Broker, topic: str, protocol: str, mechanism: str) -> None:
    told = streaming(**users.secured(protocol, mechanism))
    sent_by_kafka_python(told, topic, [b"one", b"two"])
    sent_by_confluent(told, topic, [b"three"])
    assert read_by_confluent(told, topic, 3) == [b"one", b"two", b"three"]
    assert read_by_kafka_python(told, topic, 3) == [b"one", b"two", b"three"]


@pytest.mark.kafka
def test_a_wrong_password_is_told_and_not_shown(kafka: Broker, caplog: pytest.LogCaptureFixture) -> None:
    told = streaming(**kafka.secured("sasl_plaintext") | {"sasl_password": "telltale"})
    caplog.set_level(logging.DEBUG)
    with (
        # A broker does not always say why before it hangs up.
        pytest.raises(BrokerError, match=rf"sasl_plaintext as {USER}\): .*security settings") as error,
        admin(Settings(streaming=told)),
    ):
        pass
    assert "telltale" not in str(error.value) + caplog.text
    assert error.value.__cause__ is None


@pytest.mark.kafka
def test_a_broker_that_another_authority_vouches_for_is_not_trusted(kafka: Broker, tmp_path: Path) -> None:
    settings = Settings(
        streaming=streaming(**kafka.secured("ssl") | {"ssl_ca_file": str(Authority(tmp_path).certificate)})
    )
    with pytest.raises(BrokerError, match=r"certificate verify failed.*security settings"), admin(settings):
        pass


@pytest.mark.kafka
def test_what_is_logged_of_a_connection_shows_no_password(users: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for mechanism in ("PLAIN", "SCRAM-SHA-256"):
        settings = Settings(streaming=streaming(**users.secured("sasl_plaintext", mechanism)))
        with admin(settings) as client:
            client.list_topics()
        with consumer(settings) as reader:
            reader.topics()
    logged = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    assert "MetadataRequest" in logged, "requests are logged at this level"
    assert TELLTALE not in logged


@pytest.mark.kafka
def test_offsets_are_what_a_topic_holds(kafka: Broker, topic: str) -> None:
    settings = Settings(streaming=streaming(bootstrap_servers=kafka.bootstrap))
    assert offsets(settings, topic) == Offsets({0: 0, 1: 0}, {0: 0, 1: 0})
    sent_by_confluent(settings.streaming, topic, [b"a", b"b", b"c"])
    with admin(settings) as client:
        client.delete_records({TopicPartition(topic, 0): 2})
    found = offsets(settings, topic)
    assert found == Offsets({0: 2, 1: 0}, {0: 3, 1: 0})
    assert found.held == 1
    with consumer(settings) as client:
        assert offsets(settings, topic, client) == found


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_named_and_not_made(kafka: Broker) -> None:
    settings = Settings(streaming=streaming(bootstrap_servers=kafka.bootstrap))
    with pytest.raises(TopicNotFoundError, match=r"no topic 'nobody' at .*lakehouse topics create nobody"):
        offsets(settings, "nobody")
    with admin(settings) as client:
        assert "nobody" not in client.list_topics()


@pytest.mark.kafka
@pytest.mark.spark
@pytest.mark.parametrize(("protocol", "mechanism"), SECURED)
def test_spark_reads_through_every_secured_listener(
    users: Broker, topic: str, protocol: str, mechanism: str, spark: SparkSession
) -> None:
    told = streaming(**users.secured(protocol, mechanism))
    sent_by_confluent(told, topic, [b"one", b"two"])
    read = spark.read.format("kafka").options(**spark_options(told)).option("subscribe", topic).load()
    assert [bytes(row.value) for row in read.sort("offset").collect()] == [b"one", b"two"]
    plan = read._jdf.queryExecution().toString()
    secrets = [TELLTALE, "PRIVATE KEY", "key-password-of-the-tests"]
    assert "kafka" in plan.lower()
    assert not [secret for secret in secrets if secret in plan]


@pytest.mark.spark
@given(user=st.text(min_size=1, max_size=12), password=st.text(min_size=1, max_size=12))
@example(user='a"b', password=HOSTILE)
@example(user="\\", password='\\"; x="')
def test_java_understands_every_user_and_password(spark: SparkSession, user: str, password: str) -> None:
    told = streaming(
        security_protocol="sasl_ssl", sasl_mechanism="PLAIN", sasl_username=user, sasl_password=password
    )  # fmt: skip
    jvm = spark._jvm
    assert jvm is not None
    kafka = jvm.org.apache.kafka.common
    text = str(spark_options(told)["kafka.sasl.jaas.config"])
    configs = jvm.java.util.HashMap()
    configs.put("sasl.jaas.config", kafka.config.types.Password(text))
    (entry,) = kafka.security.JaasContext.loadClientContext(configs).configurationEntries()
    assert dict(entry.getOptions()) == {"username": user, "password": password}
