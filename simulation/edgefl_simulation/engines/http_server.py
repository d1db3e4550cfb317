"""The http engine's server: a real one, in a process of its own, and the calls of its operator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from edgefl.errors import EdgeflError, RunError, RuntimeFailure, StorageError
from edgefl_simulation.engines.own_process import OwnProcess

__all__ = ["HttpServer"]

_OPERATOR = "operator.json"
_PATIENCE = 15.0
"""Seconds that a server may take to stop: those that it gives requests which are under way, and some."""
_TIMEOUT = urllib3.Timeout(connect=10, read=300)


class HttpServer:
    """A server on a free port of this machine, the same after a restart; it ends with this process, however that ends.

    Args:
        state: its folder, which it goes on from.

    Raises:
        RuntimeFailure: it does not start.

    Attributes:
        url: where it listens.
    """

    def __init__(self, state: Path) -> None:
        # What devices keep is for the server at that address, and nobody else's.
        port = str(urlsplit(_operator(state)["url"]).port) if (state / _OPERATOR).exists() else "0"
        self._process = OwnProcess(
            "The simulation's server", "http_server_process", str(state), port, patience=_PATIENCE, piped=True
        )
        try:
            line = self._process.line()
            if not line:
                raise self.death()
            self.url = str(json.loads(line)["url"])
            self._pool = urllib3.PoolManager(headers={"Authorization": f"Bearer {_operator(state)['admin_token']}"})
        except BaseException:
            self.close()
            raise

    def invite(self, population: str) -> str:
        """A token with which devices join a population."""
        body = json.dumps({"population": population}).encode()
        return str(self._json("POST", "/v1/invitations", body, "application/json")["token"])

    def create_run(self, population: str, settings: Mapping[str, Any], model: bytes) -> str:
        """Creates a run; its id.

        Args:
            population: whose devices train.
            settings: of the run, as plain values.
            model: the model file.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        query = urlencode({"population": population, **given})
        return str(self._json("POST", f"/v1/runs?{query}", model, "application/octet-stream")["run"])

    def runs(self) -> list[str]:
        """The ids of all runs, oldest first."""
        return [str(each["run"]) for each in self._json("GET", "/v1/runs")["runs"]]

    def status(self, run: str) -> dict[str, Any]:
        """Everything about a run."""
        return self._json("GET", f"/v1/runs/{run}")

    def weights(self, run: str, number: int) -> bytes:
        """The weights after a round, little-endian float32."""
        return self._call("GET", f"/v1/runs/{run}/weights?round={number}")

    def death(self) -> RuntimeFailure:
        """Says how it ended."""
        return self._process.death()

    def close(self) -> None:
        """Ends it."""
        self._process.close()

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._call(method, path, body, kind))
        return document

    def _call(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {**self._pool.headers, **({"Content-Type": kind} if kind else {})}
        try:
            answer = self._pool.request(
                method, self.url + path, body=body, headers=headers, timeout=_TIMEOUT, retries=False
            )
        except urllib3.exceptions.HTTPError:
            raise self.death() from None
        if answer.status >= 400:
            raise _refusal(answer)
        return answer.data


def _operator(state: Path) -> dict[str, str]:
    """Everything that an operator needs to reach a server.

    Raises:
        StorageError: it cannot be read.
    """
    path = state / _OPERATOR
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}.", hint="Begin the run anew, in another folder.") from error
    return found


def _refusal(answer: urllib3.BaseHTTPResponse) -> EdgeflError:
    try:
        error = json.loads(answer.data)["error"]
        return RunError(f"The server refuses: {error['message']}", hint=error.get("hint"))
    except (ValueError, KeyError, TypeError):
        return RunError(f"The server answered with status {answer.status} and no explanation.")
