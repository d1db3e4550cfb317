"""What both sides share: the model, and which rows a device has."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

import edgefl

__all__ = ["arrays_of", "held_out", "load", "rows_of_device", "seed_of", "set_arrays"]

HELD_OUT = 10
"""Every tenth row of a data set belongs to no device: the server tests on those."""

Rows = tuple[NDArray[Any], NDArray[Any]]


@functools.lru_cache(maxsize=1)
def load(model: bytes) -> edgefl.TrainableModel:
    """The interpreter for a model file; a process that is many devices in turn, as in a simulation, makes it once."""
    return edgefl.TrainableModel(model)


def arrays_of(model: edgefl.TrainableModel) -> ArrayRecord:
    """The model's weights as Flower sends them, by name."""
    names = [each.name for each in model.manifest.parameters]
    return ArrayRecord({name: Array(value) for name, value in zip(names, model.get_weights(), strict=True)})


def set_arrays(model: edgefl.TrainableModel, arrays: ArrayRecord) -> None:
    """Makes the model what was received, as at the beginning of every task of edgefl's: with a fresh optimizer."""
    model.reset_optimizer()
    model.set_weights({name: array.numpy() for name, array in arrays.items()})


def seed_of(run: int, server_round: int, device: str) -> int:
    """The seed of one device's work in one round: the order of its rows, and masks of dropout, follow from it."""
    digest = hashlib.sha256(f"{run} {server_round} {device}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def rows_of_device(node: Mapping[str, Any], run: Mapping[str, Any], shape: tuple[int, ...]) -> Rows:
    """The examples that a device trains on.

    Args:
        node: the device's own settings: ``data``, the path of its ``.npz`` with ``x`` and ``y``; a simulated device has
            ``partition-id`` and ``num-partitions`` instead, and gets its part of a data set.
        run: the run's settings.
        shape: of an example, as the model takes it.
    """
    if "data" in node:
        with np.load(str(node["data"])) as arrays:
            return arrays["x"].reshape(-1, *shape), arrays["y"]
    x, y = _whole(str(run["data"]), shape)
    mine = np.arange(len(x)) % HELD_OUT != 0
    x, y = x[mine], y[mine]
    part = _parts(str(run["data"]), str(run["partition"]), int(node["num-partitions"]), int(run["seed"]))
    rows = part[int(node["partition-id"])]
    return x[rows], y[rows]


def held_out(data: str, shape: tuple[int, ...]) -> Rows:
    """The examples that no simulated device has."""
    x, y = _whole(data, shape)
    return x[::HELD_OUT], y[::HELD_OUT]


def _whole(data: str, shape: tuple[int, ...]) -> Rows:
    from edgefl_simulation import load_data  # of use where devices are simulated only

    arrays = load_data(data).arrays
    return arrays["x"].reshape(-1, *shape), arrays["y"]


@functools.lru_cache(maxsize=1)
def _parts(data: str, text: str, devices: int, seed: int) -> list[NDArray[np.intp]]:
    from edgefl_simulation import load_data
    from edgefl_simulation.partitioning import Rows as Divided
    from edgefl_simulation.partitioning import partition

    labels = load_data(data).arrays["y"]
    labels = labels[np.arange(len(labels)) % HELD_OUT != 0]
    _, parts = partition(Divided(len(labels), labels), text, devices, seed)
    return list(parts)
