"""The engine on a Ray cluster: nodes that are lost, machines that do not see the folder, and what is not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import edgefl
from edgefl.errors import InvalidSettingError, MissingDependencyError, RuntimeFailure, ServerUnavailableError
from edgefl.hashing import weights_hash
from edgefl_simulation.engines import ray as ray_engine
from edgefl_simulation.engines.ray import Ray
from edgefl_simulation.engines.ray_site import Loaded

ray = pytest.importorskip("ray")
SETTINGS = {"devices": 6, "partition": "dirichlet:1,2", "rounds": 6, "cohort": 4, "seed": 3, "local_test": 0.2}


@pytest.fixture
def data(owned):
    found = owned(3, 40)
    return found["x"], found["y"]


@pytest.fixture
def engines(monkeypatch):
    """The engines that a test starts."""
    started = []
    begin = Ray.__init__

    def noted(self, *arguments):
        started.append(self)
        begin(self, *arguments)

    monkeypatch.setattr(Ray, "__init__", noted)
    return started


def rows_and_weights(history):
    return [{**row, "seconds": 0} for row in history.rounds], history.initial, weights_hash(history.weights)


def test_a_run_goes_on_without_a_node_that_is_killed_and_ends_with_the_same_bits(
    federated_file, data, ray_cluster, capfd
):
    settings = {**SETTINGS, "strategy": "scaffold"}
    alone = edgefl.simulate(federated_file, data, workers=1, **settings)
    node = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    lost = ray_cluster.add_node(**node)
    capfd.readouterr()

    def kill(row):
        if row["round"] == 3:
            ray_cluster.remove_node(lost, allow_graceful=False)

    history = edgefl.simulate(
        federated_file, data, engine="ray", ray_address=ray_cluster.address, workers=4, on_round=kill, **settings
    )
    assert lost not in ray_cluster.worker_nodes
    assert rows_and_weights(history) == rows_and_weights(alone)
    assert capfd.readouterr().out == ""  # it is for results


def test_machines_that_do_not_see_the_folder_are_sent_the_rows_also_those_that_come_later(
    personal_file, data, ray_cluster, engines, monkeypatch
):
    settings = {**SETTINGS, "strategy": "scaffold", "personalise": 1}
    alone = edgefl.simulate(personal_file, data, workers=1, **settings)
    monkeypatch.setattr(ray_engine, "MARK", "another")  # the actors, in processes of their own, look for the first
    sent = []
    monkeypatch.setattr(ray_engine, "pieces_of", lambda setup: sent.append(setup) or pieces_of(setup))
    pieces_of = sys.modules["edgefl_simulation.engines.ray_site"].pieces_of
    written = []

    def kill(row):
        (engine,) = engines
        written.append(Path(tempfile.gettempdir()) / f"edgefl-tables-{engine._mark}")
        if row["round"] == 2:
            os.kill(ray.get(engine._workers[0].actor.process.remote()), signal.SIGKILL)

    history = edgefl.simulate(
        personal_file, data, engine="ray", ray_address=ray_cluster.address, on_round=kill, **settings
    )
    assert rows_and_weights(history) == rows_and_weights(alone)
    assert len(sent) in (1, 2)  # the two that began together; the one that came for the one that was killed
    assert not written[0].exists()


def test_without_an_address_it_starts_a_cluster_that_only_this_machine_can_reach_and_leaves_nothing(
    federated_file, data, monkeypatch, capfd
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    settings, seen = {**SETTINGS, "rounds": 1, "strategy": "scaffold"}, []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name, process in {"left-over": ended.pid, "of-another-run": os.getppid()}.items():
        folder = place / f"edgefl-ray-{name}"
        folder.mkdir()
        (folder / "edgefl-process").write_text(str(process))

    def look(row):
        seen.extend((node["NodeManagerAddress"], node["Resources"].get("CPU")) for node in ray.nodes())

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place))
        history = edgefl.simulate(federated_file, data, engine="ray", workers=2, on_round=look, **settings)
    assert rows_and_weights(history) == rows_and_weights(edgefl.simulate(federated_file, data, workers=1, **settings))
    assert seen == [("127.0.0.1", 2.0)]
    assert capfd.readouterr().out == ""
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler
    (kept,) = place.iterdir()
    assert kept.name == "edgefl-ray-of-another-run"
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:1", ServerUnavailableError, "No Ray cluster answers at 127.0.0.1:1: Connection refused"),
        ("somewhere", InvalidSettingError, "expects host:port"),
        ("ray://127.0.0.1:10001", InvalidSettingError, "ray:// is not used"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_clear_error(plain_sgd_file, data, tmp_path, address, error, message):
    with pytest.raises(error) as caught:
        edgefl.simulate(plain_sgd_file, data, engine="ray", ray_address=address, out=tmp_path / "run", **SETTINGS)
    assert message in str(caught.value)
    assert not (tmp_path / "run" / "rounds.jsonl").exists()
    assert not (tmp_path / "run" / "tables").exists()


def test_the_address_of_the_environment_counts_as_it_does_for_ray(plain_sgd_file, data, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:2"):
        edgefl.simulate(plain_sgd_file, data, engine="ray", **SETTINGS)


def test_without_the_package_the_line_that_installs_it_is_said(plain_sgd_file, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"edgefl-toolkit\[ray\]"):
        edgefl.simulate(plain_sgd_file, data, engine="ray", **SETTINGS)


def test_a_node_with_other_versions_is_refused_since_it_would_compute_other_bits(
    plain_sgd_file, data, ray_cluster, monkeypatch
):
    begin = Ray._begin

    def another(self, worker, answer):
        second = isinstance(answer, Loaded) and self._versions
        begin(self, worker, Loaded(answer.versions.replace("edgefl", "older edgefl")) if second else answer)

    monkeypatch.setattr(Ray, "_begin", another)
    with pytest.raises(RuntimeFailure, match=r"would not compute the same bits: one has older edgefl"):
        edgefl.simulate(
            plain_sgd_file, data, engine="ray", ray_address=ray_cluster.address, **{**SETTINGS, "rounds": 10_000}
        )


def test_more_workers_than_the_cluster_has_processors_are_refused(plain_sgd_file, data, ray_cluster):
    with pytest.raises(InvalidSettingError, match=r"has \d processors, and 9 workers"):
        edgefl.simulate(plain_sgd_file, data, engine="ray", ray_address=ray_cluster.address, workers=9, **SETTINGS)
    assert not ray.is_initialized()
