from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState as UvicornState

from edgefl.wire.messages import CONTROL_TYPE
from edgefl_server.http.connections import Acceptor, Connections, Place, most_connections
from edgefl_server.http.protocol import MAX_HEADER_BYTES, Protocol
from edgefl_server.http.serving import Address, listen

from .raw_clients import Client


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the length of the body; at `/early` before it is read, at `/never` not at all.

    Whoever asks is known, but at `/stranger`, and at `/refused`, where the connection ends with the early answer.
    """
    if scope["path"] == "/fault":
        raise ZeroDivisionError
    if scope["path"] == "/refused":
        scope["state"]["place"].last = True
    elif scope["path"] != "/stranger":
        scope["state"]["place"].trust()
    got, more = 0, scope["path"] not in ("/early", "/refused")
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        got, more = got + len(message["body"]), message["more_body"]
    if scope["path"] == "/never":
        assert (await receive())["type"] == "http.disconnect"
        return
    body = str(got).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Serving:
    """A listener with a bound, in this loop."""

    def __init__(self, port: int, connections: Connections) -> None:
        self.port, self.connections = port, connections
        self.protocols: list[Protocol] = []
        self._clients: list[Client] = []

    async def client(self) -> Client:
        self._clients.append(await Client(self.port).open())
        return self._clients[-1]

    async def until(self, count: int) -> None:
        """Waits until so many connections are there."""
        while len(self.connections) != count:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(most: int = 100, header_seconds: float = 1000.0, tls: ssl.SSLContext | None = None) -> AsyncIterator:
    config = uvicorn.Config(
        echo, interface="asgi3", log_config=None, ws="none", h11_max_incomplete_event_size=MAX_HEADER_BYTES
    )
    config.load()
    listener, connections, state = listen(Address("127.0.0.1", 0)), Connections(most), UvicornState()
    serves = Serving(listener.getsockname()[1], connections)

    def protocol(place: Place) -> Protocol:
        serves.protocols.append(Protocol(config, state, {}, place, header_seconds=header_seconds))
        return serves.protocols[-1]

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    acceptor = Acceptor(listener, connections, protocol, tls)
    acceptor.start()
    try:
        yield serves
    finally:
        acceptor.close()
        for each in list(state.connections):
            each.transport.abort()  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
    assert complaints == []


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_small_answers_are_sent_at_once() -> None:
    async def scenario() -> None:
        async with serving() as server:
            await (await server.client()).ask("GET", "/")
            accepted = server.protocols[0].transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(scenario)


def test_an_answer_with_a_body_takes_not_much_longer_than_a_bare_one() -> None:
    """Without TCP_NODELAY the body waits for the acknowledgement of the header, which is 40 ms or 400 bare answers."""

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n0")  # type: ignore[attr-defined]

    async def scenario() -> None:
        bare = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
        async with serving() as server, bare:
            medians = []
            for port in (server.port, bare.sockets[0].getsockname()[1]):
                client = await Client(port).open()
                medians.append(statistics.median([(await client.ask("GET", "/")).seconds for _ in range(60)]))
                client.close()
            assert medians[0] < 50 * medians[1], medians

    run(scenario)


def test_the_longest_silent_connection_makes_room_for_a_new_one() -> None:
    async def scenario() -> None:
        async with serving(most=5) as server:
            silent = [await server.client() for _ in range(5)]
            await server.until(5)
            for index in range(5):
                newcomer = await server.client()
                assert (await newcomer.ask("GET", "/")).status == 200
                assert await silent[index].ended() == b""
                assert len(server.connections) == 5

    run(scenario)


def test_a_connection_between_two_requests_goes_before_one_that_has_a_request() -> None:
    async def scenario() -> None:
        async with serving(most=2) as server:
            busy, idle = await server.client(), await server.client()
            assert (await idle.ask("GET", "/")).status == 200
            busy.send_head("POST", "/", None, 5)
            while server.connections._idle.keys() != {server.protocols[1]._place} or not server.connections._busy:
                await asyncio.sleep(0.005)
            assert (await (await server.client()).ask("GET", "/")).status == 200
            assert await idle.ended() == b""
            busy.writer.write(b"12345")
            assert (await busy.answer()).body == b"5"

    run(scenario)


def test_when_every_connection_has_a_request_a_new_one_is_told_to_come_back() -> None:
    async def scenario() -> None:
        async with serving(most=3) as server:
            for _ in range(3):
                (await server.client()).send_head("POST", "/", None, 5)
            await server.until(3)
            while len(server.connections._busy) < 3:
                await asyncio.sleep(0.005)
            answer = await (await server.client()).ask("POST", "/", None, b"x" * 1000)
            assert (answer.status, answer.code) == (503, "overloaded")
            assert answer.headers["content-type"] == CONTROL_TYPE
            assert 5 <= int(answer.headers["retry-after"]) <= 20
            assert len(server.connections) == 3
            server.protocols[0].transport.abort()
            await server.until(2)
            assert (await (await server.client()).ask("GET", "/")).status == 200

    run(scenario)


def test_strangers_keep_nobody_out_however_slowly_they_send() -> None:
    async def scenario() -> None:
        async with serving(most=5) as server:
            known = await server.client()
            known.send_head("POST", "/", None, 5)
            idle = await server.client()
            assert (await idle.ask("GET", "/")).status == 200
            strangers = [await server.client() for _ in range(3)]
            for stranger in strangers:
                stranger.send_head("POST", "/stranger", None, 60_000)
                stranger.writer.write(b"{")
            while len(server.connections._busy) != 1 or not all(each.cycle for each in server.protocols[2:]):
                await asyncio.sleep(0.005)
            strangers[0].writer.write(b" ")  # makes its place no younger
            for stranger in strangers:
                newcomer = await server.client()
                assert (await newcomer.ask("GET", "/")).status == 200
                assert await stranger.ended() == b""
            assert (await idle.ask("GET", "/")).status == 200
            known.writer.write(b"12345")
            assert (await known.answer()).body == b"5"

    run(scenario)


@pytest.mark.parametrize("size", [0, 5_000_000])
def test_whoever_is_refused_can_read_why_and_is_let_go_once_all_was_sent(size: int) -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            assert (await client.ask("POST", "/refused", None, bytes(size))).body == b"0"
            assert await client.ended() == b""
            await server.until(0)

    run(scenario)


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
@pytest.mark.parametrize("after_a_request", [False, True])
def test_a_header_that_does_not_come_ends_the_connection(sent: bytes, after_a_request: bool) -> None:
    async def scenario() -> None:
        async with serving(header_seconds=0.05) as server:
            client = await server.client()
            if after_a_request:
                assert (await client.ask("GET", "/")).status == 200
            client.writer.write(sent)
            if after_a_request and not sent:
                # It keeps the connection for its next request for a while.
                await asyncio.sleep(0.2)
                assert (await client.ask("GET", "/")).status == 200
            else:
                assert await client.ended() == b""
                await server.until(0)

    run(scenario)


def test_a_request_that_takes_longer_than_a_header_may_is_left_alone() -> None:
    async def scenario() -> None:
        async with serving(header_seconds=0.05) as server:
            client = await server.client()
            client.send_head("POST", "/", None, 5)
            await asyncio.sleep(0.2)
            client.writer.write(b"12345")
            assert (await client.answer()).body == b"5"

    run(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 5000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"POST /never HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzzz\r\n",
        b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_and_logs_nothing(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            client.writer.write(sent)
            answer = await client.ended()
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 200"))
            await server.until(0)

    run(scenario)
    assert caplog.records == []


def test_an_answer_before_the_end_of_a_body_can_be_read_when_all_was_sent() -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            for _ in range(2):  # the second request comes on the same connection
                answer = await client.ask("POST", "/early", None, bytes(5_000_000))
                assert (answer.status, answer.body) == (200, b"0")
            assert (await client.ask("POST", "/", None, bytes(1000))).body == b"1000"

    run(scenario)


def test_without_files_connections_are_turned_away_and_later_accepted_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Scarce(socket.socket):
        scarce = True

        def accept(self) -> Any:
            if self.scarce:
                raise OSError(24, "Too many open files")
            return super().accept()

    async def scenario() -> None:
        monkeypatch.setattr("edgefl_server.http.connections._PAUSE_SECONDS", 0.01)
        listener = Scarce(fileno=listen(Address("127.0.0.1", 0)).detach())
        made: list[Place] = []
        acceptor = Acceptor(listener, Connections(9), lambda place: made.append(place) or asyncio.Protocol())
        acceptor.start()
        client = await Client(listener.getsockname()[1]).open()
        await asyncio.sleep(0.1)
        assert made == []
        listener.scarce = False
        while not made:
            await asyncio.sleep(0.005)
        client.close()
        acceptor.close()

    run(scenario)
    assert [record.message for record in caplog.records] == ["a connection could not be accepted: Too many open files"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side of TLS."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "c.pem", folder / "k.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=x", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def tls_client(port: int) -> Client:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = Client(port)
    client.reader, client.writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    return client


def test_tls_serves_and_a_stranger_to_it_costs_nothing(tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(most=2, tls=tls) as server:
            plain = await server.client()
            plain.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await plain.ended()
            await server.until(0)
            silent = [await server.client() for _ in range(2)]
            await server.until(2)
            client = await tls_client(server.port)
            assert (await client.ask("POST", "/", None, bytes(100_000))).body == b"100000"
            assert await silent[0].ended() == b""
            client.close()

    run(scenario)
    assert caplog.records == []


@pytest.mark.parametrize("under_way", [False, True])
def test_a_stop_does_not_wait_for_the_goodbye_of_a_client_that_does_not_read(
    tls: ssl.SSLContext, under_way: bool
) -> None:
    async def scenario() -> None:
        async with serving(tls=tls) as server:
            client = await tls_client(server.port)
            assert (await client.ask("GET", "/")).status == 200
            if under_way:
                client.send_head("POST", "/", None, 5)
                while not server.connections._busy:
                    await asyncio.sleep(0.005)
            # Below TLS, so that nothing of the server's goodbye is seen.
            client.writer.transport._ssl_protocol._transport.pause_reading()  # type: ignore[attr-defined]
            server.protocols[0].shutdown()
            if under_way:
                await asyncio.sleep(0.01)
                assert len(server.connections) == 1
                client.writer.write(b"12345")
            await asyncio.wait_for(server.until(0), 15)  # TLS's own patience is 30 s
            client.close()

    run(scenario)


def test_a_stop_lets_a_client_take_the_rest_of_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl_server.http.protocol._GOODBYE_SECONDS", 0.01)

    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            await client.ask("GET", "/")
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            server.protocols[0].transport.write(bytes(20_000_000))
            server.protocols[0].shutdown()
            await asyncio.sleep(0.1)
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await client.ended()) == 20_000_000
            await server.until(0)

    run(scenario)


def test_a_stop_gives_up_handshakes(tls: ssl.SSLContext) -> None:
    async def scenario() -> None:
        connections = Connections(9)
        listener = listen(Address("127.0.0.1", 0))
        acceptor = Acceptor(listener, connections, lambda place: asyncio.Protocol(), tls)
        acceptor.start()
        client = await Client(listener.getsockname()[1]).open()
        while len(connections) == 0:
            await asyncio.sleep(0.005)
        acceptor.close()
        assert await client.ended() == b""
        assert len(connections) == 0

    run(lambda: asyncio.wait_for(scenario(), 15))


def test_a_header_that_is_too_long_is_said_to_be_that() -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000)
            answer = await client.answer()
            assert (answer.status, answer.code) == (431, "too_large")
            assert answer.headers["content-type"] == CONTROL_TYPE

    run(scenario)


def test_what_the_stop_cut_off_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("uvicorn.error").error("Cancel %s running task(s), timeout graceful shutdown exceeded", 0)
    logging.getLogger("uvicorn.error").error("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def test_the_bound_leaves_files_for_the_rest_of_the_server() -> None:
    assert most_connections(1024) == 384
    assert most_connections(1 << 20) == 16384
    assert most_connections(64) == 16


def test_a_client_that_never_takes_its_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl_server.http.protocol._UNREAD_ANSWER_SECONDS", 0.05)

    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            client.local_socket().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await client.ask("GET", "/")
            protocol = server.protocols[0]
            protocol.transport.set_write_buffer_limits(high=1000)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            protocol.transport.write(bytes(50_000_000))
            await server.until(0)
            with contextlib.suppress(ConnectionError):
                await client.writer.drain()

    run(scenario)


def test_requests_one_behind_the_other_are_all_answered() -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            started = time.perf_counter()
            for size in (5, 50_000, 7):
                client.send_head("POST", "/", None, size)
                client.writer.write(bytes(size))
            assert [(await client.answer(started)).body for _ in range(3)] == [b"5", b"50000", b"7"]

    run(scenario)


def test_a_client_that_never_waits_for_an_answer_is_let_go() -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = await server.client()
            for _ in range(200):
                client.send_head("GET", "/", None, 0)
            assert (await client.ended()).count(b"HTTP/1.1 200") <= 5
            await server.until(0)

    run(scenario)


def test_a_fault_that_requests_show_again_and_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as server:
            for _ in range(20):
                assert (await (await server.client()).ask("GET", "/fault")).status == 500

    run(scenario)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
