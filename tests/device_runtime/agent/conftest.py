"""A server that speaks the protocol, in a thread, and misbehaves as it is told; a trainer without an interpreter."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.hashing import sha256
from edgefl.manifest import ModelManifest
from edgefl.wire.messages import CONTENT_TYPE, CONTROL_TYPE, Outcome, Task
from edgefl_device_runtime.agent import Device, Settings
from edgefl_device_runtime.tasks import Training
from small_manifest import make_manifest

TOKEN = "token-of-the-kitchen"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path fit.

    ``drop``: the connection is closed instead of an answer; ``lose_reply``: the same, after the request has taken
    effect; ``truncate``: half of the body is sent; ``corrupt``: the first byte of the body is flipped; a number: that
    HTTP status with the error code, as the server says it; a function: what it does with the handler is the answer.
    """

    method: str
    path: str
    kind: Any
    times: int = 1
    code: str = "fault"
    headers: dict[str, str] = field(default_factory=dict)


class FakeServer:
    """Speaks docs/protocol.md over 127.0.0.1."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tasks: list[Task] = []
        self.contents: dict[str, bytes] = {}
        self.devices: dict[str, str] = {}
        self.outcomes: dict[str, list[bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.keeps_parts = True
        self.ended: set[str] = set()
        self.active_runs = "0"
        self.refused: dict[str, tuple[int, str]] = {}
        self.abandoned: set[str] = set()
        self.lease_seconds = 100.0
        self.leases: list[str] = []
        self.renewed = threading.Event()
        self.polled = threading.Event()
        self.retry_after = "0"
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = bytearray()
                with contextlib.suppress(OSError):
                    while len(body) < length and (piece := self.rfile.read1(length - len(body))):
                        body += piece
                with server.lock, contextlib.suppress(OSError):
                    request = Request(self.command, self.path, dict(self.headers), bytes(body))
                    if len(body) < length:
                        self.close_connection = True
                        server.keep_part(request)
                    else:
                        server.answer(self, request)

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def add_content(self, data: bytes) -> str:
        self.contents[sha256(data)] = data
        return sha256(data)

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if request.method == method and path in request.path]

    def decoded(self, task_id: str) -> Outcome:
        return Outcome.decode(self.outcomes[task_id][-1])

    def answer(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        self.requests.append(request)
        fault = next((f for f in self.faults if f.method == request.method and f.path in request.path), None)
        if fault is not None:
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
        kind = fault.kind if fault else ""
        if isinstance(kind, int):
            status, body, headers = self.error(kind, fault.code)
            return self.send(handler, status, body, {**headers, **fault.headers})
        if callable(kind):
            handler.close_connection = True
            return kind(handler)
        if kind == "drop":
            handler.close_connection = True
            return None
        status, body, headers = self.reply(request)
        if kind == "lose_reply":
            handler.close_connection = True
            return None
        if kind == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        return self.send(handler, status, body, headers, half=kind == "truncate")

    def send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], half: bool = False
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if half else body)
        handler.close_connection = half

    def reply(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        path = request.path.split("/")[2:]
        authorization = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if path == ["devices"]:
            return self.enrol(authorization, json.loads(request.body))
        device, _, secret = authorization.partition(".")
        if self.devices.get(device) != sha256(secret.encode()):
            return self.error(401, "unknown_device")
        match path:
            case ["tasks", "next"]:
                self.polled.set()
                if self.tasks:
                    return 200, self.tasks[0].encode(), {"Content-Type": CONTENT_TYPE}
                remembered = json.loads(request.body or b"{}").get("remembers", [])
                ended = ",".join(run for run in remembered if run in self.ended)
                over = {"EdgeFL-Ended-Runs": ended} if ended else {}
                return 204, b"", {"Retry-After": self.retry_after, "EdgeFL-Active-Runs": self.active_runs, **over}
            case ["tasks", task_id, "lease"]:
                self.leases.append(task_id)
                self.renewed.set()
                if task_id in self.abandoned:
                    self.tasks = [task for task in self.tasks if task.task_id != task_id]
                    return self.error(410, "abandoned")
                return self.control(200, {"lease_seconds": self.lease_seconds})
            case ["tasks", _, outcome] if outcome.startswith("outcome?digest=") and self.keeps_parts:
                received = self.uploads.get(outcome.removeprefix("outcome?digest="), b"")
                return self.control(200, {"received": len(received)})
            case ["tasks", task_id, "outcome"] if request.method == "PUT":
                digest = request.headers.get("EdgeFL-Digest", "") if self.keeps_parts else ""
                if digest:
                    if not self.keep_part(request):
                        return self.error(409, "wrong_offset")
                    whole = self.uploads[digest]
                    if sha256(whole) != digest:
                        del self.uploads[digest]
                        return self.error(409, "wrong_offset")
                    request = replace(request, body=whole)
                self.tasks = [task for task in self.tasks if task.task_id != task_id]
                if task_id in self.refused:
                    return self.error(*self.refused[task_id])
                self.outcomes.setdefault(task_id, []).append(request.body)
                return self.control(202, {"task_id": task_id})
            case ["models" | "weights", content_hash] if content_hash in self.contents:
                data = self.contents[content_hash]
                if "Range" in request.headers:
                    start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    if start >= len(data):
                        return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
                    return (
                        206,
                        data[start:],
                        {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", "ETag": f'"{content_hash}"'},
                    )
                return 200, data, {"ETag": f'"{content_hash}"'}
        return self.error(404, "not_found")

    def enrol(self, token: str, document: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        if token != TOKEN:
            return self.error(401, "wrong_token")
        known = self.devices.setdefault(document["device_id"], document["secret_hash"])
        if known != document["secret_hash"]:
            return self.error(409, "identity_taken")
        return self.control(201, {"device_id": document["device_id"]})

    def keep_part(self, request: Request) -> bool:
        """What arrived of an outcome, behind what was there; False at another place."""
        digest, offset = request.headers.get("EdgeFL-Digest"), int(request.headers.get("EdgeFL-Offset", 0))
        if not self.keeps_parts or digest is None or offset != len(self.uploads.get(digest, b"")):
            return False
        self.uploads[digest] = self.uploads.get(digest, b"") + request.body
        return True

    def control(self, status: int, document: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        return status, json.dumps(document).encode(), {"Content-Type": CONTROL_TYPE}

    def error(self, status: int, code: str) -> tuple[int, bytes, dict[str, str]]:
        return self.control(status, {"error": {"code": code, "message": "expected this, got that", "hint": ""}})


class FakeTrainer:
    """Moves every parameter by the seed and the data's sum; counts what is done to it."""

    def __init__(self, manifest: ModelManifest | None = None) -> None:
        self.manifest = manifest or make_manifest()
        self.weights = np.zeros(self.manifest.layout.size, np.float32)
        self.version = "fake/1"
        self.trained = 0
        self.during_step: Any = None
        self.loss = 3.0
        self.latest_loss: float | None = None
        self.path: Path | None = None

    def start(self, weights: np.ndarray, local: Any, correction: Any) -> None:
        self.weights = weights.copy()
        initial = {each.name: np.zeros(each.shape, np.float32) for each in self.manifest.local_parameters}
        self.local_parameters = {**initial, **local}
        self.correction = correction

    def train(self, task: Task, examples: Any, progress: Any) -> Training:
        self.trained += 1
        steps = 3 * task.epochs
        for _ in range(steps):
            self.latest_loss = self.loss
            self.weights += np.float32(task.seed % 7 + float(examples.x["image"].sum()))
            self.local_parameters = {name: value + 1 for name, value in self.local_parameters.items()}
            if self.during_step is not None:
                self.during_step()
            progress()
        return Training(examples.rows, steps, {"loss_sum": (self.loss,), "rows": (float(examples.rows),)})

    def evaluate(self, examples: Any) -> Training:
        return Training(examples.rows, 0, {"loss_sum": (self.loss,), "rows": (float(examples.rows),)})

    def gradient(self, task: Task, examples: Any) -> tuple[Training, np.ndarray]:
        return self.evaluate(examples), np.full(self.manifest.layout.weight_size, 0.5, np.float32)


QUICK = Settings(
    connect_timeout=5.0,
    read_timeout=5.0,
    send_timeout=5.0,
    poll_wait=0.0,
    first_retry=0.001,
    longest_retry=0.01,
    first_lease_renewal=0.01,
    first_rest_after_trouble=0.0,
    piece=7,
    spare_disk=0,
)

MODEL = b"the bytes of a model file, long enough to be cut in the middle" * 3


class Rig:
    """A fake server with work, and devices for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = FakeServer()
        self.trainer = FakeTrainer()
        self.lines: list[str] = []
        self.data = {"x": np.ones((5, 2), np.float32), "y": np.zeros(5, np.int32)}
        self.weights = np.arange(3, dtype="<f4")
        self.model_hash = self.server.add_content(MODEL)
        self.weights_hash = self.server.add_content(self.weights.tobytes())
        self.loaded: list[bytes] = []
        self.devices: list[Device] = []

    def task(self, task_id: str = "r-1-d", **changes: Any) -> Task:
        manifest = self.trainer.manifest
        task = Task(
            population="kitchen",
            run="r",
            cohort=1,
            task_id=task_id,
            model_hash=self.model_hash,
            graph_hash=manifest.graph_hash,
            layout_hash=manifest.layout_hash,
            base_weights_hash=self.weights_hash,
            seed=3,
        )
        return replace(task, **changes)

    def device(self, **changes: Any) -> Device:
        """A device on the same state folder; an earlier one gives it up, as when its process is killed."""
        for device in self.devices:
            device._open = None
            device.close()

        def load(path: Path) -> FakeTrainer:
            self.loaded.append(path.read_bytes())
            return self.trainer

        arguments: dict[str, Any] = {
            "data": self.data,
            "token": TOKEN,
            "report": self.lines.append,
            "settings": QUICK,
            "load_trainer": load,
            "state": self.folder / "state",
            **changes,
        }
        device = Device(arguments.pop("server", self.server.url), "kitchen", **arguments)
        self.devices.append(device)
        return device

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.server.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture
def manifest() -> Any:
    return make_manifest


@pytest.fixture
def fake_trainer() -> type[FakeTrainer]:
    return FakeTrainer


@pytest.fixture
def quick() -> Settings:
    return QUICK
