"""Real devices sum up their data, through kills of theirs and of the server: equal to numpy on the pooled data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from real_processes import Fleet, Process, write_identity


def kept(fleet: Fleet) -> list[Path]:
    """Files of outcomes that the server has."""
    return [each for each in (fleet.state / "outcomes").rglob("*") if each.is_file()]


def test_statistics_equal_those_of_the_pooled_data_whoever_is_killed(fleet, write_data, mlp_file, tmp_path) -> None:
    files = [write_data(f"d{i}", 20 + 30 * i, i, scale=1.0 + i) for i in range(3)]
    for i in range(3):
        write_identity(fleet.folder / f"d{i}", i)
    fleet.start_server()
    run = fleet.create_run(
        mlp_file, "kitchen", rounds=1, target=3, kind="statistics", shown_from=3, lease_seconds=5, name="data"
    )
    nothing = Process.start("run", "statistics", run, "--state", fleet.state)
    assert nothing.child.wait(60) != 0
    assert "has found no statistics yet: it is active" in nothing.errors()
    devices = [fleet.start_device(f"d{i}", "kitchen", file) for i, file in enumerate(files)]
    random = np.random.default_rng(7)
    for victim in (0, 3, 1, 3):
        time.sleep(float(random.uniform(0.2, 0.6)))
        if victim == 3:
            fleet.server.kill()
            fleet.start_server()
        else:
            devices[victim].kill()
            devices[victim] = fleet.start_device(f"d{victim}", "kitchen", files[victim])
    for each in devices:
        each.finish(180)
    out = tmp_path / "statistics.json"
    shown = Process.start("run", "statistics", "data", "-o", out, "--state", fleet.state, "--format", "json").finish()
    found = json.loads(out.read_text())
    assert {name: shown[name] for name in found} == found
    data = [np.load(file) for file in files]
    x = np.concatenate([each["x"] for each in data]).astype(np.float64)
    y = np.concatenate([each["y"] for each in data])
    assert (found["rows"], found["devices"]) == (len(x), 3)
    (name,) = found["inputs"]
    own = found["arrays"][name]
    np.testing.assert_allclose(own["mean"], x.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(own["variance"], x.var(0), rtol=1e-12)
    np.testing.assert_array_equal(own["low"], x.min(0))
    np.testing.assert_array_equal(own["high"], x.max(0))
    middle = np.sort(x, axis=0)[(len(x) - 1) // 2]
    np.testing.assert_allclose(own["quantiles"]["0.5"], middle, rtol=0.0101)
    (target,) = set(found["arrays"]) - {name}
    assert found["arrays"][target]["values"] == [[int(v), int((y == v).sum())] for v in np.unique(y)]
    text = Process.start("run", "statistics", run, "--state", fleet.state)
    assert text.child.wait(60) == 0
    assert f"{len(x)} examples of 3 devices" in text.output()
    # Nothing of single devices stays behind.
    end = time.monotonic() + 60
    while kept(fleet) and time.monotonic() < end:
        time.sleep(0.2)
    assert kept(fleet) == []
