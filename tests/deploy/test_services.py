"""The small programs in deploy/services do what the containers need of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipelines.config import PROJECT_ROOT
from pipelines.streaming.ports import reserved_port
from tests.servers.s3 import S3Server

SERVICES = PROJECT_ROOT / "deploy" / "services"


def call(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SERVICES / program, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/good": 200, "/empty": 204}.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_health_check_is_good_if_it_is_answered_with_200_and_at_no_other_time() -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert [call("answers.py", f"{url}/{path}").returncode for path in ("good", "empty", "bad")] == [0, 1, 1]
        server.shutdown()
    assert call("answers.py", f"http://127.0.0.1:{reserved_port()}/good").returncode == 1


def test_the_bucket_is_made_once(s3_server: S3Server) -> None:
    bucket = "made-by-compose"
    for _ in range(2):
        done = call("create_bucket.py", f"s3://{bucket}/lake")
        assert (done.returncode, done.stdout) == (0, f"bucket {bucket}\n"), done.stderr
    assert bucket in {each["Name"] for each in s3_server.client().list_buckets()["Buckets"]}


@pytest.mark.parametrize("password", ["", "sesame"])
def test_airflow_gets_the_password_that_was_set_and_nobody_else_may_read_it(tmp_path: Path, password: str) -> None:
    path = tmp_path / "logins" / "passwords.json"
    done = call(
        "airflow_login.py",
        AIRFLOW_ADMIN_PASSWORD=password,
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(path),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin",
    )
    if not password:
        assert (done.returncode, done.stderr, path.exists()) == (1, "set AIRFLOW_ADMIN_PASSWORD\n", False)
        return
    assert done.returncode == 0
    assert json.loads(path.read_text()) == {"admin": "sesame"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "sesame" not in done.stdout + done.stderr
