"""Writes Airflow's file of passwords from AIRFLOW_ADMIN_PASSWORD: its simple login would make up one otherwise."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(environ: dict[str, str]) -> int:
    """Write the file that AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE names; returns 0, or 1 with the reason."""
    path = Path(environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    password = environ.get("AIRFLOW_ADMIN_PASSWORD")
    if not password:
        sys.stderr.write("set AIRFLOW_ADMIN_PASSWORD\n")
        return 1
    users = environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({user.partition(":")[0]: password for user in users}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))
