"""A real S3 server on loopback (SeaweedFS, one process), with a folder of its own that goes when it stops."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from typing_extensions import override

from pipelines.streaming.ports import reserved_port, reserved_ports
from tests.servers.process import OneProcess

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

WEED = Path(sys.executable).parent / "weed"
REGION = "us-east-1"
BUCKET = "lakehouse-tests"
# Made up, and of no use anywhere else.
ACCESS_KEY = "lakehouse-tests"
SECRET_KEY = "lakehouse-tests-secret"
# These may read and not write.
READER_KEY = "lakehouse-reader"
READER_SECRET = "lakehouse-reader-secret"


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def held_port() -> socket.socket:
    """Return a socket that keeps a port from everybody else; close it right before the port is used."""
    held = socket.socket()
    held.bind(("127.0.0.1", reserved_port()))
    return held


def port_of(url: str) -> int:
    """Return the port of an address."""
    return int(url.rpartition(":")[2])


def environment(port: int) -> dict[str, str]:
    """Return what a client's environment needs to use the server on that port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        # No key of the machine's own: neither from a file nor from its metadata service.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


class S3Server(OneProcess):
    """Serves S3 on a port; use it as a context manager."""

    not_up = (BotoCoreError, ClientError)

    def __init__(self, port: int) -> None:
        super().__init__("s3")
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._grpc_ports: list[int] = []
        self._made = False

    def client(self) -> S3Client:
        """Return a client that holds the server's keys and does not wait long."""
        return boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION,
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 2}),
        )  # fmt: skip

    @override
    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for port in self._grpc_ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink(missing_ok=True)

    @override
    def command(self) -> list[str]:
        identities = [
            _identity("tests", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "Write", "List", "Tagging"),
            _identity("reader", READER_KEY, READER_SECRET, "Read", "List"),
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        data = self.folder / "data"
        data.mkdir()
        # Some are first used seconds from now, so none may be one that the system hands out.
        master, volume, filer, *self._grpc_ports = reserved_ports(7, besides=[self.port])
        master_grpc, volume_grpc, filer_grpc, grpc = self._grpc_ports
        ports = {
            "master.port": master, "master.port.grpc": master_grpc,
            "volume.port": volume, "volume.port.grpc": volume_grpc,
            "filer.port": filer, "filer.port.grpc": filer_grpc,
            "s3.port": self.port, "s3.port.grpc": grpc, "s3.port.iceberg": 0, "s3.port.lance": 0,
        }  # fmt: skip
        options = {
            "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3": "true",
            "s3.config": self.folder / "s3.json", "s3.autoCreateBucket": "false",
            "filer.localSocket": self.folder / "filer.sock", "s3.localSocket": self.folder / "s3.sock",
            # A bucket takes a volume or more; files of a volume grow as they are filled.
            "volume.max": 400, "master.volumeSizeLimitMB": 64,
            # Below it no volume is made, and a write waits until its client gives up: on a big, full disk 1 % is a lot.
            "volume.minFreeSpace": "64MiB",
            # It reports to its makers otherwise.
            "master.telemetry": "false",
        }  # fmt: skip
        return [str(WEED), "server", *(f"-{name}={value}" for name, value in (options | ports).items())]

    @override
    def look(self) -> None:
        """Store an object of a byte: before any volume is there, buckets can be listed and empty objects be stored."""
        client = self.client()
        if not self._made:
            client.create_bucket(Bucket=BUCKET)
            self._made = True
        client.put_object(Bucket=BUCKET, Key="up", Body=b"1")


def _identity(name: str, key: str, secret: str, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
