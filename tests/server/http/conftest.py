"""The application in this process, with an operator and devices that call it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgefl.wire.messages import Outcome, Task
from edgefl_server.http import create_app
from fake_device import Identity
from model_files import make_model_file

ADMIN = {"Authorization": "Bearer operators-token"}


@dataclass
class Api:
    """Calls the application as whoever is asked for."""

    client: TestClient
    fleet: Any

    def enrol(self, index: int, *, token: str | None = None, **change: object) -> Any:
        identity = Identity.number(index)
        document = {
            "device_id": identity.device,
            "secret_hash": identity.secret_hash,
            "population": "people",
            "capabilities": {},
            **change,
        }
        given = self.fleet.token if token is None else token
        return self.client.post("/v1/devices", json=document, headers={"Authorization": f"Bearer {given}"})

    def device(self, index: int) -> dict[str, str]:
        assert self.enrol(index).status_code in (200, 201)
        return Identity.number(index).authorization

    def create_run(self, **settings: object) -> dict[str, Any]:
        query = {"population": "people", "rounds": 2, "target": 1, "seed": 7, **settings}
        answer = self.client.post("/v1/runs", params=query, content=make_model_file(), headers=ADMIN)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def task(self, headers: dict[str, str], wait: float = 0) -> Task:
        answer = self.client.post("/v1/tasks/next", json={"wait": wait, "until_idle": False}, headers=headers)
        assert answer.status_code == 200, answer.text
        return Task.decode(answer.content)

    def put(self, headers: dict[str, str], task: Task, outcome: Outcome | None = None) -> Any:
        data = (outcome or self.fleet.outcome(task)).encode()
        return self.client.put(f"/v1/tasks/{task.task_id}/outcome", content=data, headers=headers)

    def status(self, run: str) -> dict[str, Any]:
        return self.client.get(f"/v1/runs/{run}", headers=ADMIN).json()


def code(answer: Any) -> str:
    """The code of an error, whose form is checked on the way."""
    error = json.loads(answer.content)["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["message"]
    return str(error["code"])


@pytest.fixture
def api(fleet: Any) -> Iterator[Api]:
    with TestClient(create_app(fleet.state, "operators-token"), raise_server_exceptions=False) as client:
        yield Api(client, fleet)
