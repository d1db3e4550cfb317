"""Pages without a browser: who gets in, what is refused, and that whatever somebody calls a thing is only text."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from edgefl_server.dashboard.curves import history_table
from edgefl_server.http.rates import RateLimit
from edgefl_server.roles import Role
from edgefl_server.storage import OperatorRefusedError, audit_entries, enrol, invite, revoke_operator
from fake_device import Identity

from .conftest import ADMIN, OWN, Visit

PAGES = ("/", "/new", "/devices", "/storage", "/audit")
ROGUE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


class Tags(HTMLParser):
    """Collects the tags of a page, and what a reader without sight needs of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.mark.parametrize("path", [*PAGES, "/runs/any", "/devices?population=people"])
def test_whoever_has_not_signed_in_is_asked_to_and_comes_back(visit: Visit, path: str) -> None:
    answer = visit.get(path)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/sign-in")
    page = visit.get(answer.headers["Location"])
    (next,) = (each["value"] for each in Tags(page.text).of("input") if each["name"] == "next")
    assert next == path
    assert visit.sign_in(next=str(next)).headers["Location"] == path


@pytest.mark.parametrize("path", ["/parts/runs", "/runs/any/curves.json", "/runs/any/weights", "/runs/any/report.json"])
def test_nor_does_anything_else_answer_a_stranger(visit: Visit, path: str) -> None:
    assert visit.get(path, Accept="application/json").status_code == 401
    part = visit.get(path, **{"HX-Request": "true", "EdgeFL-Page": "/runs/any"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (204, "/sign-in?next=/runs/any")


@pytest.mark.parametrize("key", ["", "wrong", "operators-token2", "edgefl_" + "a" * 43, ROGUE])
def test_a_key_that_is_none_lets_nobody_in(visit: Visit, key: str) -> None:
    answer = visit.sign_in(key)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert 'role="alert"' in answer.text
    assert key not in answer.text or not key


@pytest.mark.parametrize(
    "next", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", "/a\nb"]
)
def test_signing_in_leads_to_no_other_server(visit: Visit, next: str) -> None:
    assert visit.sign_in(next=next).headers["Location"] == "/"


def test_whoever_tries_keys_is_counted_and_soon_not_looked_at_any_more(visit: Visit, fleet: Any) -> None:
    context = visit.client.app.state.context
    context.address_rate = RateLimit(60)
    answers = [visit.sign_in(f"wrong {index}").status_code for index in range(200)]
    assert (answers[0], answers[-1]) == (401, 429)
    assert visit.sign_in().status_code == 429
    context.refusals.keep(fleet.state, now=True)
    assert audit_entries(fleet.state)["audit"][0]["detail"]["kinds"] == {"operator": answers.count(401)}


def test_strangers_who_try_keys_take_few_of_the_threads(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, looking, most = threading.Condition(), 0, 0

    def look(state: object, key: str) -> None:
        nonlocal looking, most
        with guard:
            looking, most = looking + 1, max(most, looking + 1)
            guard.notify_all()
            guard.wait_for(lambda: most > 4, 0.1)
            looking -= 1
        raise OperatorRefusedError("no")

    monkeypatch.setattr("edgefl_server.http.context.operator_with_key", look)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: visit.sign_in(f"edgefl_{'x' * 43}").status_code, range(12)))
    assert answers == [401] * 12
    assert most <= 4


def test_the_cookie_is_kept_from_scripts_and_from_pages_of_others(visit: Visit) -> None:
    cookie = visit.sign_in().headers["Set-Cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert "Secure" not in cookie
    assert "operators-token" not in cookie
    behind_tls = visit.post("/sign-in", {"key": "operators-token"}, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in behind_tls.headers["Set-Cookie"]


def test_every_page_has_a_policy_that_lets_a_browser_load_nothing_from_elsewhere(visit: Visit) -> None:
    visit.sign_in()
    for path in (*PAGES, visit.run(), "/sign-in", "/runs/none"):
        answer = visit.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_session_that_is_over_asks_to_sign_in_again(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    assert visit.get("/").status_code == 200
    fleet.clock.now += 12 * 3600
    assert visit.get("/").headers["Location"] == "/sign-in"


def test_a_key_that_was_revoked_ends_its_sessions_at_once(visit: Visit, fleet: Any) -> None:
    visit.sign_in(visit.key(Role.VIEWER))
    assert visit.get("/").status_code == 200
    revoke_operator(fleet.state, "a viewer")
    assert visit.get("/").status_code == 303


def test_signing_out_ends_the_session_also_for_a_copy_of_the_cookie(visit: Visit) -> None:
    visit.sign_in()
    kept = dict(visit.client.cookies)
    assert visit.post("/sign-out", {"form": visit.token()}).headers["Location"] == "/sign-in"
    visit.client.cookies.update(kept)
    assert visit.get("/").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_a_page_of_another_origin_can_do_nothing_with_the_operators_cookie(visit: Visit, headers: Any) -> None:
    visit.sign_in()
    run, token = visit.run(), visit.token()
    for path in (f"{run}/stop", f"{run}/pause", f"{run}/extend", "/sign-out", "/sign-in"):
        answer = visit.client.post(path, data={"form": token, "rounds": "1"}, headers=headers, follow_redirects=False)
        assert answer.status_code == 403, path
    assert visit.create(headers=headers, token=token).status_code == 403
    assert ">active<" in visit.get(run).text


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_nor_can_a_form_without_the_sessions_token(visit: Visit, token: str) -> None:
    visit.sign_in()
    run = visit.run()
    assert visit.post(f"{run}/stop", {"form": token}).status_code == 403
    assert visit.create(token=token or "x").status_code == 403


def test_a_form_may_come_from_a_browser_that_only_says_the_origin(visit: Visit) -> None:
    visit.sign_in()
    run = visit.run()
    answer = visit.client.post(
        f"{run}/pause", data={"form": visit.token()}, headers={"Origin": "http://testserver"}, follow_redirects=False
    )
    assert answer.status_code == 303
    assert ">paused<" in visit.get(run).text


def test_a_run_is_created_paused_resumed_extended_and_stopped_and_the_audit_log_names_who_did_it(
    visit: Visit, fleet: Any
) -> None:
    visit.sign_in(visit.key(Role.OPERATOR))
    run, form = visit.run(name="first", rounds=3), {"form": visit.token(), "rounds": "5"}
    for act, shown in (("pause", ">paused<"), ("resume", ">active<"), ("extend", "of 8"), ("stop", ">stopped<")):
        assert visit.post(f"{run}/{act}", form).headers["Location"] == run
        assert shown in visit.get(run).text
    done = [(each["who"], each["act"], each["about"]) for each in audit_entries(fleet.state)["audit"]]
    about = run.removeprefix("/runs/")
    acts = ("runs.stop", "runs.continue", "runs.resume", "runs.pause", "runs.create")
    assert done[:5] == [("a operator", act, about) for act in acts]
    audit = visit.get("/audit").text
    assert "runs.continue" in audit
    visit.sign_in()
    visit.client.post("/v1/invitations", json={"population": "hall"}, headers={"Authorization": f"Bearer {ADMIN}"})
    audit = visit.get("/audit").text
    assert "invitations.create" in audit
    assert "None" not in audit  # what was not given is not told


def test_what_is_not_possible_is_a_page_that_says_why(visit: Visit) -> None:
    visit.sign_in()
    run, form = visit.run(), {"form": visit.token()}
    visit.post(f"{run}/stop", form)
    refused = visit.post(f"{run}/stop", form)
    assert refused.status_code == 409
    assert "had ended before" in refused.text
    assert 'role="alert"' in refused.text
    assert visit.get("/runs/none").status_code == 404
    assert visit.post(f"{run}/extend", {**form, "rounds": "many"}).status_code == 422


def test_a_wrong_setting_or_file_is_told_as_the_command_line_tells_it(visit: Visit) -> None:
    visit.sign_in()
    refused = visit.create(rounds=0)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_setting")
    headers = {**OWN, "X-EdgeFL-Form": visit.token()}
    query = {"population": "people", "rounds": 1, "target": 1}
    assert visit.client.post("/new", params=query, content=b"no model", headers=headers).status_code == 422
    assert visit.client.post("/new", params={"rounds": "x"}, content=b"", headers=headers).status_code == 422


def test_a_viewer_sees_all_and_changes_nothing_and_attempts_are_counted(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    run = visit.run()
    visit.post("/sign-out", {"form": visit.token()})
    visit.sign_in(visit.key(Role.VIEWER))
    for path in ("/", run, "/devices", "/storage", "/audit", f"{run}/report.json"):
        assert visit.get(path).status_code == 200
    assert [each["action"] for each in Tags(visit.get(run).text).of("form")] == ["/sign-out"]
    assert visit.get("/new").status_code == 403
    assert visit.post(f"{run}/stop", {"form": visit.token()}).status_code == 403
    assert visit.create().status_code == 403
    visit.client.app.state.context.refusals.keep(fleet.state, now=True)
    assert audit_entries(fleet.state)["audit"][0]["detail"]["kinds"] == {"role": 3}


def test_pages_and_metrics_share_one_look_at_all_files(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr("edgefl_server.http.health.bytes_on_disk", lambda state: looks.append(state) or {"models": 7})
    visit.sign_in()
    for _ in range(3):
        assert "7 B" in visit.get("/storage").text
        assert 'kind="models"} 7' in visit.client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"}).text
    assert len(looks) == 1


def test_a_run_waits_for_as_many_devices_as_it_needs_and_a_buffer_needs_one(visit: Visit, fleet: Any) -> None:
    fleet.add_devices(1)
    visit.sign_in()
    assert "1 of 3 devices are enrolled" in visit.get(visit.run(target=3)).text
    assert "devices are enrolled" not in visit.get(visit.run(target=3, schedule="buffered", strategy="fedbuff")).text


def test_names_with_html_in_them_are_text_everywhere(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    token = invite(fleet.state, "people")
    identity = Identity.number(1)
    said = {"machine": ROGUE, "system": ROGUE, "runtimes": [ROGUE], "memory_bytes": -1}
    enrol(fleet.state, token, identity.device, identity.secret_hash, "people", said)
    run = visit.run(name="first")
    with fleet.state.database.write() as session:  # whatever a check would have kept out
        session.execute(_renamed(run.removeprefix("/runs/"), ROGUE))
    for path in ("/", "/parts/runs", run, f"/parts{run}", "/devices", "/audit", "/new"):
        text = visit.get(path).text
        found = Tags(text)
        assert "<script>alert" not in text
        assert all(each.get("src", "x").startswith("/static/") for each in found.of("script"))
        assert found.of("img") == []
        assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in visit.get(run).text
    assert "&lt;script&gt;alert(1)" in visit.get("/devices").text


def _renamed(run: str, name: str) -> Any:
    from sqlalchemy import update

    from edgefl_server.storage.tables import runs

    return update(runs).where(runs.c.run == run).values(name=name, why=name)


def finish_a_round(fleet: Any) -> None:
    (device,) = fleet.add_devices(1)
    fleet.finish(device)
    fleet.fold()


def test_rounds_curves_and_downloads_hold_the_same_figures(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    run = visit.run(name="first")
    finish_a_round(fleet)
    curves = visit.get(f"{run}/curves.json").json()["charts"]
    assert curves[0]["title"] == "loss"
    assert curves[0]["x"] == [0, 1]
    (line,) = curves[0]["lines"]
    assert line["label"] == "in training"
    assert line["values"][0] is None
    rows = list(csv.DictReader(io.StringIO(visit.get(f"{run}/history.csv").text)))
    assert [row["state"] for row in rows[:2]] == ["start", "done"]
    assert float(rows[1]["training.loss"]) == line["values"][1]
    report = json.loads(visit.get(f"{run}/report.json").text)
    assert report["history"][0]["loss"] == line["values"][1]
    assert len(report["versions"]) == 2
    answer = visit.get(f"{run}/weights")
    assert re.fullmatch(r'attachment; filename="\w+-round-1.npy"', answer.headers["Content-Disposition"])
    weights = np.load(io.BytesIO(answer.content))
    assert weights.dtype == np.dtype("<f4")
    assert weights.tobytes() == fleet.state.weights.get(report["versions"][1]["weights_hash"])
    assert visit.get(f"{run}/weights?round=7").status_code == 404


def test_the_round_under_way_is_counted_and_refusals_are_named(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    run = visit.run(target=2)
    first, second = fleet.add_devices(2)
    fleet.finish(first)
    fleet.task(second)
    visit.client.app.state.context.counters.refuse(f"{run.removeprefix('/runs/')}-000001-{'d' * 32}-001", "not_finite")
    text = " ".join(re.sub("<[^>]+>", " ", visit.get(f"/parts{run}").text).split())
    assert "Asked 2 Training 1 Arrived 1 of 2 Gave up 0 Lost 0" in text
    assert "1 × not finite" in text


def test_nothing_of_a_single_devices_update_is_on_any_page(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    run = visit.run(target=1)
    finish_a_round(fleet)
    device = Identity.number(0).device
    for path in ("/", run, f"/parts{run}", f"{run}/curves.json", f"{run}/history.csv", f"{run}/report.json"):
        assert device not in visit.get(path).text, path
    shown = visit.get("/devices").text
    assert device in shown
    assert "loss" not in shown


def test_what_is_asked_for_every_two_seconds_reads_as_little_after_many_rounds(visit: Visit, fleet: Any) -> None:
    visit.sign_in()
    run = visit.run(rounds=30, target=1)
    (device,) = fleet.add_devices(1)
    sizes = []
    for count in (1, 20):
        for _ in range(count):
            fleet.finish(device)
            fleet.fold()
        sizes.append(len(visit.get(f"/parts{run}").content))
    assert abs(sizes[1] - sizes[0]) < 40


@pytest.mark.parametrize("path", [*PAGES, "run", "/sign-in"])
def test_a_page_can_be_read_without_sight_and_used_without_a_mouse(visit: Visit, path: str) -> None:
    if path != "/sign-in":
        visit.sign_in()
    page = Tags(visit.get(visit.run(name="first") if path == "run" else path).text)
    assert page.of("html")[0]["lang"] == "en"
    assert len(page.of("main")) == len(page.of("h1")) == len(page.of("title")) == 1
    assert page.of("a")[0]["href"] == "#main"
    assert all(each.get("scope") for each in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table"))
    labels = {each["for"] for each in page.of("label")}
    fields = [each for each in page.of("input", "select") if each.get("type") != "hidden"]
    assert {each["id"] for each in fields} <= labels
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    described = {each["aria-describedby"] for each in fields if "aria-describedby" in each}
    assert described <= set(ids)
    assert not [each for each in page.of("a", "button", "input") if str(each.get("tabindex", "0")) > "0"]


def test_ten_thousand_devices_are_shown_page_by_page(visit: Visit, fleet: Any) -> None:
    fill(fleet, 10_000)
    visit.sign_in()
    page, seen = visit.get("/devices").text, set[str]()
    while True:
        found = set(re.findall(r'<th scope="row"><code>(\w+)</code>', page))
        assert not found & seen
        seen |= found
        more = re.search(r'href="([^"]+)" rel="next"', page)
        if more is None or len(seen) > 500:
            break
        page = visit.get(more[1].replace("&amp;", "&")).text
    assert len(seen) == 550
    assert "(10,000)" in page
    assert "aarch64, 4 GiB" in page
    last = visit.get("/devices?after=" + "f" * 30).text
    assert 'rel="next"' not in last


def fill(fleet: Any, count: int) -> None:
    """Rows of devices that nobody could enrol one by one in a test."""
    from sqlalchemy import insert, update

    from edgefl_server.storage.tables import DeviceRow, PopulationRow

    rows = [
        {
            "device": f"{index:032x}",
            "population": "people",
            "secret_hash": f"{index:064x}",
            "capabilities": {"machine": "aarch64", "memory_bytes": 4 << 30},
            "created_at": 1_000_000.0 + index,
            "tags": ["shelf"],
        }
        for index in range(count)
    ]
    with fleet.state.database.write() as session:
        session.execute(insert(DeviceRow), rows)
        session.execute(update(PopulationRow).values(devices=count))


def test_the_page_of_storage_says_what_is_kept_and_what_is_left(visit: Visit) -> None:
    visit.sign_in()
    text = visit.get("/storage").text
    assert "Free on the disk" in text
    assert "weights" in text


@pytest.mark.parametrize("kind", ["evaluate", "statistics"])
def test_a_run_that_trains_nothing_has_a_page_too(visit: Visit, kind: str) -> None:
    visit.sign_in()
    run = visit.run(name="asked", kind=kind, rounds=1, target=5)
    for path in (run, f"/parts{run}", f"/parts{run}/rounds", f"{run}/curves.json", f"{run}/history.csv"):
        assert visit.get(path).status_code == 200, path


@pytest.mark.parametrize("settings", ["{not json", "[]"])
def test_a_run_that_cannot_be_read_is_told_as_such_and_others_are_shown(
    visit: Visit, fleet: Any, settings: str
) -> None:
    visit.sign_in()
    run, other = visit.run(name="first"), visit.run(name="second")
    with fleet.state.database.write() as session:
        change = "UPDATE runs SET settings = ? WHERE name = 'first'"
        session.objects.connection().exec_driver_sql(change, (settings,))
    page = visit.get("/").text
    assert run in page
    assert other in page
    for path in (run, f"/parts{run}"):
        answer = visit.get(path)
        assert answer.status_code == 200, answer.text
        assert "cannot be read now" in answer.text
    for path in (other, f"{run}/curves.json", f"{run}/history.csv", f"{run}/report.json"):
        assert visit.get(path).status_code == 200, path
    assert "edgefl_runs" in visit.client.get("/metrics", headers={"Authorization": "Bearer operators-token"}).text


@pytest.mark.parametrize("query", ["population=%00", "after=%00", "after=zz", "population=%F0%9F%98%80", "state=%00"])
def test_a_filter_that_is_no_name_is_refused_or_finds_everything(visit: Visit, query: str) -> None:
    visit.sign_in()
    assert visit.get(f"/devices?{query}").status_code in (200, 422)


@pytest.mark.parametrize("path", ["/audit?before={}", "/runs/{run}/weights?round={}"])
@pytest.mark.parametrize("number", [2**31, 2**53, 2**63])
def test_a_number_that_no_column_holds_is_refused(visit: Visit, path: str, number: int) -> None:
    visit.sign_in()
    run = visit.run().rpartition("/")[2]
    assert visit.get(path.format(number, run=run)).status_code == 422


@pytest.mark.parametrize("why", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1"])
def test_no_text_of_a_table_is_a_formula(why: str) -> None:
    (row,) = csv.DictReader(io.StringIO(history_table([{"round": 1, "why": why, "loss": -1.5}]), newline=""))
    assert row == {"round": "1", "why": f"'{why}", "loss": "-1.5"}
