"""A server whose rows are in PostgreSQL: what 202 promises holds whoever is killed, the database included."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postgresql_cluster import PostgresqlCluster
from real_processes import Fleet, write_identity
from server_process import edgefl

DEVICES = 3


@pytest.fixture
def cluster(postgresql: PostgresqlCluster) -> PostgresqlCluster:
    """The session's, for tests that stop and start it."""
    return postgresql


def final_weights(fleet: Fleet, run: str, rounds: int) -> np.ndarray:
    for device in fleet.devices[-DEVICES:]:
        device.finish(patience=300)
    status = fleet.status(run)
    assert status["state"] == "done"
    folded = fleet.query("SELECT task_id FROM outcomes WHERE disposition = 'folded'")
    assert len(folded) == len(set(folded)) == DEVICES * rounds
    assert [entry["outcomes"]["folded"] for entry in status["history"]] == [DEVICES] * rounds
    return fleet.weights(run)


def started(folder: Path, data: dict[str, Path], model: Path, rounds: int, database: str) -> tuple[Fleet, str]:
    fleet = Fleet(folder, database=database)
    for index, name in enumerate(data):
        write_identity(folder / name, index)
    fleet.start_server()
    run = fleet.create_run(model, "kitchen", rounds=rounds, target=DEVICES, seed=3, epochs=2)
    for name, file in data.items():
        fleet.start_device(name, "kitchen", file)
    return fleet, run


def compare(tmp_path: Path, write_data: Any, model: Path, cluster: PostgresqlCluster, rounds: int, kills: int) -> None:
    data = {f"d{index}": write_data(f"data{index}", rows=27 + 8 * index, seed=index) for index in range(DEVICES)}
    undisturbed, run = started(tmp_path / "sqlite", data, model, rounds, "")
    try:
        expected = final_weights(undisturbed, run, rounds)
    finally:
        undisturbed.close()
    disturbed, run = started(tmp_path / "postgresql", data, model, rounds, cluster.make())
    chaos = random.Random(20261201)
    try:
        for turn in range(kills):
            time.sleep(chaos.uniform(0, 1.0))  # a kill may hit any moment of a round
            if turn % 2:
                cluster.stop(signal.SIGQUIT)  # as a power cut would: it recovers from its log
                time.sleep(chaos.uniform(0, 1.0))
                cluster.start()
            else:
                assert disturbed.server is not None
                disturbed.server.kill()
                disturbed.start_server()
        found = final_weights(disturbed, run, rounds)
    finally:
        disturbed.close()
    assert found.tobytes() == expected.tobytes()


def test_kills_of_the_server_and_of_postgresql_change_nothing(
    tmp_path: Path, write_data: Any, mlp_file: Path, cluster: PostgresqlCluster
) -> None:
    compare(tmp_path, write_data, mlp_file, cluster, rounds=8, kills=4)


@pytest.mark.slow
def test_forty_kills_of_the_server_and_of_postgresql_change_nothing(
    tmp_path: Path, write_data: Any, mlp_file: Path, cluster: PostgresqlCluster
) -> None:
    compare(tmp_path, write_data, mlp_file, cluster, rounds=120, kills=40)


@pytest.mark.slow
def test_a_database_that_is_away_for_a_minute_costs_that_minute(
    tmp_path: Path, write_data: Any, mlp_file: Path, cluster: PostgresqlCluster
) -> None:
    data = {f"d{index}": write_data(f"data{index}", rows=27, seed=index) for index in range(DEVICES)}
    fleet, run = started(tmp_path / "fleet", data, mlp_file, 30, cluster.make())
    try:
        time.sleep(1)
        cluster.stop()
        time.sleep(60)
        assert fleet.server is not None
        assert fleet.server.running
        assert all(device.running for device in fleet.devices)
        cluster.start()
        final_weights(fleet, run, 30)
        said = fleet.server.errors()
    finally:
        fleet.close()
    assert "Traceback" not in said
    assert said.count("Could not") < 20, said


def refused(tmp_path: Path, database: str, name: str = "state") -> str:
    done = edgefl("server", "start", "--state", tmp_path / name, "--port", 0, "--database", database)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_no_database_of_a_server_is_refused_with_what_to_do(tmp_path: Path, cluster: PostgresqlCluster) -> None:
    assert "expects a URL such as" in refused(tmp_path, "mysql://host/name")
    assert "expects a URL such as" in refused(tmp_path, "no url")
    assert "Is it running" in refused(tmp_path, "postgresql://edgefl:secret@127.0.0.1:1/edgefl")
    assert "secret" not in refused(tmp_path, "postgresql://edgefl:secret@127.0.0.1:1/edgefl")
    assert "does not exist" in refused(tmp_path, cluster.url("nowhere"))
    other = cluster.make(migrated=False)
    import psycopg

    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE somebody (name text)")
    assert "is not the database of an edgefl server" in refused(tmp_path, other)
    assert not (tmp_path / "state" / "folder.json").exists()


def test_a_database_belongs_to_one_state_folder(tmp_path: Path, cluster: PostgresqlCluster) -> None:
    fleet = Fleet(tmp_path / "first", database=cluster.make())
    try:
        fleet.start_server()
        assert "is that of another state folder" in refused(tmp_path, fleet.database)
        assert "Another server uses" in refused(tmp_path / "first", fleet.database, "server")
    finally:
        fleet.close()
    assert "is that of another state folder" in refused(tmp_path, fleet.database, "again")
