"""A server that wants to do harm: to files, to the disk, to memory, and to the process itself."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import pytest

from edgefl.errors import MessageError
from edgefl.wire.framing import PROTOCOL_VERSION
from edgefl.wire.messages import CONTENT_TYPE, CONTROL_TYPE, Correction, ExtraVector, OutcomeStatus, Reason, Task
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.memories import Memories
from edgefl_device_runtime.tasks import RunMemory

TRICKS = [
    "../identity.json",
    "../../identity.json",
    "../../../victim.txt",
    "../../../../sandbox/victim.txt",
    "..",
    ".",
    "",
    "/",
    "/tmp",
    "~/victim.txt",
    "identity.json",
    "./identity.json",
    "..\\..\\victim.txt",
    "%2e%2e%2fidentity.json",
    "..%2f..%2fvictim.txt",
    "a/../../../../victim.txt",
    "identity.json\x00",
    "victim\n.txt",
    "\x1b[2Jvictim",
    "x" * 5000,
    "．．/victim.txt",
    "0" * 63 + "/",
    "A" * 64,
]
WORDS = [each.name for each in fields(Task) if each.type in ("str", "str | None")]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # the status file is being written meanwhile
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def sandbox(rig):
    """The state folder has siblings and parents that would be worth a visit, also by an absolute path."""
    rig.folder = rig.folder / "sandbox" / "home" / "pi"
    for folder in (rig.folder, rig.folder.parent, rig.folder.parent.parent):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "victim.txt").write_text("dear to its owner")
        (folder / "identity.json").write_text("not this device's")
    rig.device().step()
    yield rig
    rig.server.tasks = []


def outside(rig):
    found = snapshot(rig.folder.parent.parent.parent)
    state = str((rig.folder / "state").relative_to(rig.folder.parent.parent.parent))
    own = {f"{state}/identity.json", f"{state}/enrolment.json", state}
    return {name: content for name, content in found.items() if name in own or not name.startswith(f"{state}/")}


@pytest.mark.parametrize("word", [*WORDS, "extra_vectors.name", "extra_vectors.sha256"])
def test_no_word_of_a_task_reaches_a_file_outside_of_the_state_folder(sandbox, word):
    rig, before = sandbox, outside(sandbox)
    device = rig.device()
    for trick in TRICKS:
        if word.startswith("extra_vectors"):
            vector = {"name": "control", "sha256": rig.weights_hash, word.partition(".")[2]: trick}
            changes = {"extra_vectors": (ExtraVector(**vector),), "correction": Correction.SCAFFOLD, "continues": ""}
        else:
            changes = {word: trick}
        rig.server.tasks = [rig.task(**changes)]
        device.step()
        assert outside(rig) == before, trick
    if "hash" in word or "sha256" in word:  # some of the tricks are ids as they should be
        assert rig.trainer.trained == 0
    # The device is as well as before.
    rig.server.tasks = [rig.task("honest")]
    device.step()
    assert rig.server.decoded("honest").status == OutcomeStatus.DONE


def test_the_words_are_all_that_a_task_has():
    assert len(WORDS) == 10
    assert {"model_hash", "base_weights_hash", "run", "task_id", "continues"} <= set(WORDS)


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_but_a_hash_or_an_id_becomes_part_of_a_path_whoever_asks(tmp_path, trick):
    cache, memories = Cache(tmp_path / "s" / "cache", 3), Memories(tmp_path / "s" / "runs")
    before = snapshot(tmp_path)
    for call in (cache.path, cache.part, cache.find, cache.adopt):
        with pytest.raises(MessageError):
            call(trick)
    if trick not in ("identity.json", "A" * 64):  # which may be the id of a run, and gets an ending
        with pytest.raises(MessageError):
            memories.keep(trick, "t", RunMemory())
        with pytest.raises(MessageError):
            memories.recall(trick, "t")
    memories.forget(trick)
    assert snapshot(tmp_path) == before


VALUES = [*TRICKS, "NaN", "Infinity", "-1", "1e400", "9" * 5000, "1e5", True, None, [], {}, -5, 10**400, 1e308, 0.0]


def json_with(handler, server, status, document):
    body = json.dumps(document).encode()
    server.send(handler, status, body, {"Content-Type": CONTROL_TYPE})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
def test_no_value_of_an_answer_touches_a_file_or_ends_the_process(sandbox, fault, value):
    rig, before = sandbox, outside(sandbox)
    error = {"error": {"code": value, "message": value, "hint": value}}
    text = "".join(letter for letter in str(value)[:4000] if letter.isprintable() and letter.isascii())
    headers = ["Retry-After", "EdgeFL-Ended-Runs", "EdgeFL-Active-Runs", "Content-Range", "ETag", "Location"]

    def sends(status, document):
        return lambda handler: json_with(handler, rig.server, status, document)

    def sends_headers(status):
        return lambda handler: rig.server.send(handler, status, b"", dict.fromkeys(headers, text))

    everywhere = {"lease_seconds": value, "received": value, "device_id": value, "task_id": value}
    rig.server.faults = [
        *(fault("POST", "/devices", sends(status, everywhere)) for status in (200, 201)),
        *(fault("POST", "/next", each) for each in (sends(200, error), sends(418, error), sends_headers(204))),
        *(fault("GET", "/models/", sends_headers(status)) for status in (200, 206, 416)),
        *(fault("POST", "/lease", sends(200, everywhere), times=1) for _ in range(2)),
        *(fault("PUT", "/outcome", each) for each in (sends(202, everywhere), sends(503, error))),
        *(fault("GET", "/outcome", sends(200, everywhere)) for _ in range(2)),
    ]
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = lambda: rig.server.renewed.wait(5)
    device = rig.device()
    device._connection._sleep = lambda seconds: None
    for _ in range(4):
        device.step()
    assert outside(rig) == before
    assert rig.trainer.trained == 1
    assert rig.server.decoded("r-1-d").status == OutcomeStatus.DONE


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), float("-inf"), -1.0, -1e-30], ids=["nan", "inf", "-inf", "-1", "tiny"]
)
@pytest.mark.parametrize("field", ["max_seconds", "deadline_seconds", "clip_norm", "learning_rate", "mu"])
def test_a_number_without_meaning_is_declined(rig, field, number):
    if field == "learning_rate" and number != number:
        pytest.skip("stands for the model's own")
    rig.server.tasks = [rig.task(**{field: number})]
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK)
    assert rig.trainer.trained == 0


@pytest.mark.parametrize("damage", ["random", "half", "empty", "newer"])
def test_a_task_that_cannot_be_read_is_told_and_the_device_asks_later_and_later(rig, fault, damage, quick):
    whole = rig.task().encode()
    body = {"random": os.urandom(500), "half": whole[: len(whole) // 2], "empty": b"", "newer": whole}[damage]
    if damage == "newer":
        body = newer_version(whole)
    rig.server.faults = [
        fault("POST", "/next", lambda handler: rig.server.send(handler, 200, body, {"Content-Type": CONTENT_TYPE}), 3)
    ]
    rig.server.tasks = [rig.task()]
    device = rig.device(settings=replace(quick, first_rest_after_trouble=1.0))
    rests = []
    for _ in range(3):
        assert device.step() is None
        rests.append(device._rest)
    assert rests == [1.0, 2.0, 4.0]
    words = "Update edgefl on the device" if damage == "newer" else "a task that cannot be read"
    assert len([line for line in rig.lines if words in line]) == 3
    assert device.step().result == "accepted"


def newer_version(message: bytes) -> bytes:
    import edgefl.wire.framing as framing

    task = Task.decode(message)
    before, framing.PROTOCOL_VERSION = framing.PROTOCOL_VERSION, PROTOCOL_VERSION + 1
    try:
        made = task.encode()
    finally:
        framing.PROTOCOL_VERSION = before
    return made


def endless(handler, head=b"", piece=b"x" * 65536):
    handler.wfile.write(head)
    try:
        while True:
            handler.wfile.write(piece)
    except OSError:
        pass


def chunked(kind, **headers):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    return head.encode()


BOMB = gzip.compress(bytes(100_000_000))
ENDLESS = {
    "chunks": lambda handler: endless(handler, chunked(CONTENT_TYPE), b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "a chunk size": lambda handler: endless(handler, chunked(CONTENT_TYPE), b"0" * 65536),
    "no length": lambda handler: endless(handler, f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\n\r\n".encode()),
    "a page": lambda handler: endless(handler, b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\n\r\n"),
    "a header": lambda handler: endless(handler, b"HTTP/1.1 200 OK\r\nX: "),
    "headers": lambda handler: endless(handler, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10000),
    "patience": lambda handler: endless(handler, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a status": lambda handler: endless(handler, b"HTTP/1.1 200 "),
    "compressed": lambda handler: endless(
        handler,
        f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Encoding: gzip\r\n\r\n".encode(),
        BOMB,
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_end_is_none_and_costs_little_memory(rig, fault, kind, quick):
    rig.server.faults = [
        fault("POST", "/next", ENDLESS[kind]),
        fault("GET", "/models/", ENDLESS[kind]),
        fault("GET", "/weights/", ENDLESS[kind]),
        fault("PUT", "/outcome", ENDLESS[kind]),
    ]
    rig.server.lock = _NoLock()  # an answer without end would hold it
    rig.server.tasks = [rig.task()]
    tracemalloc.start()
    try:
        summary = rig.device(settings=replace(quick, piece=1 << 16)).run(until_idle=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert summary.tasks == {"accepted": 1}
    assert peak < 8e6
    assert summary.bytes_down < 10e6


class _NoLock:
    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        return None


def test_a_small_compressed_answer_is_not_unpacked(rig, fault):
    headers = {"Content-Type": CONTENT_TYPE, "Content-Encoding": "gzip"}
    rig.server.faults = [fault("POST", "/next", lambda handler: rig.server.send(handler, 200, BOMB, headers))]
    tracemalloc.start()
    try:
        assert rig.device().step() is None
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert "compresses unasked" in rig.lines[0]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_only_drips_is_none(rig, fault, head, quick):
    import time

    def drip(handler):
        handler.wfile.write(head)
        try:
            for letter in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200:
                handler.wfile.write(bytes([letter]))
                time.sleep(0.1)
        except OSError:
            dripped.append(True)

    dripped = []
    rig.server.lock = _NoLock()
    rig.server.faults = [fault("POST", "/next", drip)]
    # A byte comes long before the silence is over, and yet it ends.
    device = rig.device(settings=replace(quick, read_timeout=1.0, slowest=2048.0))
    assert device.step() is None
    assert "cannot be reached" in rig.lines[0]


def sized(rig, **changes):
    return rig.task(model_bytes=len(rig.server.contents[rig.model_hash]), base_weights_bytes=12, **changes)


def test_a_download_that_measures_what_was_announced_is_taken(rig):
    rig.server.tasks = [sized(rig)]
    assert rig.device().step().result == "accepted"


@pytest.mark.parametrize("announced", [1, 10, 100])
def test_a_download_ends_at_the_announced_size(rig, announced):
    rig.server.tasks = [sized(rig) if announced == 0 else rig.task(model_bytes=announced)]
    before = rig.device()
    report = before.step()
    assert report.bytes_down < 2000
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.HASH_MISMATCH)
    assert list((rig.folder / "state" / "cache" / "models").iterdir()) == []


def test_an_endless_download_ends_at_the_announced_size(rig, fault):
    head = chunked("application/octet-stream", ETag=f'"{rig.model_hash}"')
    rig.server.lock = _NoLock()
    rig.server.faults = [
        fault("GET", "/models/", lambda handler: endless(handler, head, b"10000\r\n" + b"x" * 65536 + b"\r\n"))
    ]
    rig.server.tasks = [rig.task(model_bytes=100_000)]
    device = rig.device()
    device.step()
    assert device.summary.bytes_down < 300_000
    assert rig.server.decoded("r-1-d").reason == Reason.HASH_MISMATCH
    assert list((rig.folder / "state" / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize("announced", [1 << 50, (1 << 64) - 1, (1 << 31) + 1])
def test_what_does_not_fit_onto_the_disk_is_not_begun(rig, announced):
    rig.server.tasks = [rig.task(model_bytes=announced)]
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.OUT_OF_DISK)
    assert not rig.server.asked("GET", "/models/")
    assert "there is room for" in rig.lines[0]


def test_without_an_announced_size_a_download_leaves_the_disk_some_room(rig, monkeypatch, fault):
    monkeypatch.setattr("edgefl_device_runtime.agent.downloads.free_bytes", lambda folder: 50_000)
    head = chunked("application/octet-stream", ETag=f'"{rig.model_hash}"')
    rig.server.lock = _NoLock()
    rig.server.faults = [
        fault("GET", "/models/", lambda handler: endless(handler, head, b"1000\r\n" + b"x" * 4096 + b"\r\n"))
    ]
    rig.server.tasks = [rig.task()]
    device = rig.device()
    device.step()
    assert device.summary.bytes_down < 200_000
    assert rig.server.decoded("r-1-d").reason == Reason.OUT_OF_DISK
    assert list((rig.folder / "state" / "cache" / "models").iterdir()) == []


def test_a_full_disk_is_freed_of_what_is_not_needed_before_a_task_fails(rig, monkeypatch):
    models = rig.folder / "state" / "cache" / "models"
    models.mkdir(parents=True)
    for name in ("1" * 64, "2" * 64):
        (models / name).write_bytes(b"an older model")
    monkeypatch.setattr(
        "edgefl_device_runtime.agent.downloads.free_bytes",
        lambda folder: 10 if (models / ("1" * 64)).exists() else 10_000,
    )
    rig.server.tasks = [sized(rig)]
    assert rig.device().step().result == "accepted"


def test_a_vector_of_another_length_is_not_read_into_memory(rig, quick):
    rig.weights_hash = rig.server.add_content(bytes(4_000_000))
    rig.server.tasks = [rig.task()]
    device = rig.device(settings=replace(quick, piece=1 << 16))
    tracemalloc.start()
    try:
        device.step()
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()
    assert rig.server.decoded("r-1-d").reason == Reason.HASH_MISMATCH


def test_a_part_that_nobody_will_finish_goes_when_another_task_comes(rig):
    device = rig.device()
    device.step()
    models = rig.folder / "state" / "cache" / "models"
    (models / f"{'1' * 64}.part").write_bytes(b"begun")
    (models / f"{rig.model_hash}.part").write_bytes(rig.server.contents[rig.model_hash][:20])
    rig.server.tasks = [rig.task(kind=77)]
    device.step()
    assert [path.name for path in models.iterdir()] == [f"{rig.model_hash}.part"]
    rig.server.tasks = [rig.task()]
    device.step()
    assert rig.server.asked("GET", "/models/")[-1].headers["Range"] == "bytes=20-"


def test_on_a_full_disk_parts_do_not_survive_a_start(rig, quick):
    rig.device().step()
    models = rig.folder / "state" / "cache" / "models"
    (models / f"{'1' * 64}.part").write_bytes(b"begun")
    rig.device()
    assert len(list(models.iterdir())) == 1
    rig.device(settings=replace(quick, spare_disk=1 << 60))
    assert list(models.iterdir()) == []


def test_a_task_that_the_server_hands_out_again_and_again_without_its_content_is_asked_for_later_and_later(rig, quick):
    rig.server.tasks = [rig.task()]
    del rig.server.contents[rig.weights_hash]
    device = rig.device(settings=replace(quick, first_rest_after_trouble=1.0))
    rests = []
    for _ in range(3):
        assert device.step().result == "abandoned"
        rests.append(device._rest)
    assert rests == [1.0, 2.0, 4.0]


def test_a_download_ends_when_the_task_is_no_longer_wanted(rig, fault, quick):
    """The content comes for ever, in small pieces; the lease says that nobody waits for it."""
    head = chunked("application/octet-stream", ETag=f'"{rig.model_hash}"')

    def slowly(handler):
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"8\r\nxxxxxxxx\r\n")
                rig.server.renewed.wait(0.05)

    rig.server.lock = _NoLock()
    rig.server.faults = [fault("GET", "/models/", slowly)]
    rig.server.tasks = [rig.task(model_bytes=1 << 30)]
    rig.server.abandoned = {"r-1-d"}
    assert rig.device(settings=replace(quick, slowest=1.0)).step().result == "abandoned"
