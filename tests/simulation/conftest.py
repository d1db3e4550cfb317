"""Small data for the models of tests/build_models.py, and simulations of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from real_processes import device_id

Owned = dict[str, Any]


@pytest.fixture(scope="session")
def owned() -> Callable[..., Owned]:
    """Rows for the models of 20 numbers and 5 classes, each with the id of a device that owns it."""

    def owned(devices: int = 3, rows: int = 19) -> Owned:
        parts = []
        for number in range(devices):
            random = np.random.default_rng(number)
            x = random.normal(size=(rows + 8 * number, 20)).astype(np.float32)
            y = np.argmax(x[:, :5] + x[:, 5:10], axis=1).astype(np.int32)
            parts.append((x, y, np.full(len(x), device_id(number))))
        x, y, owner = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.random.default_rng(9).permutation(len(x))
        return {"x": x[order], "y": y[order], "id": owner[order]}

    return owned


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes with a processor each, all on 127.0.0.1; what a test adds to it is the test's."""
    pytest.importorskip("ray")
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False  # this machine's address is then 127.0.0.1
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "include_log_monitor": False}
    for attempt in range(4):
        cluster = Cluster(shutdown_at_exit=True)
        try:
            cluster.add_node(**node)
            cluster.add_node(**node)
            break
        except Exception:  # Ray gives a node half a minute to start, which a busy machine may exceed
            cluster.shutdown()
            if attempt == 3:
                raise
    yield cluster
    cluster.shutdown()
    ray_constants.ENABLE_RAY_CLUSTER = True


@pytest.fixture(scope="session")
def owned_once(owned: Callable[..., Owned]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows and their classes, for a fleet that is divided at random."""
    found = owned(3, 40)
    return found["x"], found["y"]
