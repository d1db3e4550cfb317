"""From a data set to a fleet: what is held out, which rows fall on whom, and the tables that workers map."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest
from edgefl_device_runtime.tasks import arrange
from edgefl_device_runtime.training.data import Dataset, prepare
from edgefl_server.aggregation import SettingError
from edgefl_simulation.data import DataSet, fitted_to
from edgefl_simulation.data.advice import COUNTED
from edgefl_simulation.draws import stream
from edgefl_simulation.fleet import ROOT_DEVICE, Fleet, device_ids
from edgefl_simulation.partitioning import Partitioner, Parts, Rows, partition
from edgefl_simulation.partitioning.base import Indices, shuffled
from edgefl_simulation.tables import DEVICES, HELD_OUT, write_table

__all__ = ["Divided", "Division", "Prepared", "check_fit", "divide", "fingerprint", "labels_of", "prepare_fleet"]


_ROW = re.compile(r"\brow \d")
_SCALING = re.compile(r"Rescaling|Normalization|Divide|Multiply|Lambda")
"""Layers and operations of Keras, by their names, that may bring pixels between 0 and 1."""


@dataclass(frozen=True)
class Division:
    """The division of rows.

    Attributes:
        partition: the name of a partitioner with what stands behind it, or a partitioner.
        devices: how many; 0: as many as the partition itself says.
        held_out: the share of rows that no device gets, where the data set has no such rows itself.
        local_test: the share of its rows that each device keeps for tests.
        label: the array that a partition by class goes by; empty: the model's target.
        seed: of every choice.
        root_rows: rows that a device beside all others gets, drawn before these: the root set of a run; 0: there is no
            such device.
    """

    partition: str | Partitioner = "iid"
    devices: int = 0
    held_out: float = 0.1
    local_test: float = 0.0
    label: str = ""
    seed: int = 0
    root_rows: int = 0

    def __post_init__(self) -> None:
        for name, share in (("held_out", self.held_out), ("local_test", self.local_test)):
            given: Any = share
            if not isinstance(given, (int, float, np.number)) or not 0 <= given < 1:
                raise SettingError(f"{{{name}}} expects a share from 0 up to but not including 1, got {share!r:.80}.")


@dataclass(frozen=True)
class Divided:
    """The rows of each device.

    Attributes:
        names: the devices' ids.
        parts: their rows, ascending.
        held_out: rows that no device has, where the data set has no rows for tests itself.
        root: the rows of the root device, ascending.
    """

    names: Sequence[str]
    parts: Parts
    held_out: Indices
    root: Indices

    def left_over(self, rows: int) -> int:
        """The number of rows that nobody holds, and no test either, as where a partition names the sizes of devices."""
        return rows - len(self.held_out) - len(self.root) - sum(map(len, self.parts))


@dataclass(frozen=True)
class Prepared:
    """A fleet whose rows lie in tables.

    Attributes:
        fleet: the devices; the last one is the root device, where there is one.
        held_out: rows of the table with those that no device has; 0: there is none.
        remarks: what may be a mistake, a sentence each.
    """

    fleet: Fleet
    held_out: int
    remarks: tuple[str, ...] = ()


def prepare_fleet(data: DataSet, manifest: ModelManifest, division: Division, tables: Path) -> Prepared:
    """Divides a data set and writes its tables.

    Args:
        data: all rows.
        manifest: of the model that they have to fit.
        division: how.
        tables: the folder for the tables.

    Raises:
        DataError: the data does not fit the model.
        InvalidSettingError: it cannot be divided so.
        StorageError: the tables cannot be written.
    """
    data = fitted_to(data, manifest)
    whole, test = check_fit(data, manifest)
    target = np.asarray(whole.columns[-1].data) if len(manifest.targets) == 1 else None
    divided = divide(data, division, labels_of(data, division.label, target))
    parts, tests = _with_tests(divided.parts, division)
    names = device_ids(divided.names)
    if division.root_rows:  # it is tested on nothing
        names, parts, tests = [*names, ROOT_DEVICE], [*parts, divided.root], np.append(tests, 0)
    write_table(tables / DEVICES, _arrays(whole), np.concatenate(parts))
    if test is not None:
        write_table(tables / HELD_OUT, _arrays(test), np.arange(test.rows))
    elif divided.held_out.size:
        write_table(tables / HELD_OUT, _arrays(whole), divided.held_out)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Prepared(
        Fleet(names, offsets, tests),
        len(divided.held_out) if test is None else test.rows,
        tuple(_remarks(data, divided, manifest)),
    )


def _remarks(data: DataSet, divided: Divided, manifest: ModelManifest) -> Iterator[str]:
    if left_over := divided.left_over(data.rows):
        yield f"{left_over:,} of {data.rows:,} rows lie on no device: the partition leaves them over."
    pixels = next(
        (name for name in ("x", *manifest.inputs) if getattr(data.arrays.get(name), "dtype", None) == np.uint8), ""
    )
    if pixels and not manifest.index_sizes and not _SCALING.search(json.dumps(manifest.keras_config, default=str)):
        yield (
            f"The array {pixels!r} is uint8, as pixels from 0 to 255, and no layer of the model scales it: if it was "
            "made for numbers from 0 to 1, divide by 255."
        )


def divide(data: DataSet, division: Division, labels: NDArray[Any] | None) -> Divided:
    """Says which rows fall on which device, and which on none.

    Args:
        data: all rows.
        division: how.
        labels: the class of each row, ``[rows]``; None: there are none.

    Raises:
        DataError: the rows lack what the partition goes by.
        InvalidSettingError: they cannot be divided so.
    """
    own, held_out = np.arange(data.rows), np.empty(0, np.intp)
    if not data.held_out and division.held_out:
        order = shuffled(own, np.random.Generator(stream(division.seed, "held-out")))
        count = round(division.held_out * data.rows)
        held_out, own = np.sort(order[:count]), np.sort(order[count:])
    if division.root_rows >= max(1, len(own)):
        raise SettingError(
            f"{{root_rows}} expects fewer than the {len(own)} rows that there are, got {division.root_rows}."
        )
    order = shuffled(own, np.random.Generator(stream(division.seed, "root set"))) if division.root_rows else own
    root, own = np.sort(order[: division.root_rows]), np.sort(order[division.root_rows :])
    rows = Rows(
        len(own),
        None if labels is None else labels[own],
        None if data.owners is None else np.asarray(data.owners)[own],
        data.owner_names,
        own,
    )
    names, parts = partition(rows, division.partition, division.devices, division.seed)
    return Divided(names, [own[part] for part in parts], held_out, root)


def labels_of(data: DataSet, label: str, target: NDArray[Any] | None) -> NDArray[Any] | None:
    """The class of each row, ``[rows]``; None: there is none.

    Args:
        data: all rows.
        label: the array that holds it; empty: the target.
        target: the target, ``[rows]``, ``[rows, 1]`` or one-hot ``[rows, classes]``; None: there is no single one.

    Raises:
        DataError: there is no such array, or its rows are no classes.
    """
    if label and label not in data.arrays:
        raise DataError(f"There is no array {label!r} to take the label from; the data holds {', '.join(data.arrays)}.")
    found = np.asarray(data.arrays[label]) if label else target
    if found is None:
        return None
    found = found[..., 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.ndim == 2:  # one-hot
        found = found.argmax(axis=1)
    if found.ndim != 1 or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        if label:
            raise DataError(f"The array {label!r} expects one class for each row, got shape {found.shape} or NaN.")
        return None
    return found


def fingerprint(data: DataSet) -> dict[str, Any]:
    """Computes what tells one data set from another: shapes, types and checksums."""
    owners = {} if data.owners is None else {"owner of each row": np.asarray(data.owners)}
    if data.owner_names is not None:
        owners["names of owners"] = data.owner_names.astype(np.str_)
    groups: dict[str, Mapping[str, NDArray[Any]]] = {"": data.arrays, "held out ": data.held_out, "the ": owners}
    return {
        prefix + name: [list(array.shape), array.dtype.str, _checksum(array)]
        for prefix, arrays in groups.items()
        for name, array in sorted(arrays.items())
    }


def check_fit(data: DataSet, manifest: ModelManifest) -> tuple[Dataset, Dataset | None]:
    """All rows as the model takes them, and those that are held out, where there are any.

    Args:
        data: as `fitted_to` leaves it.
        manifest: of the model.

    Raises:
        DataError: the data does not fit the model.
    """
    test = _fit(data.held_out, manifest, "The held-out data") if data.held_out else None
    return _fit(data.arrays, manifest, "The data"), test


def _fit(arrays: Mapping[str, NDArray[Any]], manifest: ModelManifest, title: str) -> Dataset:
    """Arranges and checks all rows once, so that what does not fit is said before anybody trains."""
    try:
        examples = arrange(arrays, manifest)
        return prepare(manifest, "train", examples.x, examples.y, examples.sample_weight)
    except DataError as error:
        hint = " ".join(filter(None, (error.hint, COUNTED if _ROW.search(error.message) else None)))
        raise DataError(f"{title} does not fit the model: {error.message}", hint=hint or None) from error


def _arrays(data: Dataset) -> dict[str, tuple[NDArray[Any], np.dtype[Any]]]:
    """The columns under the model's names, each with the type that the model takes."""
    found = {column.name: (column.data, column.dtype) for column in data.columns}
    if data.sample_weight is not None:
        found["sample_weight"] = data.sample_weight, data.sample_weight.dtype
    return found  # type: ignore[return-value]  # nothing here stays in a device's file


def _with_tests(parts: Sequence[NDArray[np.intp]], division: Division) -> tuple[list[NDArray[np.intp]], NDArray[Any]]:
    """Lets each device keep some of its rows for tests, drawn at random: its last ones."""
    tests = np.array([int(division.local_test * len(part)) for part in parts], np.int64)
    if not tests.any():
        return list(parts), tests
    ordered = []
    for number, (part, count) in enumerate(zip(parts, tests.tolist(), strict=True)):
        order = shuffled(part, np.random.Generator(stream(division.seed, "local test", number)))
        ordered.append(np.concatenate([np.sort(order[count:]), np.sort(order[:count])]))
    return ordered, tests


def _checksum(array: NDArray[Any]) -> int:
    if array.dtype.hasobject:
        return 0
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
