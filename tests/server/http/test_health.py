"""`/healthz`, `/readyz` and `/metrics`: what a supervisor, a load balancer and Prometheus read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from edgefl.errors import StorageError
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason
from edgefl_server.http import create_app
from edgefl_server.http.counters import Histogram
from edgefl_server.http.health import unready
from edgefl_server.storage import bytes_on_disk, server_figures
from fake_device import Identity

from .conftest import ADMIN, Api, code

GRAFANA = Path(__file__).parents[3] / "docs" / "grafana.json"


def metrics(api: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    answer = api.client.get("/metrics", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: dict[Any, float], metric: str, /, **labels: str) -> float:
    return found[metric, tuple(sorted(labels.items()))]


def why(api: Api) -> list[str]:
    """Why the server is not ready, asked anew."""
    if hasattr(api.client.app.state, "remembered"):
        del api.client.app.state.remembered
    answer = api.client.get("/readyz")
    document = answer.json()
    assert answer.status_code == (503 if document["why"] else 200)
    assert document["status"] == ("not ready" if document["why"] else "ready")
    return document["why"]


def test_anybody_may_ask_whether_it_is_alive_and_ready(api: Api) -> None:
    assert api.client.get("/healthz").json() == {"status": "alive"}
    assert why(api) == []


@pytest.mark.parametrize("kind_of_database", ["sqlite", "postgresql"])
def test_a_database_that_lies_elsewhere_has_no_size_here(fleet: Any, kind_of_database: str) -> None:
    sizes = bytes_on_disk(fleet.state)
    assert (sizes.get("database", 0) > 0) is (kind_of_database == "sqlite")
    assert sizes["models"] == 0


def test_a_server_whose_database_was_deleted_is_not_ready_and_says_so_without_a_path(api: Api) -> None:
    (api.fleet.state.folder / "server.sqlite").unlink()
    assert why(api) == ["database: its file was deleted or replaced"]
    assert api.client.get("/healthz").status_code == 200


def test_a_server_without_space_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert why(api) == ["folder: no space is left on its disk"]


def test_a_server_whose_folding_has_died_is_not_ready(api: Api) -> None:
    assert unready(api.fleet.state, 89) == []
    assert unready(api.fleet.state, 3600) == ["folding: deadlines and folds were last looked at 3600 s ago"]


def test_many_who_ask_whether_it_is_ready_cost_one_look_a_second(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr("edgefl_server.http.health.unready", lambda state, silent: looks.append(silent) or [])
    monkeypatch.setattr("edgefl_server.http.health._FRESH_SECONDS", 3600.0)
    for _ in range(50):
        assert api.client.get("/readyz").status_code == 200
    assert len(looks) == 1


def test_only_an_operator_may_read_the_metrics(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, api.device(0)):
        answer = api.client.get("/metrics", headers=headers)
        assert (answer.status_code, code(answer)) == (401, "wrong_token")


def test_everybody_may_where_the_server_was_started_so(fleet: Any) -> None:
    with TestClient(create_app(fleet.state, "operators-token", metrics_public=True)) as client:
        assert "edgefl_build_info" in client.get("/metrics").text


def test_strangers_who_scrape_again_and_again_cost_one_look_a_second(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    read = server_figures
    monkeypatch.setattr("edgefl_server.http.health.server_figures", lambda state: looks.append(state) or read(state))
    monkeypatch.setattr("edgefl_server.http.health._FRESH_SECONDS", 3600.0)
    with TestClient(create_app(fleet.state, "operators-token", metrics_public=True)) as client:
        for number in range(20):
            for kind in ("text/plain", "application/openmetrics-text"):
                answer = client.get("/metrics", headers={"Accept": f"{kind}; version={number}.0.0; escaping=dots"})
                assert answer.headers["Content-Type"].startswith(kind)
                assert "edgefl_build_info" in answer.text
    assert len(looks) == 2  # one for each format


def test_a_round_is_counted(api: Api) -> None:
    before = metrics(api)
    assert of(before, "edgefl_outcomes_accepted_total", status="done") == 0
    assert of(before, "edgefl_outcomes_refused_total", reason="norm_exceeded") == 0  # there from the start
    me = api.device(0)
    run = api.create_run(target=1, name="first")["run"]
    task = api.task(me)
    weights = api.client.get(f"/v1/weights/{task.base_weights_hash}", headers=me)
    message = api.fleet.outcome(task).encode()
    assert api.put(me, task).status_code == 202
    assert api.put(me, task).status_code == 202  # a reply was lost: it counts once
    api.client.app.state.context.folding.ring()
    while (found := metrics(api)) and of(found, "edgefl_rounds_total", state="done") < 1:
        pass
    assert of(found, "edgefl_tasks_sent_total") == 1
    assert of(found, "edgefl_outcomes_accepted_total", status="done") == 1
    assert of(found, "edgefl_upload_bytes_total", codec="float32") == len(message)
    assert of(found, "edgefl_download_bytes_total") == len(weights.content)
    assert of(found, "edgefl_fold_duration_seconds_count") == 1
    assert of(found, "edgefl_runs", state="active") == 1
    assert of(found, "edgefl_devices_enrolled", population="people") == 1
    assert of(found, "edgefl_run_round", run=run, name="first") == 2
    assert of(found, "edgefl_stored_bytes", kind="database") > 0
    assert of(found, "edgefl_disk_free_bytes") > 0
    assert of(found, "edgefl_troubles") == 0
    assert of(found, "process_resident_memory_bytes") > 0


def test_what_is_refused_or_declined_is_counted_and_a_device_makes_no_label_of_its_own(api: Api) -> None:
    me = api.device(0)
    api.create_run(target=2)
    task = api.task(me)
    assert api.put(me, task, Outcome(task.task_id, "0" * 64, task.layout_hash, num_examples=1)).status_code == 422
    hashes = task.base_weights_hash, task.layout_hash
    declined = Outcome(
        task.task_id, *hashes, status=OutcomeStatus.DECLINED, reason=Reason.BUSY, trainer="<b>edgefl_evil"
    )
    assert api.put(me, task, declined).status_code == 202
    found = metrics(api)
    assert of(found, "edgefl_outcomes_refused_total", reason="wrong_base_weights") == 1
    assert of(found, "edgefl_outcomes_accepted_total", status="declined") == 1
    assert of(found, "edgefl_upload_bytes_total", codec="none") > 0
    labels = {value for _, pairs in found for _, value in pairs}
    assert not any("evil" in each or Identity.number(0).device in each for each in labels)


def test_names_of_metrics_are_those_that_prometheus_wants(api: Api) -> None:
    api.device(0)
    api.create_run(name="first")
    for line in api.client.get("/metrics", headers=ADMIN).text.splitlines():
        if line.startswith("# TYPE edgefl_"):
            name, kind = line.split()[2:]
            assert (kind == "counter") == name.endswith("_total"), line
    answer = api.client.get("/metrics", headers={**ADMIN, "Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert len(list(openmetrics(answer.text))) > 15


def test_while_the_database_cannot_be_read_the_metrics_are_those_of_the_process(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(state: object) -> None:
        raise StorageError("The disk answers with an error.")

    monkeypatch.setattr("edgefl_server.http.health.server_figures", refuse)
    found = metrics(api)
    assert ("edgefl_tasks_sent_total", ()) in found
    assert not any(name == "edgefl_rounds_total" for name, _ in found)


def test_the_dashboard_for_grafana_asks_for_metrics_and_labels_that_there_are(api: Api) -> None:
    me = api.device(0)
    api.create_run(target=1, name="first")
    task = api.task(me)
    assert api.put(me, task).status_code == 202
    api.client.app.state.context.folding.ring()
    while (found := metrics(api)) and of(found, "edgefl_fold_duration_seconds_count") < 1:
        pass
    labels: dict[str, set[str]] = {}
    for name, pairs in found:
        labels.setdefault(name, {"instance", "job"}).update(label for label, _ in pairs)
    document = json.loads(GRAFANA.read_text())
    asked = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"\b(?:edgefl|process)_\w+", expression)}
    assert names <= set(labels)
    told = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in labels}
    shown = {name.removesuffix("_bucket") for name in names} | {"edgefl_tasks_sent_total", "edgefl_build_info"}
    assert {name for name in told if name.startswith("edgefl_")} <= shown
    for panel in document["panels"]:
        for target in panel["targets"]:
            known = set.union(*(labels[name] for name in names if name in target["expr"]))
            used = re.findall(r"by \(([^)]*)\)", target["expr"]) + re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert {each.strip() for part in used for each in part.split(",")} <= known, target["expr"]


def test_durations_are_counted_up_to_each_bound() -> None:
    durations = Histogram()
    for seconds in (0.01, 0.02, 7.0, 1e9):
        durations.note(seconds)
    buckets = dict(durations.buckets())
    assert (buckets["0.01"], buckets["0.05"], buckets["5.0"], buckets["10.0"], buckets["+Inf"]) == (1, 2, 2, 3, 4)
