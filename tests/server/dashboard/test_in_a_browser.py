"""The dashboard in a real browser, Debian's chromium by Playwright: what an operator sees and does there."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from browser import CHROMIUM
from edgefl_server.dashboard import add_dashboard
from edgefl_server.http import create_app
from fake_device import FakeDevice, Identity
from model_files import make_model_file
from server_process import ServerProcess, free_port

from .conftest import ADMIN
from .test_pages import fill

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright's Python driver is not installed: make setup")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed: .ci/install chromium")

_NOTED = """document.addEventListener('securitypolicyviolation',
  event => console.error('policy', event.violatedDirective, event.blockedURI, event.sourceFile, event.lineNumber))"""
_PATIENCE_MILLISECONDS = 60_000
"""For a slow machine; nothing is asserted about how long it takes."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab of a browser that nobody has used; the test fails if the page said anything on its console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(_PATIENCE_MILLISECONDS)
    context.add_init_script(_NOTED)
    page, said = context.new_page(), list[str]()
    page.said = said
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "server", free_port())
    process.start()
    yield process
    process.kill()


@pytest.fixture
def address(fleet: Any) -> Iterator[str]:
    """Where the application of the fleet's state is served in this process, so that a test can set its clock."""
    app, port = create_app(fleet.state, ADMIN), free_port()
    add_dashboard(app)
    listening = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=listening.run, daemon=True)
    thread.start()
    while not listening.started:
        thread.join(0.05)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    listening.should_exit = True
    thread.join()


def key_of(server: ServerProcess) -> str:
    return str(json.loads((server.state / "operator.json").read_text())["admin_token"])


def call(server: ServerProcess, path: str, document: object = None) -> Any:
    body = None if document is None else json.dumps(document).encode()
    headers = {"Authorization": f"Bearer {key_of(server)}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers)) as answer:
        return json.load(answer)


def sign_in(tab: Any, url: str, key: str) -> None:
    tab.goto(url)
    tab.get_by_label("Operator's key").fill(key)
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Runs").wait_for()


def create(tab: Any, model: Path, **fields: str) -> None:
    tab.get_by_role("navigation").get_by_role("link", name="New run").click()
    tab.get_by_label("Model file").set_input_files(model)
    for label, value in fields.items():
        tab.get_by_label(label, exact=True).fill(value)
    tab.get_by_role("button", name="Create the run").click()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(make_model_file())
    return path


def test_an_operator_signs_in_creates_a_run_and_watches_it_live_to_its_end(
    tab: Any, server: ServerProcess, model: Path
) -> None:
    token = call(server, "/v1/invitations", {"population": "people"})["token"]
    devices = [FakeDevice(server.url, Identity.number(index), 4) for index in range(2)]
    for device in devices:
        device.enrol("people", token)
    sign_in(tab, server.url, key_of(server))
    create(tab, model, Name="first", Rounds="6", Target="2")
    tab.get_by_text("round 1 of 6").wait_for()
    tab.get_by_text("No round is over yet.").wait_for()
    over = threading.Event()
    threads = [threading.Thread(target=device.work, args=[over.is_set], daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    # Nobody loads the page again.
    tab.evaluate("window.stayed = true")
    tab.locator("#live .state.done").wait_for()
    tab.locator(".standing", has_text="round 6 of 6").wait_for()
    tab.locator("#curves canvas").first.wait_for()
    tab.locator("#rounds .state.done").nth(5).wait_for()
    assert tab.evaluate("window.stayed") is True
    assert tab.locator("#rounds tbody tr").count() == 7
    assert tab.locator("#announcement").inner_text() == "Run first is done, round 6 of 6."
    titles = tab.locator("#curves figcaption").all_inner_texts()
    assert titles[0] == "loss"
    assert "bytes of a round" in titles
    drawn = tab.locator("#curves [role=img]").first.get_attribute("aria-label")
    assert drawn.startswith("loss by round: in training.")
    assert tab.get_by_role("button", name="Stop the run").count() == 0
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Latest weights").click()
    assert download.value.suggested_filename.endswith("-round-6.npy")
    over.set()
    for thread in threads:
        thread.join()


def test_a_run_is_created_with_a_mistake_then_without_paused_and_stopped_by_the_keyboard(
    tab: Any, server: ServerProcess, model: Path
) -> None:
    call(server, "/v1/invitations", {"population": "people"})
    sign_in(tab, server.url, key_of(server))
    create(tab, model, Rounds="5", Target="2", Epochs="0")
    refusal = tab.locator("#new-run-error")
    refusal.wait_for()
    assert "epochs expects" in refusal.inner_text()
    tab.get_by_label("Epochs", exact=True).fill("")
    tab.get_by_label("Name", exact=True).fill("second")
    tab.get_by_role("button", name="Create the run").focus()
    tab.keyboard.press("Enter")
    tab.get_by_text("round 1 of 5").wait_for()
    tab.get_by_role("button", name="Pause").press("Enter")
    tab.locator("#live .state.paused").wait_for()
    tab.get_by_role("button", name="Resume").press("Enter")
    tab.locator("#live .state.active").wait_for()
    tab.locator("#stop > summary").press("Enter")
    tab.get_by_role("button", name="Stop the run").press("Enter")
    tab.locator("#live .state.stopped").wait_for()
    (run,) = call(server, "/v1/runs")["runs"]
    assert (run["name"], run["state"]) == ("second", "stopped")
    assert tab.said.pop().startswith("Failed to load resource: the server responded with a status of 422")


def test_a_session_that_is_over_leads_to_the_sign_in_page_and_back(tab: Any, address: str, fleet: Any) -> None:
    run = fleet.create_run()
    sign_in(tab, address, ADMIN)
    tab.goto(f"{address}/runs/{run}")
    tab.get_by_text("round 1 of 3").wait_for()
    fleet.clock.now += 13 * 3600
    tab.get_by_role("heading", name="Sign in").wait_for()  # by itself: the page asks every two seconds
    tab.get_by_label("Operator's key").fill(ADMIN)
    tab.get_by_role("button", name="Sign in").click()
    tab.get_by_text("round 1 of 3").wait_for()
    assert tab.url == f"{address}/runs/{run}"


def test_ten_thousand_devices_can_be_looked_through(tab: Any, address: str, fleet: Any) -> None:
    fill(fleet, 10_000)
    sign_in(tab, address, ADMIN)
    tab.get_by_role("link", name="Devices").click()
    tab.get_by_text("all (10,000)").wait_for(state="attached")
    first = tab.locator("tbody th").first.inner_text()
    assert tab.locator("tbody tr").count() == 50
    tab.get_by_role("link", name="Next").click()
    tab.get_by_role("link", name="First").wait_for()
    assert tab.locator("tbody th").first.inner_text() != first


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_follow_what_the_reader_prefers(
    tab: Any, address: str, fleet: Any, width: int, scheme: str
) -> None:
    fleet.add_devices(2)
    run = fleet.create_run()
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme)
    sign_in(tab, address, ADMIN)
    for path in ("/", f"/runs/{run}", "/new", "/devices", "/storage", "/audit"):
        tab.goto(address + path)
        needed, has = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert needed <= has, path
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
