"""Airflow's REST API, as far as metrics need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from pipelines.errors import LakehouseError

_TIMEOUT_SECONDS = 10.0
_MOST_DAGS, _MOST_TASKS = 20, 100


class AirflowError(LakehouseError):
    """Airflow did not answer, or refused; names the address and what to look at, never the password."""


class AirflowClient:
    """Asks one web server; use it as a context manager."""

    def __init__(self, url: str, username: str, password: SecretStr | None) -> None:
        """Connects to nothing yet.

        Args:
            url: the web server, as http://localhost:8080.
            username: who asks.
            password: their password; None where the server lets everybody in.
        """
        self._url, self._username, self._password = url.rstrip("/"), username, password
        self._http = httpx.Client(base_url=self._url, timeout=_TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        self._http.headers["Authorization"] = f"Bearer {self._token()}"
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._http.close()

    def dags(self) -> list[str]:
        """Return the ids of the DAGs, paused ones too, twenty at most.

        Raises:
            AirflowError: there is no such answer; so do all others.
        """
        found = self._get("/dags", {"limit": _MOST_DAGS, "order_by": "dag_id"})
        return [str(each["dag_id"]) for each in found["dags"]]

    def newest_run(self, dag_id: str, state: str | None = None) -> Mapping[str, Any] | None:
        """Return the newest run of a DAG, of a state if one is given: dag_run_id, state, start_date, duration, …."""
        runs: Sequence[Mapping[str, Any]] = self._runs(dag_id, state)["dag_runs"]
        return runs[0] if runs else None

    def running(self, dag_id: str) -> int:
        """Return how many runs of a DAG are at work."""
        return int(self._runs(dag_id, "running")["total_entries"])

    def tasks(self, dag_id: str, run_id: str) -> list[Mapping[str, Any]]:
        """Return the tasks of a run: task_id, state, duration in seconds (null before its end), …."""
        path = f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return list(self._get(path, {"limit": _MOST_TASKS})["task_instances"])

    def _runs(self, dag_id: str, state: str | None) -> Mapping[str, Any]:
        wanted: dict[str, str | int] = {"limit": 1, "order_by": "-run_after"}
        if state is not None:
            wanted["state"] = state
        return self._get(f"/dags/{quote(dag_id, safe='')}/dagRuns", wanted)

    def _token(self) -> str:
        if self._password is None:
            answer = self._answer(lambda: self._http.get("/auth/token"))
        else:
            body = {"username": self._username, "password": self._password.get_secret_value()}
            answer = self._answer(lambda: self._http.post("/auth/token", json=body))
        return str(answer["access_token"])

    def _get(self, path: str, parameters: Mapping[str, str | int]) -> Mapping[str, Any]:
        return self._answer(lambda: self._http.get(f"/api/v2{path}", params=dict(parameters)))

    def _answer(self, ask: Callable[[], httpx.Response]) -> Mapping[str, Any]:
        try:
            answer = ask()
            answer.raise_for_status()
            found: Mapping[str, Any] = answer.json()
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            hint = "; set monitoring.airflow_username and airflow_password" if status in (401, 403) else ""
            raise AirflowError(f"Airflow at {self._url} answered {status} to {error.request.url.path}{hint}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise AirflowError(
                f"Airflow at {self._url} does not answer ({type(error).__name__}); check monitoring.airflow_url"
            ) from None
        return found
