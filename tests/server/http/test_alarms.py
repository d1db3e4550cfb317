"""Alarms: when one begins and ends, and that an address that takes none holds up nobody."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgefl.errors import InvalidSettingError
from edgefl_server.http import create_app
from edgefl_server.http.alarming import see
from edgefl_server.http.alarms import Alarm, Alarms, Observed, ObservedRun
from edgefl_server.http.webhooks import Webhook, check_webhook, post

WELL = Observed(
    runs=(ObservedRun("abc", "first", (1, 0)),), devices=3, called_at=1.0, accepted=0, refused={}, free_bytes=50 << 30
)


def named(alarms: list[Alarm]) -> list[tuple[str, str, str]]:
    return [(each.alarm, each.about, each.state) for each in alarms]


def test_a_run_without_progress_is_stuck_once_and_over_once() -> None:
    alarms = Alarms(vanished_seconds=1e9)
    assert alarms.look(WELL, 0.0) == []
    assert alarms.look(WELL, 1799.0) == []
    (raised,) = alarms.look(WELL, 1800.0)
    assert raised == Alarm("run_stuck", "abc", "raised", "run abc (first): nothing was accepted for 30 minutes")
    assert alarms.look(WELL, 5000.0) == []
    moved = replace(WELL, runs=(ObservedRun("abc", "first", (1, 1)),))
    assert named(alarms.look(moved, 5001.0)) == [("run_stuck", "abc", "over")]
    assert alarms.look(moved, 5002.0) == []


def test_a_run_that_ends_or_pauses_is_not_stuck_any_more_and_begins_anew_afterwards() -> None:
    alarms = Alarms(vanished_seconds=1e9)
    alarms.look(WELL, 0.0)
    alarms.look(WELL, 2000.0)
    assert named(alarms.look(replace(WELL, runs=()), 2001.0)) == [("run_stuck", "abc", "over")]
    assert alarms.look(WELL, 9000.0) == []
    assert named(alarms.look(WELL, 10800.0)) == [("run_stuck", "abc", "raised")]


def test_a_fleet_has_vanished_when_none_calls_while_a_run_is_active() -> None:
    alarms = Alarms(stuck_seconds=1e9)
    alarms.look(WELL, 0.0)
    assert named(alarms.look(WELL, 600.0)) == [("fleet_vanished", "", "raised")]
    assert named(alarms.look(replace(WELL, called_at=2.0), 601.0)) == [("fleet_vanished", "", "over")]
    for quiet in (replace(WELL, runs=()), replace(WELL, devices=0)):
        idle = Alarms(stuck_seconds=1e9)
        idle.look(quiet, 0.0)
        assert idle.look(quiet, 9000.0) == []


def test_refusals_rise_when_they_are_many_and_more_than_what_is_accepted() -> None:
    alarms = Alarms(1e9, 1e9)
    alarms.look(replace(WELL, accepted=500, refused={"stale": 400}), 0.0)  # from before: no news
    assert alarms.look(replace(WELL, accepted=530, refused={"stale": 400, "not_finite": 25}), 60.0) == []
    rising = replace(WELL, accepted=530, refused={"stale": 402, "not_finite": 50})
    (raised,) = alarms.look(rising, 120.0)
    assert (raised.alarm, raised.state) == ("refusals_rising", "raised")
    assert "52 outcomes" in raised.message
    assert "most of them: not_finite" in raised.message
    assert alarms.look(rising, 500.0) == []
    assert named(alarms.look(rising, 1200.0)) == [("refusals_rising", "", "over")]


def test_a_disk_is_low_below_a_gigabyte() -> None:
    alarms = Alarms(1e9, 1e9)
    assert named(alarms.look(replace(WELL, free_bytes=5_000_000), 0.0)) == [("disk_low", "", "raised")]
    assert named(alarms.look(replace(WELL, free_bytes=2 << 30), 1.0)) == [("disk_low", "", "over")]


class Address:
    """Takes alarms after some failures; its clock is moved by whoever sleeps."""

    def __init__(self, failures: int) -> None:
        self.failures, self.taken, self.now, self.pauses = failures, list[Any](), 0.0, list[float]()

    def send(self, document: Mapping[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("answered with 503")
        self.taken.append(document)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def deliver(self, documents: list[dict[str, Any]]) -> None:
        async def scenario() -> None:
            webhook = Webhook(self.send, lambda: self.now, self.sleep)
            for each in documents:
                webhook.put(each)
            running = asyncio.create_task(webhook.run())
            while webhook._kept:
                await asyncio.sleep(0.001)
            running.cancel()

        asyncio.run(asyncio.wait_for(scenario(), 60))


def test_an_alarm_that_was_not_taken_is_sent_again_ever_more_slowly_and_the_order_stays() -> None:
    address = Address(failures=9)
    address.deliver([{"number": 1}, {"number": 2}])
    assert address.taken == [{"number": 1}, {"number": 2}]
    assert address.pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_after_an_hour_an_alarm_is_given_up_and_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    address = Address(failures=18)
    address.deliver([{"message": "run abc: stuck"}])
    assert address.taken == []
    assert "gave up an alarm that nobody took for an hour: run abc: stuck" in caplog.text


def test_no_more_than_a_hundred_wait() -> None:
    address = Address(failures=0)
    address.deliver([{"number": number} for number in range(150)])
    assert [each["number"] for each in address.taken] == list(range(50, 150))


@pytest.mark.parametrize("url", ["", "x", "ftp://a", "http://", "https://:0", "http://a:0", "http://[x", "file:///etc"])
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidSettingError) as refused:
        check_webhook(url)
    assert "begins with http" in refused.value.message
    assert check_webhook("https://a.example/hook?token=1") == "https://a.example/hook?token=1"


def test_a_server_sends_its_alarms_as_json(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[Any] = []
    there = threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(
                (self.headers["Content-Type"], json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            )
            self.send_response(204)
            self.end_headers()
            there.set()

        def log_message(self, *arguments: object) -> None:
            pass

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    monkeypatch.setattr("edgefl_server.http.alarming.free_bytes", lambda state: 1000)
    url = f"http://127.0.0.1:{hook.server_address[1]}/hook"
    with TestClient(create_app(fleet.state, "operators-token", alarm_webhook=url)):
        assert there.wait(60)
    hook.shutdown()
    hook.server_close()
    kind, document = came[0]
    assert kind == "application/json"
    assert document == {
        "alarm": "disk_low",
        "state": "raised",
        "message": "0 MB are left on the disk of the state folder",
        "at": "1970-01-12T13:46:40Z",
    }


def test_an_answer_that_is_no_success_is_no_delivery() -> None:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    with pytest.raises(OSError, match="302"):
        post(f"http://127.0.0.1:{hook.server_address[1]}")({})
    hook.shutdown()
    hook.server_close()


def test_an_answer_that_does_not_end_is_not_waited_for() -> None:
    broke_off = threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000):  # far more than lies in the buffers of two sockets
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                broke_off.set()

        def log_message(self, *arguments: object) -> None:
            pass

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    post(f"http://127.0.0.1:{hook.server_address[1]}")({})
    assert broke_off.wait(60)
    hook.shutdown()
    hook.server_close()


def test_what_is_seen_changes_with_every_accepted_outcome_and_every_call(fleet: Any) -> None:
    with TestClient(create_app(fleet.state, "operators-token")) as client:
        context = client.app.state.context  # type: ignore[attr-defined]
        run = fleet.create_run(target=2)
        (device,) = fleet.add_devices(1)
        before = see(context)
        fleet.finish(device)
        fleet.state.seen.note(device.device, 5.0)
        after = see(context)
    assert (before.runs[0].run, before.devices) == (run, 1)
    assert before.runs[0].progress != after.runs[0].progress
    assert (before.called_at, after.called_at) == (0.0, 5.0)
