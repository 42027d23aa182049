"""A Kafka broker on loopback (KRaft, broker and controller in one process), for demonstrations and for tests."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self

import pyspark
from kafka import KafkaAdminClient

from pipelines.config import StreamingSettings
from pipelines.jars import jar_paths, java_command
from pipelines.streaming.clients import BrokerError, connected
from pipelines.streaming.ports import reserved_ports

_UP_WITHIN_SECONDS = 60
_DOWN_WITHIN_SECONDS = 20
_PORT_CHOICES = 5
_TOLD = 10_000
_JAVA = ["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_LOGGING = """\
status = error
appender.file.type = Console
appender.file.name = console
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{HH:mm:ss.SSS} %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = console
"""


class LocalBroker:
    """One broker; a context manager. It keeps its ports and its messages from one start to the next.

    It has a temporary folder of its own, which goes with it, and ends with this process however that ends.
    """

    def __init__(self) -> None:
        """Prepare it; nothing is started yet.

        Raises:
            JarsError: the broker's jars have not been retrieved.
        """
        self._class_path = os.pathsep.join(map(str, [*_logging_jars(), *jar_paths(["broker"])]))
        self.folder = Path(tempfile.mkdtemp(prefix="lakehouse-kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._heir: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def bootstrap(self) -> str:
        """The address of the listener that is open to all of this machine."""
        return self._address("CLIENT")

    @property
    def pid(self) -> int:
        """The id of the broker's process.

        Raises:
            BrokerError: it does not run.
        """
        if self._process is None:
            raise BrokerError("the broker is not running; start it first")
        return self._process.pid

    def start(self) -> None:
        """Start the broker, and return once it answers; the first time it chooses its ports.

        Raises:
            BrokerError: it does not come up; says what it logged last.
        """
        for left in range(_PORT_CHOICES, 0, -1):
            new = not self._properties.exists()
            if new:
                self._format()
            try:
                self._launch()
            except BrokerError as error:
                # Somebody took a port between the choice and the start.
                if not new or left == 1 or "Address already in use" not in str(error):
                    raise
                shutil.rmtree(self.folder / "data")
                self._properties.unlink()
            else:
                return

    def stop(self) -> None:
        """Ask the broker to end, and wait for it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_DOWN_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None
        self._dismiss()

    def kill(self) -> None:
        """End the broker at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None
        self._dismiss()

    def restart(self) -> None:
        """Stop the broker if it runs, and start it with the same ports and messages."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing in it is worth an orderly end.
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _protocols(self) -> dict[str, str]:
        """Return the listeners, and the security protocol of each."""
        return {"CLIENT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}

    def _values(self) -> dict[str, str]:
        """Return the broker's properties."""
        addresses = {name: f"{name}://{self._address(name)}" for name in self._ports}
        return {
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(at for name, at in addresses.items() if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in self._protocols().items()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self._address('CONTROLLER')}",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(4 << 20),
            "group.initial.rebalance.delay.ms": "0",
            # A group of one broker; topics of its own are small, and many partitions slow its start.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # By default a third of the heap.
            "log.cleaner.dedupe.buffer.size": str(4 << 20),
        }

    def _address(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def _properties(self) -> Path:
        return self.folder / "broker.properties"

    def _format(self) -> None:
        self._ports.clear()
        listeners = self._protocols()
        self._ports.update(zip(listeners, reserved_ports(len(listeners)), strict=True))
        (self.folder / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        # A value of a properties file loses a backslash.
        lines = (f"{name}={value}".replace("\\", "\\\\") for name, value in self._values().items())
        self._properties.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._run("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._properties))

    def _launch(self) -> None:
        with (self.folder / "log").open("wb") as log:
            # A Ctrl-C is for who started it, and he ends it.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command("kafka.Kafka", str(self._properties)), stdout=log, stderr=log, start_new_session=True
            )
        # Ends the broker if this process is killed: its standard input closes then.
        self._heir = subprocess.Popen(  # noqa: S603 - our own command
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"; rm -rf "$1"', str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _dismiss(self) -> None:
        if self._heir is not None:
            self._heir.kill()
            self._heir.communicate()
        self._heir = None

    def _command(self, *arguments: str) -> list[str]:
        log_file = f"-Dlog4j2.configurationFile={(self.folder / 'log4j2.properties').as_uri()}"
        return [java_command(), *_JAVA, log_file, "-cp", self._class_path, *arguments]

    def _run(self, *arguments: str) -> None:
        command = self._command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
        if done.returncode:
            raise BrokerError(f"{arguments[0]}: {done.stdout[-_TOLD:]}{done.stderr[-_TOLD:]}")

    def _wait(self) -> None:
        """Wait until the broker answers what its topics are."""
        here = StreamingSettings(bootstrap_servers=self.bootstrap)
        deadline = time.monotonic() + _UP_WITHIN_SECONDS
        while True:
            try:
                with connected(here, KafkaAdminClient, bootstrap_timeout_ms=1000) as client:
                    client.list_topics()
                    return
            except BrokerError as error:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    log = (self.folder / "log").read_text(errors="replace")[-_TOLD:]
                    raise BrokerError(f"no Kafka broker came up at {self.bootstrap}: {log}") from error


def _logging_jars() -> list[Path]:
    """Return Spark's own, in front of the broker's: alone it has nothing that writes its log."""
    jars = Path(pyspark.__file__).parent / "jars"
    return [
        path
        for name in ("slf4j-api", "log4j-slf4j2-impl", "log4j-api", "log4j-core")
        for path in jars.glob(f"{name}-*.jar")
    ]


def _cluster_id() -> str:
    # One that begins with a dash would be taken for an option.
    return "L" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
