"""A captive portal, a proxy or a load balancer answers in the server's place: nothing is lost and nobody stops."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import replace

import pytest

from edgefl.errors import AuthenticationError
from edgefl.wire.messages import CONTENT_TYPE, CONTROL_TYPE
from edgefl_device_runtime.agent import Settings

HTML = b"<html><head><title>Hotel Wi-Fi</title></head><body>Please log in.</body></html>"
CALLS = [
    ("POST", "/v1/devices"),
    ("POST", "/tasks/next"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/weights/"),
    ("POST", "/lease"),
    ("PUT", "/outcome"),
]


def says(status, body=HTML, **headers):
    """An answer of somebody else, as a fault of the fake server."""
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        **{name.replace("_", "-"): headers[name] for name in headers},
    }

    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def page(status):
    return says(status, Location="http://portal.hotel.example/login") if status in (302, 307) else says(status)


def json_of_somebody_else(status):
    body = json.dumps({"error": {"code": "not_found", "message": "no"}, "device_id": "0" * 32, "task_id": "x"}).encode()
    return says(status, body, Content_Type="application/json")


def malformed(head, body):
    """What the server itself might have begun to say, and then something that is no HTTP."""

    def answer(handler):
        content = handler.path.rpartition("/")[2]
        start = f'HTTP/1.1 200 OK\r\nContent-Type: {CONTROL_TYPE}\r\nETag: "{content}"\r\n{head}\r\n\r\n'
        handler.wfile.write(start.encode("latin-1") + body)

    return answer


ANSWERS = {
    **{f"html {status}": page(status) for status in (200, 201, 302, 307, 400, 401, 403, 404, 407, 409, 410, 413, 422)},
    **{f"html {status}": page(status) for status in (408, 425, 429, 511)},
    **{f"json {status}": json_of_somebody_else(status) for status in (200, 202, 401, 403, 404, 409, 410, 413, 422)},
    **{f"error {status}": page(status) for status in (500, 501, 502, 503, 504, 505, 506, 508, 510, 599)},
    "disk full 507": page(507),
    "no body 204": says(204, b""),
    "no body 200": says(200, b"", Content_Type=""),
    "message that is none": says(202, HTML, Content_Type=CONTENT_TYPE),
    "edgefl error without a code": says(404, b'{"error": {}}', Content_Type=CONTROL_TYPE),
    "compressed": says(200, b"\x1f\x8b\x08" + bytes(100), Content_Encoding="gzip"),
    "not http": lambda handler: handler.wfile.write(b"\x15\x03\x03\x00\x02\x02\x46SSH-2.0\r\n"),
    "nothing": lambda handler: None,
    "half a head": lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a chunk of -5 bytes": malformed("Transfer-Encoding: chunked", b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk of zz bytes": malformed("Transfer-Encoding: chunked", b"zz\r\nhello\r\n0\r\n\r\n"),
    "no length that is one": malformed("Content-Length: 5, 6", b"hello"),
    "half a page": lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<html>"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_whoever_answers_instead_of_the_server_costs_time_and_nothing_else(rig, fault, answer):
    """Every call of a device meets it, twice."""
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault(*call, ANSWERS[answer], times=2) for call in CALLS]
    rig.trainer.during_step = lambda: rig.server.renewed.wait(5)
    summary = rig.device().run(until_idle=True)
    assert rig.server.faults == []
    assert summary.tasks == {"accepted": 1}
    assert rig.trainer.trained == 1
    assert rig.loaded == [rig.server.contents[rig.model_hash]]
    assert len(set(rig.server.outcomes["r-1-d"])) == 1
    # All calls but the lease, which training does not wait for; it may meet what was meant for another call.
    told = [line for line in rig.lines if "Trying again until it answers" in line]
    assert len(CALLS) - 1 <= len(told) <= len(CALLS) + 1
    assert len(CALLS) - 1 <= len([line for line in rig.lines if "answers again" in line]) <= len(told)


@pytest.mark.parametrize("answer", ["html 200", "html 403", "html 404", "html 410", "json 410", "disk full 507"])
def test_a_night_behind_a_portal_ends_nothing_and_fills_no_log(rig, fault, answer):
    """All calls are answered by somebody else, for long; a finished outcome lies on the disk."""
    rig.server.tasks = [rig.task()]
    device = rig.device()
    device._send = lambda *arguments: None
    device.step()
    kept = (rig.folder / "state" / "outcome.message").read_bytes()
    rig.lines.clear()
    rig.server.faults = [fault(method, path, ANSWERS[answer], times=40) for method, path in (CALLS[0], CALLS[5])]
    rig.server.faults.append(fault("GET", "/outcome", ANSWERS[answer], times=40))
    assert rig.device().step().result == "accepted"
    assert rig.server.outcomes["r-1-d"] == [kept]
    # Once for each call that waited, of 120 attempts; a call whose connection broke in between begins anew.
    assert 2 <= len([line for line in rig.lines if "Trying again" in line]) <= 4
    assert rig.trainer.trained == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("html 302", "a captive portal or proxy, as in hotels"),
        ("html 302", "http://portal.hotel.example/login"),
        ("html 511", "Does this network ask for a login?"),
        ("html 407", "A proxy on the way to"),
        ("html 200", "is no edgefl server: a page of HTML, status 200"),
        ("json 404", "JSON of another kind"),
        ("error 502", "away behind a proxy or load balancer"),
        ("disk full 507", "a disk is full"),
        ("not http", "does not speak HTTP; perhaps it speaks TLS"),
        ("compressed", "compresses unasked"),
    ],
)
def test_the_owner_is_told_what_it_looks_like(rig, fault, answer, words):
    rig.server.faults = [fault("POST", "/next", ANSWERS[answer], times=3)]
    rig.device().step()
    assert len([line for line in rig.lines if words in line]) == 1


def test_the_servers_own_full_disk_is_told_as_such(rig, fault):
    rig.server.faults = [fault("POST", "/next", 507, code="storage_full")]
    rig.device().step()
    assert "says that its disk is full" in rig.lines[0]


def test_each_kind_of_trouble_is_told_once_and_again_after_a_while(rig, fault, quick):
    kinds = [page(200), page(302), "drop", page(200), "drop", page(302), page(200)]
    rig.server.faults = [fault("POST", "/next", kind) for kind in kinds]
    rig.device().step()
    assert len([line for line in rig.lines if "Trying again" in line]) == 3
    rig.lines.clear()
    rig.server.faults = [fault("POST", "/next", page(200), times=5)]
    rig.device(settings=replace(quick, remind=0.0)).step()
    assert len([line for line in rig.lines if "answered last at" in line and "next try in" in line]) == 4


def test_a_first_contact_that_a_portal_answers_waits_and_is_no_enrolment(rig, fault):
    rig.server.faults = [fault("POST", "/devices", ANSWERS[name]) for name in ("html 200", "json 202", "html 403")]
    device = rig.device()
    assert device.step() is None
    assert device.device_id in rig.server.devices
    assert len(rig.server.asked("POST", "/devices")) == 4


@pytest.mark.parametrize("code", ["malformed", "too_large"])
def test_a_first_enrolment_that_the_server_cannot_read_is_told_and_tried_again(rig, fault, code):
    rig.server.faults = [fault("POST", "/devices", 422, code=code)]
    assert rig.device().step() is None
    assert "did not take this device in" in rig.lines[0]


def test_an_advice_of_somebody_else_to_stay_away_is_not_followed(rig, fault, quick):
    rests = []
    rig.server.faults = [fault("POST", "/next", says(503, HTML, Retry_After="999999"), times=2)]
    device = rig.device()
    device._connection._sleep = rests.append
    device.step()
    assert max(rests) < 1


def certificate_in(folder, name):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, pem = folder / f"{name}-key.pem", folder / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", pem, "-days", "2", "-subj", f"/CN={name}"),
        ],
        check=True,
        capture_output=True,
    )
    return pem, key


class Front:
    """What listens on the server's address: it passes on, or speaks TLS with a certificate, or plain HTTP.

    Attributes:
        speak: what the next connections meet: each is taken from the list, the last one stays.
    """

    def __init__(self, server, contexts):
        self.server, self.contexts, self.speak = server, contexts, []
        self.met = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            kind = self.speak.pop(0) if len(self.speak) > 1 else self.speak[0]
            self.met.append(kind)
            threading.Thread(target=self.serve, args=(connection, kind), daemon=True).start()

    def serve(self, connection, kind):
        try:
            if kind != "plain":
                connection = self.contexts[kind].wrap_socket(connection, server_side=True)
            self.server.http.RequestHandlerClass(connection, ("127.0.0.1", 0), self.server.http)
            connection.close()
        except OSError:
            connection.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def front(rig, tmp_path):
    contexts = {}
    for name in ("own", "other"):
        pem, key = certificate_in(tmp_path, name)
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(pem, key)
        if name == "own":
            pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.read_text())).hexdigest()
    front = Front(rig.server, contexts)
    front.pin = pin
    yield front
    front.close()


@pytest.mark.parametrize(
    ("other", "words"), [("other", "another certificate"), ("plain", "speaks something else than TLS")]
)
@pytest.mark.parametrize("good", range(5))
def test_another_certificate_or_none_for_a_moment_ends_nothing_at_any_call(rig, front, other, words, good, quick):
    """Each request makes its own connection, so every call meets it in turn; no lease is renewed among them."""
    server, pin = f"https://127.0.0.1:{front.port}", front.pin
    settings = replace(quick, first_lease_renewal=100.0)
    front.speak = ["own"]
    rig.device(server=server, certificate_pin=pin).step()
    rig.server.tasks = [rig.task()]
    rig.server.http.RequestHandlerClass.protocol_version = "HTTP/1.0"
    rig.lines.clear()
    front.speak = ["own"] * good + [other] * 3 + ["own"]
    summary = rig.device(server=server, certificate_pin=pin, settings=settings).run(until_idle=True)
    assert summary.tasks == {"accepted": 1}
    assert rig.trainer.trained == 1
    assert front.met.count(other) == 3
    assert len([line for line in rig.lines if words in line]) == 1


def test_at_the_very_first_contact_another_certificate_is_a_mistake_of_the_pin(rig, front):
    front.speak = ["other"]
    with pytest.raises(AuthenticationError, match="another certificate"):
        rig.device(server=f"https://127.0.0.1:{front.port}", certificate_pin=front.pin).step()
    assert rig.server.requests == []


def test_tls_behind_an_http_address_is_told_and_waited_for(rig, front, monkeypatch):
    front.speak = ["own", "own", "plain"]
    device = rig.device(server=f"http://127.0.0.1:{front.port}")
    assert device.step() is None
    assert [line for line in rig.lines if "cannot be reached" in line or "does not speak HTTP" in line]


def test_no_text_of_others_controls_the_terminal(rig, fault):
    evil = "\x1b[2J\x07\r\nForged: line\u202e"
    document = {"error": {"code": "x\x1b", "message": evil, "hint": evil}}
    body = json.dumps(document).encode()
    rig.server.faults = [
        fault("POST", "/next", says(302, HTML, Location="http://a/\x1b[2J\x07")),
        fault("POST", "/next", says(418, body, Content_Type=CONTROL_TYPE)),
        fault("POST", "/next", says(503, body, Content_Type=CONTROL_TYPE)),
        fault("PUT", "/outcome", says(422, body, Content_Type=CONTROL_TYPE)),
    ]
    rig.server.tasks = [rig.task()]
    rig.device().run(until_idle=True)
    assert [line for line in rig.lines if "Forged" in line]
    assert all(line.isprintable() for line in rig.lines)


def test_the_default_pauses_let_a_fleet_wait_a_night():
    settings = Settings()
    assert settings.longest_retry <= 60
    assert settings.remind >= 600
