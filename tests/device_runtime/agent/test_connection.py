from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.certificates import certificate_pin, public_key_pin
from edgefl.errors import AuthenticationError, HashMismatchError, InvalidSettingError, ServerUnavailableError
from edgefl.hashing import sha256
from edgefl.wire.messages import CONTROL_TYPE
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.downloads import download
from edgefl_device_runtime.agent.replies import Reply, UnexpectedReplyError
from edgefl_device_runtime.agent.settings import Settings

SECRET = "a" * 64
ANOTHER_KEY = "sha256//" + "A" * 43 + "="


@pytest.fixture
def connect(server, quick):
    server.devices["d"] = sha256(SECRET.encode())

    def connect(**arguments):
        connection = Connection(arguments.pop("url", server.url), settings=quick, **arguments)
        connection.authorization = f"Bearer d.{SECRET}"
        return connection

    return connect


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", kept=3)


def polled(reply):
    return reply.active_runs is not None


def tag(content_hash):
    return {"ETag": f'"{content_hash}"'}


def test_a_download_goes_on_where_it_was_cut_off(server, connect, cache, fault):
    content_hash = server.add_content(os.urandom(1000))
    server.faults = [fault("GET", "/models/", "truncate", times=2)]
    path = download(connect(), f"/v1/models/{content_hash}", content_hash, cache)
    assert path.read_bytes() == server.contents[content_hash]
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, "bytes=500-", "bytes=750-"]


def test_a_download_whose_end_only_a_closed_connection_tells_goes_on_when_it_came_early(server, connect, cache, fault):
    content_hash = server.add_content(os.urandom(1000))
    data = server.contents[content_hash]

    def half(handler):
        head = f'HTTP/1.1 200 OK\r\nConnection: close\r\nETag: "{content_hash}"\r\n\r\n'
        handler.wfile.write(head.encode() + data[:500])

    server.faults = [fault("GET", "/models/", half)]
    path = download(connect(), f"/v1/models/{content_hash}", content_hash, cache, announced=1000)
    assert path.read_bytes() == data
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=500-"]


def test_a_download_goes_on_where_an_earlier_process_was_killed(server, connect, cache):
    content_hash = server.add_content(os.urandom(1000))
    cache.part(content_hash).write_bytes(server.contents[content_hash][:321])
    connection = connect()
    download(connection, f"/v1/models/{content_hash}", content_hash, cache)
    assert connection.bytes_down == 679


def test_a_download_that_was_complete_before_the_kill_is_not_repeated(server, connect, cache):
    content_hash = server.add_content(os.urandom(1000))
    cache.part(content_hash).write_bytes(server.contents[content_hash])
    connection = connect()
    download(connection, f"/v1/models/{content_hash}", content_hash, cache)
    assert connection.bytes_down == 0


@pytest.mark.parametrize("size", [10, 1000, 2000])
def test_a_damaged_part_is_replaced_by_a_whole_download(server, connect, cache, size):
    content_hash = server.add_content(os.urandom(1000))
    cache.part(content_hash).write_bytes(b"\0" * size)
    path = download(connect(), f"/v1/models/{content_hash}", content_hash, cache)
    assert path.read_bytes() == server.contents[content_hash]


def test_a_server_without_ranges_sends_all_again(server, connect, cache, monkeypatch):
    content_hash = server.add_content(os.urandom(1000))
    cache.part(content_hash).write_bytes(server.contents[content_hash][:321])
    monkeypatch.setattr(server, "reply", lambda request: (200, server.contents[content_hash], tag(content_hash)))
    assert download(connect(), "/v1/models/x", content_hash, cache).read_bytes() == server.contents[content_hash]


def test_a_server_that_sends_another_range_is_not_believed(server, connect, cache, monkeypatch):
    data = os.urandom(1000)
    content_hash = server.add_content(data)
    cache.part(content_hash).write_bytes(data[:321])
    wrong = {"Content-Range": "bytes 0-499/1000", **tag(content_hash)}
    replies = [(206, data[:500], wrong), (200, data, tag(content_hash))]
    monkeypatch.setattr(server, "reply", lambda request: replies.pop(0))
    assert download(connect(), "/v1/models/x", content_hash, cache).read_bytes() == data


def test_wrong_content_is_an_error_and_leaves_nothing(server, connect, cache, fault):
    content_hash = server.add_content(os.urandom(1000))
    server.faults = [fault("GET", "/models/", "corrupt")]
    with pytest.raises(HashMismatchError):
        download(connect(), f"/v1/models/{content_hash}", content_hash, cache)
    assert list(cache.folder.iterdir()) == []


def test_content_that_is_not_handed_out_is_an_error(connect, cache):
    with pytest.raises(UnexpectedReplyError) as caught:
        download(connect(), "/v1/models/" + "0" * 64, "0" * 64, cache)
    assert caught.value.reply.status == 404


def test_pauses_double_up_to_a_bound_and_are_jittered(server, connect, fault):
    rests = []
    server.faults = [fault("POST", "/next", 503, times=8)]
    connect(sleep=rests.append).call("POST", "/v1/tasks/next", shows=polled)
    expected = [0.001, 0.002, 0.004, 0.008, 0.01, 0.01, 0.01, 0.01]
    assert all(most / 2 <= rest <= most for rest, most in zip(rests, expected, strict=True))
    assert len(set(rests)) == len(rests)


def test_a_server_that_says_when_to_come_back_is_not_asked_before(server, connect, fault):
    rests = []
    server.faults = [fault("POST", "/next", 503, headers={"Retry-After": "17"})]
    connect(sleep=rests.append).call("POST", "/v1/tasks/next", shows=polled)
    assert rests == [17.0]


def test_one_attempt_to_a_server_that_is_not_there_says_so(quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerUnavailableError, match="Connection refused"):
        Connection(f"http://127.0.0.1:{port}", settings=quick).attempt("GET", "/v1")


def test_redirects_are_not_followed(server, connect, fault):
    server.faults = [fault("GET", "/v1/models", 302, headers={"Location": "/v1/elsewhere"})]
    with pytest.raises(ServerUnavailableError, match="/v1/elsewhere"):
        connect().attempt("GET", "/v1/models")
    assert len(server.requests) == 1


def test_a_path_of_the_server_url_comes_first(server, connect):
    assert connect(url=f"{server.url}/federated/").call("GET", "/v1").status == 404
    assert server.requests[0].path == "/federated/v1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "host:80",
        "ftp://host",
        "http://",
        "http://host:port",
        "https:/host",
        "https://a..b:1",
        f"http://{'a' * 64}.de",
    ],
)
def test_something_else_than_a_server_url_is_refused(url):
    with pytest.raises(InvalidSettingError, match="Expected a server URL"):
        Connection(url)


@pytest.mark.parametrize("pin", ["", "12", "z" * 64, "0" * 32, "0" * 40])
def test_something_else_than_a_pin_is_refused(pin):
    with pytest.raises(InvalidSettingError, match="64 hexadecimal digits"):
        Connection("https://host", certificate_pin=pin)


def test_a_pin_without_tls_is_refused():
    with pytest.raises(InvalidSettingError, match="https"):
        Connection("http://host", certificate_pin="0" * 64)


def test_only_unencrypted_connections_beyond_this_machine_are_exposed():
    assert Connection("http://192.0.2.1").exposed
    assert not Connection("http://127.0.0.1:80").exposed
    assert not Connection("http://[::1]:80").exposed
    assert not Connection("https://192.0.2.1").exposed


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_is_a_time_or_none(text):
    seconds = Reply(503, {"Retry-After": text}, b"").retry_after
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.binary() | st.sampled_from([b'{"error": 1}', b'{"error": {"code": 2}}', b"[1]", b"null", b"[" * 60000]))
def test_any_body_of_an_error_can_be_told(body):
    reply = Reply(500, {"Content-Type": CONTROL_TYPE}, body)
    assert reply.message
    assert isinstance(reply.code, str)


def test_the_default_settings_are_in_order():
    settings = Settings()
    assert settings.first_retry < settings.longest_retry < settings.longest_rest
    assert settings.poll_wait < 30
    assert 0 < settings.jitter < 1


@pytest.fixture
def certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, pem = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", pem, "-days", "2", "-subj", "/CN=somebody-else"),
        ],
        check=True,
        capture_output=True,
    )
    return pem, key


@pytest.fixture
def tls_server(server, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")
    der = ssl.PEM_cert_to_DER_cert(certificate[0].read_text())
    server.pin, server.key_pin = certificate_pin(der), public_key_pin(der)
    return server


@pytest.mark.parametrize("spell", [str, str.upper, "sha256:{}".format, lambda pin: pin[:2] + ":" + pin[2:]])
def test_the_pinned_certificate_is_accepted_whoever_signed_it(tls_server, connect, spell):
    connection = connect(url=tls_server.url, certificate_pin=spell(tls_server.pin))
    assert connection.call("POST", "/v1/tasks/next", shows=polled).status == 204


def test_any_certificate_of_the_pinned_key_is_accepted_whoever_signed_it(tls_server, connect, recwarn):
    connection = connect(url=tls_server.url, public_key_pin=tls_server.key_pin)
    assert connection.call("POST", "/v1/tasks/next", shows=polled).status == 204
    assert not [warning for warning in recwarn if "Insecure" in type(warning.message).__name__]


@pytest.mark.parametrize(
    "wrong",
    [
        {"public_key_pin": ANOTHER_KEY},
        {"certificate_pin": "0" * 64},
        {"public_key_pin": ANOTHER_KEY, "certificate_pin": "0" * 64},
    ],
)
def test_with_two_pins_both_have_to_fit_before_anything_is_sent(tls_server, connect, wrong):
    both = {"certificate_pin": tls_server.pin, "public_key_pin": tls_server.key_pin}
    assert connect(url=tls_server.url, **both).call("POST", "/v1/tasks/next", shows=polled).status == 204
    del tls_server.requests[:]
    with pytest.raises(ServerUnavailableError, match="another certificate"):
        connect(url=tls_server.url, **{**both, **wrong}).attempt("POST", "/v1/tasks/next")
    assert not tls_server.requests


def test_to_another_key_than_the_pinned_one_nothing_is_sent(tls_server, connect):
    connection = connect(url=tls_server.url, public_key_pin=ANOTHER_KEY)
    with pytest.raises(AuthenticationError, match="another certificate"):
        connection.patiently(lambda: connection.attempt("POST", "/v1/tasks/next"), certain=True)
    assert not tls_server.requests


@pytest.mark.parametrize("pin", ["", "12", "ab" * 32, "sha256//abc", "sha512//" + 43 * "A" + "="])
def test_something_else_than_a_pin_of_a_key_is_refused(pin):
    with pytest.raises(InvalidSettingError, match="public key's pin"):
        Connection("https://host", public_key_pin=pin)


def test_to_another_certificate_than_the_pinned_one_nothing_is_sent(tls_server, connect):
    with pytest.raises(ServerUnavailableError, match="another certificate"):
        connect(url=tls_server.url, certificate_pin="0" * 64).attempt("POST", "/v1/tasks/next")
    assert not tls_server.requests


def test_without_a_pin_a_self_signed_certificate_is_not_accepted(tls_server, connect):
    connection = connect(url=tls_server.url)
    with pytest.raises(AuthenticationError, match="another certificate"):
        connection.patiently(lambda: connection.attempt("POST", "/v1/tasks/next"), certain=True)
    assert not tls_server.requests


def test_every_call_says_which_process_it_is_and_always_the_same_one(server, connect, cache):
    content_hash = server.add_content(b"content")
    connection = connect()
    connection.attempt_json("POST", "/v1/tasks/next", {}, shows=polled)
    download(connection, f"/v1/models/{content_hash}", content_hash, cache)
    connect().attempt_json("POST", "/v1/tasks/next", {}, shows=polled)
    (instance,) = {request.headers["EdgeFL-Instance"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(bytes.fromhex(instance)) == 16


def test_processes_that_are_one_device_in_turn_can_say_so(server, quick):
    server.devices["d"] = sha256(SECRET.encode())
    connection = Connection(server.url, settings=replace(quick, instance="ab" * 16))
    connection.authorization = f"Bearer d.{SECRET}"
    connection.attempt_json("POST", "/v1/tasks/next", {}, shows=polled)
    assert server.requests[0].headers["EdgeFL-Instance"] == "ab" * 16


def test_a_mistake_of_ours_is_not_taken_for_a_network_that_may_come_back(server, connect, monkeypatch):
    def fail(*arguments):
        raise AttributeError("no such thing")

    connection = connect()
    monkeypatch.setattr(connection, "_headers", fail)
    with pytest.raises(AttributeError):
        connection.call("POST", "/v1/tasks/next", shows=polled)
