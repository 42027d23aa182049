"""The broker of the tests: the product's local one, with short retention, and if wanted with SASL and TLS too."""

from __future__ import annotations

from typing_extensions import override

from pipelines.streaming.broker import LocalBroker
from tests.servers.certificates import Authority

# Made up, and of no use anywhere else; the password has what is easily lost on the way to a client.
USER = "lakehouse-tests"
PASSWORD = 'quo"te\\back, =semi; $end'
KEY_PASSWORD = "key-password-of-the-tests"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_SECURED = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "BOTH": "SASL_SSL"}


class Broker(LocalBroker):
    """With `secured` it also listens with SASL, with TLS (and asks for a certificate) and with both."""

    def __init__(self, *, secured: bool = False) -> None:
        super().__init__()
        self._secured = secured
        self.authority = Authority(self.folder)

    def secured(self, protocol: str, mechanism: str = "PLAIN") -> dict[str, object]:
        """Return the settings `streaming` that a client needs for a protocol, as sasl_ssl."""
        listener = {"sasl_plaintext": "SASL", "ssl": "TLS", "sasl_ssl": "BOTH"}[protocol]
        found: dict[str, object] = {"bootstrap_servers": self._address(listener), "security_protocol": protocol}
        if protocol.startswith("sasl"):
            found |= {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": PASSWORD}
        if protocol.endswith("ssl"):
            found["ssl_ca_file"] = str(self.authority.certificate)
        if protocol == "ssl":
            certificate, key = self.authority.issue("client", KEY_PASSWORD)
            found |= {"ssl_certificate_file": str(certificate), "ssl_key_file": str(key)}
            found["ssl_key_password"] = KEY_PASSWORD
        return found

    @override
    def _protocols(self) -> dict[str, str]:
        return super()._protocols() | (_SECURED if self._secured else {})

    @override
    def _values(self) -> dict[str, str]:
        values = super()._values() | {
            # What is past its retention goes while a test waits.
            "log.initial.task.delay.ms": "500",
            "log.retention.check.interval.ms": "500",
        }
        if self._secured:
            values |= _logins("sasl") | _logins("both") | self._certificates("tls") | self._certificates("both")
            values["listener.name.tls.ssl.client.auth"] = "required"
        return values

    def _certificates(self, listener: str) -> dict[str, str]:
        certificate, key = self.authority.issue(f"broker-{listener}")
        both = self.folder / f"broker-{listener}-keystore.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        prefix = f"listener.name.{listener}.ssl"
        return {
            f"{prefix}.keystore.type": "PEM",
            f"{prefix}.keystore.location": str(both),
            f"{prefix}.truststore.type": "PEM",
            f"{prefix}.truststore.location": str(self.authority.certificate),
        }


def _logins(listener: str) -> dict[str, str]:
    """Return what the broker needs to know a PLAIN user; those of SCRAM are told to it once it runs."""
    prefix = f"listener.name.{listener}"
    password = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    return {
        f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{prefix}.plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{password}";',
        f"{prefix}.scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
        f"{prefix}.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
    }
