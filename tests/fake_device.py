"""A device without an interpreter: its delta follows from the task's seed, so that runs can be compared bit by bit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import urllib3

from edgefl.wire.messages import CONTENT_TYPE, Correction, MetricState, Outcome, Task, TaskKind

__all__ = ["FakeDevice", "Identity", "outcome_for"]


@dataclass(frozen=True)
class Identity:
    """An id and secret that are the same in every test run."""

    device: str
    secret: str

    @classmethod
    def number(cls, index: int) -> Identity:
        return cls(
            hashlib.sha256(f"device {index}".encode()).hexdigest()[:32],
            hashlib.sha256(f"secret {index}".encode()).hexdigest(),
        )

    @property
    def secret_hash(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.device}.{self.secret}"}


def outcome_for(task: Task, weights: np.ndarray, statistic_size: int) -> Outcome:
    """A good outcome: moves the weights a little, by an amount that depends on seed and weights."""
    random = np.random.default_rng(task.seed)
    delta = (0.1 * random.normal(size=weights.size) - 0.01 * weights).astype(np.float32)
    split = weights.size - statistic_size
    gradient = task.kind == TaskKind.GRADIENT
    name = "gradient" if gradient else "delta"
    sections = [task.section(name, delta[:split])]
    if task.correction == Correction.SCAFFOLD:
        sections.append(task.section("control", random.normal(size=split).astype(np.float32)))
    if statistic_size and not gradient:
        sections.append(task.section("statistics", delta[split:]))
    rows = 5 + int(task.seed % 20)
    return Outcome(
        task.task_id,
        task.base_weights_hash,
        task.layout_hash,
        num_examples=rows,
        local_steps=3,
        sections=tuple(sections),
        metrics=(
            MetricState("loss_sum", (0.5 * rows,)),
            MetricState("rows", (float(rows),)),
            MetricState("accuracy_total", (float(rows - 1),)),
            MetricState("accuracy_count", (float(rows),)),
        ),
        trainer="fake/1",
    )


class FakeDevice:
    """Speaks the protocol over HTTP and retries for as long as the server is away.

    Args:
        url: of the server, or a function that says where it is now.
        identity: see `Identity`.
        statistic_size: elements of the model's statistics.
        patience: seconds for which a server may be away.
        make: what it makes of a task, the weights and the number of statistics.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        statistic_size: int = 4,
        patience: float = 60.0,
        make: Callable[[Task, np.ndarray, int], Outcome] = outcome_for,
    ) -> None:
        self.url = url
        self.identity = identity
        self.statistic_size = statistic_size
        self.patience = patience
        self.make = make
        self.accepted: dict[str, int] = {}
        self.refused: list[str] = []
        self._http = urllib3.PoolManager(retries=False)

    def enrol(self, population: str, token: str) -> int:
        document = {
            "device_id": self.identity.device,
            "secret_hash": self.identity.secret_hash,
            "population": population,
            "capabilities": {"runtime": "fake"},
        }
        headers = {"Authorization": f"Bearer {token}"}
        return self.call("POST", "/v1/devices", json.dumps(document).encode(), headers).status

    def step(self, wait: float = 0.0) -> bool | None:
        """One task: True when its outcome was accepted, None when there was no work."""
        task = self.take(wait)
        return None if task is None else self.send(task)

    def take(self, wait: float = 0.0) -> Task | None:
        """The device's task; None when there is no work."""
        answer = self.call("POST", "/v1/tasks/next", json.dumps({"wait": wait}).encode())
        if answer.status == 204:
            return None
        assert answer.status == 200, answer.data
        return Task.decode(answer.data)

    def send(self, task: Task) -> bool:
        """Does a task, and sends its outcome: True when it was accepted."""
        fetched = self.call("GET", f"/v1/weights/{task.base_weights_hash}")
        if fetched.status == 404:  # the task was taken away in between
            return False
        assert hashlib.sha256(fetched.data).hexdigest() == task.base_weights_hash
        outcome = self.make(task, np.frombuffer(fetched.data, "<f4"), self.statistic_size)
        answer = self.call("PUT", f"/v1/tasks/{task.task_id}/outcome", outcome.encode())
        if answer.status == 202:
            self.accepted[task.task_id] = self.accepted.get(task.task_id, 0) + 1
            return True
        self.refused.append(json.loads(answer.data)["error"]["code"])
        return False

    def work(self, until: Callable[[], bool], wait: float = 1.0) -> None:
        """Steps until told to stop."""
        while not until():
            self.step(wait)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        limit = time.monotonic() + self.patience
        kind = "application/json" if method == "POST" else CONTENT_TYPE
        all_headers = {"Content-Type": kind, **(headers or self.identity.authorization)}
        while True:
            try:
                answer = self._http.request(method, self.url + path, body=body, headers=all_headers, timeout=60)
            except urllib3.exceptions.HTTPError:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.1)  # the server is being restarted
                continue
            if answer.status < 500:
                return answer
            assert time.monotonic() < limit, answer.data
            time.sleep(0.1)
