"""The application with its dashboard in this process, and an operator's browser without scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgefl_server.dashboard import add_dashboard
from edgefl_server.http import create_app
from edgefl_server.roles import Role
from edgefl_server.storage import add_operator
from model_files import make_model_file

OWN = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
"""What a browser says of a form of the same server."""
ADMIN = "operators-token"


@dataclass
class Visit:
    """A browser that follows no redirect."""

    client: TestClient
    fleet: Any

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={"Accept": "text/html", **headers}, follow_redirects=False)

    def post(self, path: str, form: dict[str, str], **headers: str) -> Any:
        return self.client.post(path, data=form, headers={**OWN, **headers}, follow_redirects=False)

    def sign_in(self, key: str = ADMIN, next: str = "/") -> Any:
        return self.post("/sign-in", {"key": key, "next": next})

    def token(self) -> str:
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self.get("/").text)
        assert found
        return found[1]

    def create(self, token: str | None = None, headers: dict[str, str] = OWN, **settings: object) -> Any:
        query = {"population": "people", "rounds": 2, "target": 1, "seed": 7, **settings}
        sent = {**headers, "X-EdgeFL-Form": self.token() if token is None else token, "Accept": "application/json"}
        return self.client.post("/new", params=query, content=make_model_file(), headers=sent)

    def run(self, **settings: object) -> str:
        answer = self.create(**settings)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["page"])

    def key(self, role: Role) -> str:
        return add_operator(self.fleet.state, f"a {role}", role)


@pytest.fixture
def visit_of(fleet: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a browser on the application of the fleet's state."""
    clients: list[TestClient] = []

    def make(**settings: Any) -> Visit:
        app = create_app(fleet.state, ADMIN)
        add_dashboard(app, **settings)
        clients.append(TestClient(app, raise_server_exceptions=False))
        clients[-1].__enter__()
        return Visit(clients[-1], fleet)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def visit(visit_of: Callable[..., Visit]) -> Visit:
    return visit_of()
