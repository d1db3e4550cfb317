"""An outcome arrives over networks that are slow and break off, and little of it is sent twice."""

from __future__ import annotations

import threading
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from bad_network import BadNetwork
from edgefl.hashing import sha256
from edgefl.layout import Parameter
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.lease import AbandonedError
from edgefl_device_runtime.agent.replies import NotReachedError
from edgefl_device_runtime.agent.uploads import upload

SECRET = "a" * 64
SMALL = {"send_piece": 1 << 10, "send_buffer": 1 << 13}


@pytest.fixture
def network(server):
    made = []

    def network(**arguments):
        made.append(BadNetwork(urlsplit(server.url).port, **arguments))
        return made[-1]

    yield network
    for each in made:
        each.close()


@pytest.fixture
def connect(server, quick):
    server.devices["d"] = sha256(SECRET.encode())

    def connect(network=None, sleep=None, **settings):
        port = urlsplit(server.url).port if network is None else network.port
        extra = {} if sleep is None else {"sleep": sleep}
        connection = Connection(f"http://127.0.0.1:{port}", settings=replace(quick, **{**SMALL, **settings}), **extra)
        connection.authorization = f"Bearer d.{SECRET}"
        return connection

    return connect


def message(size):
    return np.random.default_rng(size).bytes(size)


def puts(server):
    return server.asked("PUT", "/outcome")


def test_an_outcome_that_takes_longer_than_every_time_out_arrives_at_the_first_attempt(server, connect, network):
    body = message(300_000)
    slow = network(rate=100_000)
    # The whole takes longer than each of them: what counts is a piece's time.
    connection = connect(slow, connect_timeout=1.0, send_timeout=1.0, read_timeout=1.0, slowest=20_000)
    assert upload(connection, "t", body).status == 202
    assert server.outcomes["t"] == [body]
    assert slow.connections == 1
    assert connection.bytes_up == len(body)


def test_with_a_connection_that_breaks_again_and_again_it_arrives_and_little_is_sent_twice(server, connect, network):
    body = message(200_000)
    bad = network(rate=200_000, cut_every=0.3)
    assert upload(connect(bad), "t", body).status == 202
    assert set(server.outcomes["t"]) == {body}  # the answer may have been cut off as well
    assert bad.cuts >= 2
    assert bad.up <= 1.3 * len(body)


def test_another_process_goes_on_where_the_last_one_was_killed(server, connect):
    body = message(50_000)
    server.uploads[sha256(body)] = body[:30_000]
    connection = connect()
    assert upload(connection, "t", body, begun=True).status == 202
    assert server.outcomes["t"] == [body]
    assert connection.bytes_up == 20_000


def test_a_reply_that_was_lost_costs_no_second_upload(server, connect, fault):
    body = message(50_000)
    server.faults = [fault("PUT", "/outcome", "lose_reply")]
    connection = connect()
    assert upload(connection, "t", body).status == 202
    assert connection.bytes_up == len(body)
    assert puts(server)[-1].headers["EdgeFL-Offset"] == str(len(body))
    assert set(server.outcomes["t"]) == {body}


def test_at_another_place_than_the_server_has_it_the_device_asks_and_goes_on_from_there(server, connect):
    body = message(50_000)
    server.uploads[sha256(body)] = body[:30_000]  # nobody told the device
    connection = connect()
    assert upload(connection, "t", body).status == 202
    assert server.outcomes["t"] == [body]
    assert [put.headers["EdgeFL-Offset"] for put in puts(server)] == ["0", "30000"]


def test_parts_that_do_not_fit_together_are_sent_anew(server, connect):
    body = message(50_000)
    server.uploads[sha256(body)] = b"\0" * 30_000
    assert upload(connect(), "t", body, begun=True).status == 202
    assert server.outcomes["t"] == [body]


def test_a_server_that_keeps_no_parts_is_sent_the_whole_again(server, connect, fault):
    body = message(20_000)
    server.keeps_parts = False
    server.faults = [fault("PUT", "/outcome", "drop")]
    connection = connect()
    assert upload(connection, "t", body).status == 202
    assert server.outcomes["t"] == [body]
    assert connection.bytes_up == 2 * len(body)


def test_an_outcome_of_a_task_that_the_server_does_not_know_is_not_sent_to_learn_it(server, connect, fault):
    server.faults = [fault("GET", "/outcome", 404, code="unknown_task")]
    connection = connect()
    assert upload(connection, "t", message(20_000), begun=True).code == "unknown_task"
    assert connection.bytes_up == 0


def test_an_upload_that_another_one_superseded_goes_on_from_where_that_one_is(server, connect, fault):
    body = message(20_000)
    server.faults = [fault("PUT", "/outcome", 409, code="superseded")]
    assert upload(connect(), "t", body).status == 202
    assert server.outcomes["t"] == [body]


@pytest.mark.parametrize("received", ['"all"', "-1", "true", "1e400", "NaN", "[]", "null"])
def test_a_place_that_is_no_number_is_not_believed(server, connect, fault, received):
    body = message(2_000)

    def say(handler):
        from edgefl.wire.messages import CONTROL_TYPE

        server.send(handler, 200, f'{{"received": {received}}}'.encode(), {"Content-Type": CONTROL_TYPE})

    server.faults = [fault("GET", "/outcome", say)]
    assert upload(connect(), "t", body, begun=True).status == 202
    assert server.outcomes["t"] == [body]


def test_a_line_that_works_is_tried_again_soon_and_one_that_does_not_later_and_later(server, connect, monkeypatch):
    rests = []
    connection = connect(sleep=rests.append, first_retry=1.0, longest_retry=64.0, jitter=0.0)
    received = iter([0, 1000, 2000, 2000, 2000, 2000])

    def attempt(method, path, **arguments):
        if method == "GET":
            return type("Reply", (), {"status": 200, "code": "", "document": {"received": next(received)}})
        if len(rests) == 6:
            return type("Reply", (), {"status": 202, "code": ""})
        raise NotReachedError("away", "away")

    monkeypatch.setattr(connection, "attempt", attempt)
    upload(connection, "t", message(5000))
    assert rests == [1.0, 2.0, 1.0, 1.0, 2.0, 4.0]


def test_when_the_server_no_longer_wants_it_sending_ends_at_once(server, connect, network):
    body, lost = message(400_000), threading.Event()

    def check():
        if lost.is_set():
            raise AbandonedError

    slow = network(rate=100_000)
    threading.Timer(0.3, lost.set).start()
    with pytest.raises(AbandonedError):
        upload(connect(slow), "t", body, check=check)
    assert slow.up < len(body) / 2
    assert not server.outcomes


def big_model(rig, manifest, fake_trainer, elements):
    parameters = (Parameter("dense/kernel", "s/dense/kernel", (elements, 1)),)
    rig.trainer = fake_trainer(manifest(parameters=parameters))
    rig.weights_hash = rig.server.add_content(np.zeros(elements, "<f4").tobytes())


@pytest.mark.parametrize("found_on_disk", [False, True])
def test_the_lease_is_kept_while_an_outcome_is_on_its_way(
    rig, network_for, manifest, fake_trainer, quick, found_on_disk
):
    big_model(rig, manifest, fake_trainer, 20_000)
    rig.server.tasks = [rig.task()]
    rig.server.lease_seconds = 0.1
    settings = replace(quick, **SMALL, first_lease_renewal=0.05)
    if found_on_disk:
        device = rig.device()
        device._send = lambda *arguments: None
        device.step()
        assert not rig.server.outcomes
    rig.server.leases.clear()
    rig.server.faults = []
    slow = network_for(rig.server, rate=200_000)
    assert rig.device(server=f"http://127.0.0.1:{slow.port}", settings=settings).step().result == "accepted"
    assert len(rig.server.leases) >= 2
    assert isinstance(rig.server.decoded("r-1-d"), Outcome)


def test_an_outcome_whose_task_is_lost_on_the_way_is_dropped_and_the_device_goes_on(
    rig, network_for, manifest, fake_trainer, quick
):
    big_model(rig, manifest, fake_trainer, 40_000)
    rig.server.tasks = [rig.task("lost"), rig.task("next", epochs=1)]
    settings = replace(quick, **SMALL, first_lease_renewal=0.3)
    slow = network_for(rig.server, rate=100_000)
    device = rig.device(server=f"http://127.0.0.1:{slow.port}", settings=settings)
    rig.server.abandoned = {"lost"}
    assert device.step().result == "abandoned"
    assert "lost" not in rig.server.outcomes
    assert not (rig.folder / "state" / "outcome.message").exists()
    slow.rate = 0
    assert device.step().result == "accepted"


@pytest.fixture
def network_for():
    made = []

    def network_for(server, **arguments):
        made.append(BadNetwork(urlsplit(server.url).port, **arguments))
        return made[-1]

    yield network_for
    for each in made:
        each.close()
