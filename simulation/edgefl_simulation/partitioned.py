"""A data set that is divided among devices, without a model or a simulation: who holds what, and files for devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.manifest import ModelManifest
from edgefl_simulation.argument_kinds import check_kinds
from edgefl_simulation.data import OWNER, DataSet, conventional, fitted_to, load_data
from edgefl_simulation.holdings.counting import Holdings, count
from edgefl_simulation.holdings.device_files import HELD_OUT, write_files
from edgefl_simulation.holdings.picture import draw
from edgefl_simulation.partitioning import Partitioner
from edgefl_simulation.preparing import Divided, Division, check_fit, divide, labels_of

__all__ = ["Partitioned", "partition_data"]


@dataclass(frozen=True, eq=False, repr=False)
class Partitioned:
    """A data set and who holds what of it.

    Attributes:
        data: the arrays, under the names that devices look for.
        division: what was wanted.
        divided: the rows of each device.
        holdings: how many of each class those are.
    """

    data: DataSet
    division: Division
    divided: Divided
    holdings: Holdings

    def __repr__(self) -> str:
        return f"<Partitioned {self.division.partition} on {len(self.divided.names):,} devices: {self.data}>"

    @property
    def held_out(self) -> int:
        """Rows that no device holds."""
        tests = self.data.held_out
        return len(next(iter(tests.values()))) if tests else len(self.divided.held_out)

    @property
    def left_over(self) -> int:
        """Rows that nobody holds and that are no test either."""
        return self.divided.left_over(self.data.rows)

    def plot(self, title: str = "") -> Any:
        """A `matplotlib.figure.Figure`: rows of each device, and the share of each class in them.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        return draw(self.holdings, title or f"{self.division.partition}, {len(self.divided.names)} devices")

    def write(self, folder: str | Path) -> list[Path]:
        """Writes a file for each device, one with the rows of none, and how it was made; the files of devices.

        Raises:
            InvalidSettingError: the folder is not empty.
            StorageError: it cannot be written.
        """
        folder = Path(folder)
        data, divided, division = self.data, self.divided, self.division
        tests = None
        if data.held_out:
            tests = data.held_out, np.arange(self.held_out)
        elif divided.held_out.size:
            tests = data.arrays, divided.held_out
        about = {
            "partition": str(division.partition),
            "seed": division.seed,
            "held_out": HELD_OUT if tests else None,
            "held_out_rows": self.held_out,
            "arrays": {name: [str(array.dtype), list(array.shape[1:])] for name, array in data.arrays.items()},
            "figures": self.holdings.figures(),
            "devices": {name: len(part) for name, part in zip(divided.names, divided.parts, strict=True)},
        }
        write_files(folder, divided.names, divided.parts, data.arrays, tests, about)
        return [folder / f"{name}.npz" for name in divided.names]


def partition_data(
    data: Any,
    *,
    devices: int = 0,
    partition: str | Partitioner = "iid",
    seed: int = 1,
    held_out: float = 0.1,
    label: str = "",
    owner: str = OWNER,
    feature_columns: Sequence[str] = (),
    target_column: str = "",
    manifest: ModelManifest | None = None,
) -> Partitioned:
    """Divides a data set among devices, just as a simulation with the same arguments does.

    Args:
        data: as `edgefl.simulate` takes it.
        devices: how many; 0: as many as the partition itself says.
        partition: which rows fall on which device.
        seed: of every choice.
        held_out: the share of rows that no device gets, where the data set has no such rows itself.
        label: the array that holds the class of each row; empty: the target.
        owner: the array, or column, that says whose each row is.
        feature_columns: the columns, or arrays, that are the input; none: all but the target.
        target_column: the column, or array, that is the target; empty: as `load_data` finds it.
        manifest: of a model that the rows have to fit; None: of none.

    Returns:
        Who holds what, to be looked at, drawn or written.

    Raises:
        DataError: the data cannot be read, lacks what the partition goes by, or does not fit the model.
        InvalidSettingError: it cannot be divided so.
    """
    check_kinds(partition_data, locals())
    division = Division(partition, devices, held_out, 0.0, label, seed)
    found = load_data(data, owner, features=feature_columns, target=target_column)
    found = conventional(found) if manifest is None else fitted_to(found, manifest)
    if manifest is None:
        target = found.arrays.get("y")
    else:
        whole, _ = check_fit(found, manifest)
        target = np.asarray(whole.columns[-1].data) if len(manifest.targets) == 1 else None
    labels = labels_of(found, label, target)
    divided = divide(found, division, labels)
    return Partitioned(found, division, divided, count(divided.names, divided.parts, labels))
