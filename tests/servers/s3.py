"""A real S3 server on loopback (SeaweedFS, one process), with a folder of its own that goes when it stops."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

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
_UP_WITHIN_SECONDS = 60


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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


class S3Server:
    """Serves S3 on a port; use it as a context manager."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._folder = Path(tempfile.mkdtemp(prefix="lakehouse-s3-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._grpc_ports: list[int] = []

    def client(self) -> S3Client:
        """Return a client that holds the server's keys and does not wait long."""
        return boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION,
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 2}),
        )  # fmt: skip

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, cwd=self._folder)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            # Nothing in it is worth an orderly end, which takes ten seconds.
            self._process.kill()
            self._process.wait()
        for port in self._grpc_ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _command(self) -> list[str]:
        identities = [
            _identity("tests", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "Write", "List", "Tagging"),
            _identity("reader", READER_KEY, READER_SECRET, "Read", "List"),
        ]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        data = self._folder / "data"
        data.mkdir()
        master, volume, filer, *self._grpc_ports = free_ports(7)
        master_grpc, volume_grpc, filer_grpc, grpc = self._grpc_ports
        ports = {
            "master.port": master, "master.port.grpc": master_grpc,
            "volume.port": volume, "volume.port.grpc": volume_grpc,
            "filer.port": filer, "filer.port.grpc": filer_grpc,
            "s3.port": self.port, "s3.port.grpc": grpc, "s3.port.iceberg": 0, "s3.port.lance": 0,
        }  # fmt: skip
        options = {
            "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3": "true",
            "s3.config": self._folder / "s3.json", "s3.autoCreateBucket": "false",
            "filer.localSocket": self._folder / "filer.sock", "s3.localSocket": self._folder / "s3.sock",
            # A bucket takes a volume or more; files of a volume grow as they are filled.
            "volume.max": 400, "master.volumeSizeLimitMB": 64, "volume.minFreeSpace": "1",
            # It reports to its makers otherwise.
            "master.telemetry": "false",
        }  # fmt: skip
        return [str(WEED), "server", *(f"-{name}={value}" for name, value in (options | ports).items())]

    def _wait(self) -> None:
        """Wait until an object has been stored: buckets can be listed before any volume is there."""
        client, deadline, made = self.client(), time.monotonic() + _UP_WITHIN_SECONDS, False
        while True:
            try:
                if not made:
                    client.create_bucket(Bucket=BUCKET)
                    made = True
                client.put_object(Bucket=BUCKET, Key="up", Body=b"")
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    log = (self._folder / "log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"no S3 server on {self.url}: {log}") from error
                time.sleep(0.1)
            else:
                return


def _identity(name: str, key: str, secret: str, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
