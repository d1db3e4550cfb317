"""The protocol of partitioners: rows in, the rows of each device out. Deterministic by seed.

The names are those of flwr-datasets. A partitioner is a frozen dataclass; its fields, in their order, are what
stands behind its name: ``dirichlet:0.5``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation import SettingError
from edgefl_simulation.data.advice import COUNTED
from edgefl_simulation.draws import stream

__all__ = ["PARTITIONERS", "Indices", "Partitioner", "Parts", "Rows", "check", "cut_at", "parse", "shuffled"]

_SPELT = ("int", "float", "tuple[int, ...]")
"""Types of a partitioner's fields that can stand behind its name."""
Indices = NDArray[np.intp]
Parts = list[Indices]
"""The rows of each device, ascending."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that are to be given to devices.

    Attributes:
        count: how many rows.
        labels: the class of each, ``[count]``; None: there are none.
        owners: whose each is, ``[count]``; None: nobody knows.
        owner_names: what the numbers in `owners` stand for, sorted; None: they are themselves.
        numbers: which rows of the data these are, ``[count]``, for errors; None: just these.
    """

    count: int
    labels: NDArray[Any] | None = None
    owners: NDArray[Any] | None = None
    owner_names: NDArray[Any] | None = None
    numbers: Indices | None = None

    def classes(self, title: str) -> list[Indices]:
        """The rows of each class, in the order of classes.

        Raises:
            DataError: there are no classes.
        """
        if self.labels is None:
            raise DataError(
                f"The partition {title} needs a class for each row, and the data has none.",
                hint="Say which array holds them (`label`, --label), or take iid.",
            )
        return _groups(self.labels)

    def people(self, title: str) -> tuple[list[str], list[Indices]]:
        """The owners, sorted, as text, and the rows of each.

        Raises:
            DataError: nobody knows whose the rows are, also of some of them, or what should say it are measurements.
        """
        if self.owners is None:
            raise DataError(
                f"The partition {title} needs to know whose each row is, and the data does not say.",
                hint="Add an array or a column 'id', or say which one it is (owner, --owner).",
            )
        found, groups = np.unique(self.owners), _groups(self.owners)
        raw = found if self.owner_names is None else self.owner_names[found]
        names = [_id_text(value) for value in raw.tolist()]
        for name, group in zip(names, groups, strict=True):
            if name and not _is_fraction(name, raw):
                continue
            row = int(group[0] if self.numbers is None else self.numbers[group[0]])
            got = f"{name}, which is a quantity," if name else "none"
            raise DataError(
                f"The partition {title} expects an id of a person or a device for each row, got {got} in row {row}"
                + (f" and in {len(group) - 1} more." if len(group) > 1 else "."),
                hint="Fill it in or remove such rows, or say which array or column holds the ids (owner, --owner). "
                + COUNTED,
            )
        return names, groups


class Partitioner(ABC):
    """A rule by which rows fall on devices.

    Attributes:
        summary: for the documentation.
    """

    summary: ClassVar[str] = ""

    @abstractmethod
    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """The rows of each device.

        Args:
            rows: what there is.
            devices: how many; 0: as many as the rule itself says.
            random: for every choice.

        Raises:
            InvalidSettingError: that is not possible with so many devices.
            DataError: the rows lack what the rule goes by.
        """

    def names(self, rows: Rows, devices: int) -> Sequence[str] | None:
        """Names the devices, where the rule knows; None: they are counted."""
        return None


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Partitioner) and dataclasses.is_dataclass(entry)):
        raise InvalidSettingError("it is no dataclass that is a Partitioner.")


PARTITIONERS: Registry[type[Partitioner]] = Registry("partitioner", "edgefl.partitioners", check=_check)
"""All partitioners by the name that a partition is asked for by."""


def parse(text: str) -> Partitioner:
    """Makes a partitioner from its name and what stands behind it: ``iid``, ``dirichlet:0.5``, ``size:10,20,30``.

    Raises:
        InvalidSettingError: there is none of the name, or it takes something else.
    """
    name, colon, rest = text.partition(":")
    chosen = PARTITIONERS.get(name)
    # What is no number is for Python only.
    fields = [each for each in dataclasses.fields(chosen) if each.type in _SPELT]  # type: ignore[arg-type]
    words = [word.strip() for word in rest.split(",")] if colon else []
    expected = InvalidSettingError(f"The partition {name} expects {_spelt(name, fields)}, got {text!r:.80}.")
    if len(fields) == 1 and fields[0].type == "tuple[int, ...]":
        values: list[Any] = [words]
    elif len(words) <= len(fields):
        values = list(words)
    else:
        raise expected
    given: dict[str, Any] = {}
    for each, value in zip(fields, values):
        try:
            if each.type == "tuple[int, ...]":
                given[each.name] = tuple(map(int, value))
            else:
                given[each.name] = float(value) if each.type == "float" else int(value)
        except ValueError:
            raise expected from None
    lacking = [each for each in fields if each.name not in given and each.default is dataclasses.MISSING]
    if lacking:
        raise expected
    return chosen(**given)


def _spelt(name: str, fields: Sequence[dataclasses.Field[Any]]) -> str:
    """A partition as people type it, with what they may leave out in brackets: ``dirichlet:ALPHA[,LEAST]``."""
    needed = [each.name.upper() for each in fields if each.default is dataclasses.MISSING]
    others = [each.name.upper() for each in fields if each.default is not dataclasses.MISSING]
    if not fields:
        return f"{name} alone"
    text = f"{name}:{','.join(needed)}" if needed else name
    return f"{text}[{',' if needed else ':'}{','.join(others)}]" if others else text


def check(parts: Parts, text: str, least: int = 1) -> None:
    """Makes sure that every device has rows.

    Args:
        parts: of each device.
        text: what the user calls the partition.
        least: rows that a device must have.

    Raises:
        InvalidSettingError: one has not.
    """
    poor = [number for number, part in enumerate(parts) if len(part) < least]
    if poor:
        what = "no rows" if least == 1 else f"fewer than {least} rows"
        raise InvalidSettingError(
            f"The partition {text} leaves {len(poor)} of {len(parts)} devices with {what}; the first is number "
            f"{poor[0]}.",
            hint="Take fewer devices, more data, or a partition that is more even.",
        )


def generator(seed: int) -> np.random.Generator:
    """The generator with which a partition is drawn."""
    return np.random.Generator(stream(seed, "partition"))


def shuffled(rows: Indices, random: np.random.Generator) -> Indices:
    """The same rows in a random order."""
    # Not `permutation`: raw output is what numpy promises to keep.
    keys = random.bit_generator.random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")] if len(rows) else rows


def cut_at(rows: Indices, sizes: Sequence[int]) -> Parts:
    """Consecutive pieces of such sizes, each ascending."""
    ends = np.cumsum(np.asarray(sizes, np.int64))
    return [np.sort(rows[end - size : end]) for size, end in zip(sizes, ends.tolist(), strict=True)]


def dealt(groups: Sequence[Indices], sizes: NDArray[np.int64], random: np.random.Generator) -> Parts:
    """Deals the rows of each class at random: ``sizes[class, device]`` of them to each device."""
    pieces = [cut_at(shuffled(own, random), size.tolist()) for own, size in zip(groups, sizes)]
    return [np.sort(np.concatenate(own)) for own in zip(*pieces, strict=True)]


def even_sizes(count: int, parts: int) -> list[int]:
    """Whole numbers that differ by at most 1 and add up, the larger ones first."""
    least, more = divmod(count, parts)
    return [least + (number < more) for number in range(parts)]


def proportional_sizes(count: int, shares: NDArray[np.float64]) -> list[int]:
    """Whole numbers in such proportions that add up: those with the largest remainders are rounded up."""
    exact = count * (shares / shares.sum())
    sizes = np.floor(exact).astype(np.int64)
    missing = count - int(sizes.sum())
    for number in np.argsort(sizes - exact, kind="stable")[:missing]:
        sizes[number] += 1
    return [int(size) for size in sizes]


def need_devices(devices: int, text: str) -> int:
    """The number of devices.

    Raises:
        InvalidSettingError: nobody said how many.
    """
    if devices < 1:
        raise SettingError(f"The partition {text} needs to know how many devices there are.", hint="Give {devices}.")
    return devices


def _id_text(value: Any) -> str:
    """An id as text; whole numbers that became fractions on the way, as in tables with gaps, are whole again."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def _is_fraction(name: str, raw: NDArray[Any]) -> bool:
    return raw.dtype.kind == "f" and not name.lstrip("-").isdigit()


def _groups(values: NDArray[Any]) -> list[Indices]:
    _, places = np.unique(values, return_inverse=True)
    order = np.argsort(places, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(places[order])) + 1)
