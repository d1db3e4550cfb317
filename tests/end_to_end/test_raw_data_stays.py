"""What leaves a device is protocol and nothing else, down to the last byte, whatever its data."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import time

import numpy as np
import pytest

from edgefl.algorithms import SUMMARY
from edgefl.hashing import sha256
from edgefl.model_file import ModelFile
from edgefl.summaries import Summary
from edgefl.version import __version__
from edgefl.wire.messages import (
    CONTENT_TYPE,
    PROTOCOL_VERSION,
    Correction,
    Outcome,
    OutcomeStatus,
    Reason,
    Task,
    TaskKind,
)
from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
from edgefl_device_runtime.training import RUNTIMES, TrainableModel
from real_processes import write_identity
from recording_proxy import RecordingProxy, exchanges

ROUNDS = 3
TASK = r"/v1/tasks/(?P<task>[0-9a-f-]+)"
CALLS = {
    "enrol": ("POST", r"/v1/devices"),
    "poll": ("POST", r"/v1/tasks/next"),
    "lease": ("POST", TASK + "/lease"),
    "model": ("GET", r"/v1/models/(?P<hash>[0-9a-f]{64})"),
    "weights": ("GET", r"/v1/weights/(?P<hash>[0-9a-f]{64})"),
    "outcome": ("PUT", TASK + "/outcome"),
}


class Reader:
    """Knows what the server told a device, and accepts nothing else from it than the protocol's words."""

    def __init__(self, model, device, token, port):
        self.manifest = ModelFile.read(model).manifest
        self.device, self.token, self.port = device, token, port
        self.tasks = {}
        self.instances = set()

    def read(self, exchange):
        """The request's outline: everything about it except the numbers that training made."""
        request = exchange.request
        kind, match = self.kind(request)
        self.headers(kind, request)
        getattr(self, kind)(request, match.groupdict(), exchange.reply)
        body = self.outline(Outcome.decode(request.body)) if kind == "outcome" else request.body
        path = re.sub("[0-9a-f]{8,}", lambda digits: "h" * len(digits[0]), request.path)
        return kind, path, tuple((name, len(value)) for name, value in request.headers), len(request.body), body

    def kind(self, request):
        for kind, (method, path) in CALLS.items():
            match = re.fullmatch(path, request.path)
            if match and method == request.method:
                return kind, match
        raise AssertionError(f"not in the protocol: {request.method} {request.path}")

    def headers(self, kind, request):
        headers = dict(request.headers)
        assert len(headers) == len(request.headers), "a header came twice"
        assert headers.pop("Host") == f"127.0.0.1:{self.port}"
        assert headers.pop("User-Agent") == f"edgefl/{__version__}"
        assert headers.pop("Accept-Encoding") == "identity"
        # Drawn by each start of the process, the same for all of its calls.
        self.instances.add(headers.pop("EdgeFL-Instance"))
        assert len(self.instances) == 1
        assert all(re.fullmatch("[0-9a-f]{32}", instance) for instance in self.instances)
        credentials = headers.pop("Authorization")
        if kind == "enrol":
            assert credentials == f"Bearer {self.token}"
        else:
            assert re.fullmatch(f"Bearer {self.device}\\.[0-9a-f]{{64}}", credentials)
        types = {"outcome": CONTENT_TYPE, "enrol": "application/json", "poll": "application/json"}
        assert headers.pop("Content-Type", None) == types.get(kind)
        length = headers.pop("Content-Length", None)
        assert length in (None, str(len(request.body)))
        if kind == "outcome":
            assert headers.pop("EdgeFL-Digest") == hashlib.sha256(request.body).hexdigest()
            assert headers.pop("EdgeFL-Length") == str(len(request.body))
            assert headers.pop("EdgeFL-Offset") == "0"
        if kind == "weights" and "A-IM" in headers:
            # It says which of the weights that the server has told it before it could go on from.
            assert headers.pop("A-IM") == "edgefl"
            held = [re.fullmatch('"([0-9a-f]{64})"', each)[1] for each in headers.pop("If-None-Match").split(", ")]
            named = {task.base_weights_hash for task in self.tasks.values()}
            named |= {vector.sha256 for task in self.tasks.values() for vector in task.extra_vectors}
            assert named.issuperset(held)
        assert headers == {}, "a header that the protocol does not know"

    def enrol(self, request, names, reply):
        document = json.loads(request.body)
        assert set(document) == {"device_id", "secret_hash", "population", "capabilities"}
        assert document["device_id"] == self.device
        assert re.fullmatch("[0-9a-f]{64}", document["secret_hash"])
        assert document["population"] == "kitchen"
        self.capabilities(document["capabilities"])
        assert json.dumps(document).encode() == request.body  # no other spelling that could carry something

    def capabilities(self, found):
        known = {"protocol": PROTOCOL_VERSION, "machine": platform.machine(), "edgefl": __version__, "payloads": []}
        lists = {"kinds", "corrections", "weightings", "codecs", "runtimes"}
        assert set(found) == {*known, *lists, "memory_bytes"}
        assert {name: found[name] for name in known} == known
        assert found["memory_bytes"] % 2**26 == 0, "the exact number would tell devices apart"

    def poll(self, request, names, reply):
        # A device that keeps a memory of the run also asks whether it is over.
        names = [json.dumps([run])[1:-1].encode() for run in {task.run for task in self.tasks.values()}]
        remembers = [b'"remembers": [' + name + b"], " for name in names]
        assert request.body in [b"{" + each + b'"wait": 25.0}' for each in (b"", *remembers)]
        if reply is not None and reply.status == 200:
            task = Task.decode(reply.body)
            self.tasks[task.task_id] = task

    def lease(self, request, names, reply):
        assert request.body == b""
        assert names["task"] in self.tasks

    def model(self, request, names, reply):
        assert request.body == b""
        assert names["hash"] in {task.model_hash for task in self.tasks.values()}

    def weights(self, request, names, reply):
        assert request.body == b""
        named = {task.base_weights_hash for task in self.tasks.values()}
        assert names["hash"] in named.union(each.sha256 for task in self.tasks.values() for each in task.extra_vectors)

    def outcome(self, request, names, reply):
        outcome = Outcome.decode(request.body)
        # Encoding is a function of the fields: equal bytes mean that there is nothing between or behind them.
        assert outcome.encode() == request.body
        task, layout = self.tasks[names["task"]], self.manifest.layout
        assert (outcome.task_id, outcome.base_weights_hash) == (task.task_id, task.base_weights_hash)
        assert outcome.layout_hash == layout.hash
        if outcome.status != OutcomeStatus.DONE:
            assert outcome.reason != Reason.NONE
            empty = (outcome.sections, outcome.metrics, outcome.num_examples, outcome.local_steps)
            assert empty == ((), (), 0, 0), "only why"
            return
        assert outcome.reason == Reason.NONE
        assert re.fullmatch(f"edgefl/{re.escape(__version__)} ({'|'.join(RUNTIMES)})/[0-9.]+", outcome.trainer)
        if task.kind == TaskKind.STATISTICS:
            self.summary(outcome)
            return
        sizes = {"delta": layout.weight_size, "statistics": layout.statistic_size}
        if task.kind == TaskKind.GRADIENT:
            sizes = {"gradient": layout.weight_size}
        if task.correction == Correction.SCAFFOLD:
            sizes["control"] = layout.weight_size
        assert [section.name for section in outcome.sections] == [name for name, size in sizes.items() if size]
        for section in outcome.sections:
            assert section.codec == task.codec_of(section.name)
            assert section.length == sizes[section.name]
            assert len(section.payload) == 4 * section.length
            assert section.digest == hashlib.sha256(section.payload).hexdigest()
        states = ["loss_sum", "rows", *(state for metric in self.manifest.metrics for state in metric.states)]
        assert [metric.name for metric in outcome.metrics] == sorted(states)
        assert all(len(metric.values) == 1 for metric in outcome.metrics)

    def summary(self, outcome):
        """Sums, counts and the ends of a range, of each input and target by the model's own names for them."""
        (section,) = outcome.sections
        assert (section.name, outcome.metrics, outcome.local_steps) == (SUMMARY, (), 0)
        assert section.digest == hashlib.sha256(section.payload).hexdigest()
        found = Summary.decode(bytes(section.payload))
        assert found.encode() == bytes(section.payload)  # as above: nothing between or behind them
        assert found.rows == outcome.num_examples
        assert set(found.arrays) == {*self.manifest.inputs, *(target.name for target in self.manifest.targets)}

    def outline(self, outcome):
        """What is left of an outcome without its vectors, their digests, and the sums of loss and metrics."""
        sections = [(section.name, section.codec, section.length) for section in outcome.sections]
        counts = (outcome.num_examples, outcome.local_steps)
        return str((outcome.status, outcome.reason, *counts, sections, [m.name for m in outcome.metrics]))


def took_part(fleet, proxy, model, data, population="kitchen", results=None, **settings):
    """One device's whole part in a run, as it went over the wire: a reader and the connections."""
    fleet.via = proxy.port
    state = fleet.folder / "device"
    shutil.rmtree(state, ignore_errors=True)
    device = write_identity(state, 1)
    fleet.create_run(model, population, **{"rounds": ROUNDS, "target": 1, "seed": 5, "epochs": 2, **settings})
    before = len(proxy.recordings)
    summary = fleet.start_device("device", population, data).finish()
    assert summary["tasks"] == (results or {"accepted": ROUNDS})
    return Reader(model, device, fleet.token(population), proxy.port), proxy.recordings[before:], summary


@pytest.fixture
def proxy(fleet):
    proxy = RecordingProxy(fleet.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize(
    ("name", "settings"), [("mlp", {}), ("batch_norm", {}), ("federated", {"strategy": "fedsgd", "epochs": 1})]
)
def test_every_byte_is_protocol_and_nothing_but_its_numbers_depends_on_the_data(
    fleet, proxy, write_data, request, name, settings
):
    model = request.getfixturevalue(f"{name}_file")
    fleet.start_server()
    outlines, payloads = [], []
    for index, (seed, scale) in enumerate([(1, 1.0), (2, 3.0)]):
        data = write_data(f"data{index}", rows=35, seed=seed, scale=scale)
        reader, recordings, summary = took_part(fleet, proxy, model, data, **settings)
        found = [exchange for recording in recordings for exchange in exchanges(recording)]
        outline = [reader.read(exchange) for exchange in found]
        assert summary["bytes_up"] == sum(len(exchange.request.body) for exchange in found)
        assert {kind for kind, *_ in outline} - {"lease"} == set(CALLS) - {"lease"}
        # How often a device asks is the network's and the clock's doing.
        outlines.append([each for each in outline if each[0] not in ("poll", "lease")])
        sent = b"".join(bytes(recording.sent) for recording in recordings)
        assert_not_in(sent, np.load(data))
        payloads.append([e.request.body for e in found if e.request.method == "PUT"])
    assert outlines[0] == outlines[1]
    assert payloads[0] != payloads[1]  # or the two would have been the same run


@pytest.mark.parametrize("without", ["fitting columns", "rows"])
def test_a_device_that_gives_up_says_why_and_no_more(fleet, proxy, tmp_path, mlp_file, without):
    fleet.start_server()
    rows, columns = (35, 7) if without == "fitting columns" else (0, 20)
    outlines = []
    for seed in (1, 2):
        x = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
        data = tmp_path / f"data{seed}.npz"
        np.savez(data, x=x, y=np.full(rows, 3, np.int32))
        reader, recordings, _ = took_part(
            fleet, proxy, mlp_file, data, results={"reported": 1}, rounds=1, max_failures=1
        )
        found = [exchange for recording in recordings for exchange in exchanges(recording)]
        outline = [reader.read(exchange) for exchange in found]
        outlines.append([each for each in outline if each[0] not in ("poll", "lease")])
        sent = b"".join(bytes(recording.sent) for recording in recordings)
        assert not any(row[:2].tobytes() in sent for row in x)
        (reason,) = [Outcome.decode(e.request.body).reason for e in found if e.request.method == "PUT"]
        assert reason == (Reason.DATA_MISMATCH if rows else Reason.NO_DATA)
    assert outlines[0] == outlines[1]


def test_nothing_of_a_local_parameter_or_of_a_devices_control_variate_is_sent(fleet, proxy, write_data, personal_file):
    fleet.start_server()
    data = write_data("data")
    reader, recordings, _ = took_part(fleet, proxy, personal_file, data, strategy="scaffold")
    found = [exchange for recording in recordings for exchange in exchanges(recording)]
    for exchange in found:
        reader.read(exchange)
    sent = b"".join(bytes(recording.sent) for recording in recordings)
    kept = memories(personal_file, reader.tasks.values(), found, np.load(data))
    assert len(kept) == ROUNDS
    for memory in kept:
        assert set(memory.local) == {"head/kernel", "head/bias"}
        for vector in memory.local.values():
            assert_no_neighbours_in(sent, vector)
    # After the first task c_i is what was sent as its change; later ones are nobody's business.
    for memory in kept[1:]:
        assert_no_neighbours_in(sent, memory.control)


def test_statistics_are_a_summary_and_nothing_else(fleet, proxy, write_data, mlp_file):
    """How long it is depends on the data, as docs/federated-statistics.md says; who does not want that sends none."""
    fleet.start_server()
    data = write_data("data", rows=35, seed=1)
    fleet.via = proxy.port
    device = write_identity(fleet.folder / "device", 1)
    fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, kind="statistics", shown_from=1)
    summary = fleet.start_device("device", "kitchen", data).finish()
    assert summary["tasks"] == {"accepted": 1}
    reader = Reader(mlp_file, device, fleet.token("kitchen"), proxy.port)
    found = [exchange for recording in proxy.recordings for exchange in exchanges(recording)]
    kinds = {reader.read(exchange)[0] for exchange in found}
    assert kinds - {"lease"} == set(CALLS) - {"lease"}
    sent = b"".join(bytes(recording.sent) for recording in proxy.recordings)
    arrays = np.load(data)
    assert_not_in(sent, arrays)
    assert not any(
        json.dumps(row[:2].astype(float).tolist())[1:-1].replace(" ", "").encode() in sent for row in arrays["x"]
    )


def test_nothing_is_summed_up_where_the_owner_does_not_want_it(fleet, proxy, write_data, mlp_file):
    fleet.start_server()
    data = write_data("data", rows=35, seed=1)
    fleet.via = proxy.port
    device = write_identity(fleet.folder / "device", 1)
    run = fleet.create_run(mlp_file, "kitchen", rounds=1, target=1, kind="statistics", shown_from=1)
    process = fleet.start_device("device", "kitchen", data, "--tasks", "train,evaluate")
    for _ in range(600):
        if troubles := fleet.status(run)["troubles"]:
            break
        time.sleep(0.1)
    assert "lacks 'statistics' among its kinds" in str(troubles)
    process.terminate()
    reader = Reader(mlp_file, device, fleet.token("kitchen"), proxy.port)
    found = [exchange for recording in proxy.recordings for exchange in exchanges(recording, cut=True)]
    assert {reader.kind(exchange.request)[0] for exchange in found} == {"enrol", "poll"}


def memories(model, tasks, found, arrays):
    """What the device had to keep after each task, computed again."""
    bodies = {sha256(exchange.reply.body): exchange.reply.body for exchange in found if exchange.reply}
    vector = lambda digest: np.frombuffer(bodies[digest], "<f4")  # noqa: E731
    trainer, remembered, kept = ModelTrainer(TrainableModel(model)), {}, []
    for task in tasks:
        further = {each.name: vector(each.sha256) for each in task.extra_vectors}
        received = Received(vector(task.base_weights_hash), further)
        remembered = perform(task, trainer, received, dict(arrays), remembered).remembered
        kept.append(remembered[task.task_id])
    return kept


def assert_no_neighbours_in(sent, vector):
    flat = vector.ravel()
    for dtype in ("<f4", ">f4", "<f8"):
        for first in range(flat.size - 1):
            assert flat[first : first + 2].astype(dtype).tobytes() not in sent


def assert_not_in(sent, arrays):
    """No row of the data, nor two neighbouring numbers of one, is among the bytes."""
    x = np.ascontiguousarray(arrays["x"])
    for dtype in ("<f4", ">f4", "<f8", "<f2"):
        rows = x.astype(dtype)
        for row in rows:
            assert row[:2].tobytes() not in sent
            assert row.tobytes() not in sent
    assert arrays["y"].tobytes() not in sent
