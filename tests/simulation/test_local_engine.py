"""The engine of worker processes: what it costs beside the work itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.hashing import weights_hash
from edgefl_simulation.engines import local
from edgefl_simulation.fleet import Fleet, device_names
from edgefl_simulation.tables import DEVICES, Rows, Tables, write_table

COHORT = 40


@pytest.fixture
def messages(monkeypatch):
    """How many jobs each message to a worker had."""
    counts, tell = [], local.Local._tell

    def counting(engine, worker, tickets):
        counts.append(len(tickets))
        tell(engine, worker, tickets)

    monkeypatch.setattr(local.Local, "_tell", counting)
    return counts


def weights_of(model, data, workers):
    settings = {"rounds": 3, "cohort": COHORT, "devices": COHORT, "evaluate_every": 0}
    return weights_hash(edgefl.simulate(model, data, workers=workers, **settings).weights)


def test_short_jobs_travel_together_and_end_with_the_same_bits(federated_file, owned, messages, monkeypatch):
    data = {name: array for name, array in owned(7).items() if name != "id"}
    alone = weights_of(federated_file, data, 1)
    monkeypatch.setattr(local, "_MESSAGE", 1e9)  # beside it all jobs are short, however busy the machine is
    assert weights_of(federated_file, data, 2) == alone
    assert sum(messages) == 3 * COHORT
    assert max(messages) > 1


def test_long_jobs_travel_alone(federated_file, owned, messages, monkeypatch):
    data = {name: array for name, array in owned(7).items() if name != "id"}
    monkeypatch.setattr(local, "_MESSAGE", 0.0)
    weights_of(federated_file, data, 2)
    assert set(messages) == {1}


def resident_bytes(path):
    """What of a mapped file is this process's memory."""
    found = 0
    for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if str(path) in block.splitlines()[0]:
            found += 1024 * int(re.search(r"^Rss:\s+(\d+)", block, re.MULTILINE)[1])
    return found


def test_rows_smaller_than_a_page_are_nobodys_memory_once_they_were_read(tmp_path):
    rows = 1 << 16
    write_table(tmp_path / DEVICES, {"x": (np.ones((rows, 64), np.float32), np.dtype("f4"))}, np.arange(rows))
    tables = Tables(tmp_path)
    for start in range(0, rows, 64):
        part = Rows(DEVICES, start, start + 4)
        assert tables.read(part)["x"].sum() == 4 * 64
        tables.release(part)
    assert resident_bytes(tmp_path / DEVICES / "x.npy") < 1 << 20


def test_ids_of_a_large_fleet_are_made_when_they_are_asked_for():
    names = device_names(10**9)
    assert len(names) == 10**9
    assert names[7] == "device-000007"
    assert names[-1] == "device-999999999"
    assert names[2:4] == ["device-000002", "device-000003"]
    fleet = Fleet(device_names(3), np.arange(4), np.zeros(3, np.int64))
    assert list(fleet.names) == ["device-000000", "device-000001", "device-000002"]
    assert fleet.names == list(fleet.names)
