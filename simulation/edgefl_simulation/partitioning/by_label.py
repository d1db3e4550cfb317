"""Partitions in which devices see classes unlike each other: label skew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl_simulation.partitioning.base import (
    PARTITIONERS,
    Indices,
    Partitioner,
    Parts,
    Rows,
    cut_at,
    even_sizes,
    need_devices,
    proportional_sizes,
    shuffled,
)

__all__ = ["Continuous", "Dirichlet", "InnerDirichlet", "Pathological", "Shard"]

_ATTEMPTS = 100
"""Draws of a Dirichlet partition until every device has enough."""


@PARTITIONERS.register("dirichlet")
@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Each class falls on the devices in proportions from a Dirichlet distribution, so sizes differ as well.

    Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks". It is drawn again until every
    device has `least` rows.

    Attributes:
        alpha: the smaller, the less alike the devices.
        least: rows that every device has.
    """

    summary: ClassVar[str] = "each class in Dirichlet proportions over the devices (Yurochkin et al. 2019)"
    alpha: float
    least: int = 10

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count, classes = need_devices(devices, "dirichlet"), rows.classes("dirichlet")
        if not 0 < self.alpha < np.inf:
            raise InvalidSettingError(f"The partition dirichlet expects an alpha above 0, got {self.alpha:g}.")
        if self.least * count > rows.count:
            raise InvalidSettingError(
                f"The partition dirichlet gives every device {self.least} rows at least, and {count} devices have "
                f"{rows.count} together.",
                hint=f"Take fewer devices, or dirichlet:{self.alpha:g},{max(1, rows.count // (4 * count))}.",
            )
        for _ in range(_ATTEMPTS):
            shares = random.dirichlet(np.full(count, self.alpha), len(classes))
            sizes = np.array([proportional_sizes(len(own), share) for own, share in zip(classes, shares)])
            if sizes.sum(axis=0).min() >= self.least:
                return _dealt(classes, sizes, random)
        raise InvalidSettingError(
            f"Of {_ATTEMPTS} draws of dirichlet:{self.alpha:g}, none gave each of {count} devices {self.least} rows.",
            hint="Take fewer devices or a larger alpha"
            + (f", or fewer rows at least: dirichlet:{self.alpha:g},1." if self.least > 1 else "."),
        )


@PARTITIONERS.register("inner-dirichlet")
@dataclass(frozen=True)
class InnerDirichlet(Partitioner):
    """Devices of one size, each with a mixture of classes of its own, drawn from a Dirichlet distribution.

    Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification". A
    class that has run out is left out of the mixture.

    Attributes:
        alpha: the smaller, the less alike the devices.
    """

    summary: ClassVar[str] = "as many rows each, with a Dirichlet mixture of classes of its own (Hsu et al. 2019)"
    alpha: float

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count = need_devices(devices, "inner-dirichlet")
        if not 0 < self.alpha < np.inf:
            raise InvalidSettingError(f"The partition inner-dirichlet expects an alpha above 0, got {self.alpha:g}.")
        left = [shuffled(own, random) for own in rows.classes("inner-dirichlet")]
        parts = []
        for size in even_sizes(rows.count, count):
            mixture = random.dirichlet(np.full(len(left), self.alpha))
            chosen: list[Indices] = []
            missing = size
            while missing:
                there = np.array([len(own) for own in left])
                wanted = mixture * (there > 0)
                # Where only classes are left of which the mixture has nothing, all that is left is as good.
                wanted = wanted if wanted.sum() > 1e-12 else there.astype(np.float64)
                for kind, number in enumerate(proportional_sizes(missing, wanted)):
                    taken = left[kind][:number]
                    left[kind] = left[kind][number:]
                    chosen.append(taken)
                    missing -= len(taken)
            parts.append(np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp))
        return parts


@PARTITIONERS.register("pathological")
@dataclass(frozen=True)
class Pathological(Partitioner):
    """Each device has rows of so many classes only; the devices that have a class share its rows evenly.

    Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study".

    Attributes:
        classes: of each device.
    """

    summary: ClassVar[str] = "each device with so many classes only (Li et al. 2022)"
    classes: int

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count, groups = need_devices(devices, "pathological"), rows.classes("pathological")
        if not 1 <= self.classes <= len(groups):
            raise InvalidSettingError(
                f"The partition pathological expects 1 to {len(groups)} classes for each device, got {self.classes}."
            )
        holds = np.zeros((len(groups), count), np.int64)
        for device in range(count):
            first = device % len(groups)  # so that no class lies nowhere, where there are devices enough
            others = shuffled(np.delete(np.arange(len(groups)), first), random)[: self.classes - 1]
            holds[[first, *others.tolist()], device] = 1
        sizes = np.zeros_like(holds)
        for kind, own in enumerate(groups):
            having = np.flatnonzero(holds[kind])
            if having.size:
                sizes[kind, having] = even_sizes(len(own), having.size)
        return _dealt(groups, sizes, random)


@PARTITIONERS.register("shard")
@dataclass(frozen=True)
class Shard(Partitioner):
    """Rows sorted by class are cut into shards of one size, and each device gets so many of them.

    McMahan et al. 2017, section 3, which gives each of 100 devices two shards.

    Attributes:
        shards: of each device.
    """

    summary: ClassVar[str] = "rows sorted by class, cut into shards, so many on each device (McMahan et al. 2017)"
    shards: int = 2

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count = need_devices(devices, "shard")
        if not 1 <= self.shards * count <= rows.count:
            raise InvalidSettingError(
                f"The partition shard expects 1 to {rows.count} shards in all, got {count} devices of {self.shards}."
            )
        by_class = np.concatenate([shuffled(own, random) for own in rows.classes("shard")])
        pieces = cut_at(by_class, even_sizes(rows.count, self.shards * count))
        dealt = shuffled(np.arange(len(pieces)), random).reshape(count, self.shards)
        return [np.sort(np.concatenate([pieces[number] for number in own])) for own in dealt]


@PARTITIONERS.register("continuous")
@dataclass(frozen=True)
class Continuous(Partitioner):
    """Rows are sorted by a number that mixes their label with chance, and cut into pieces of one size.

    Attributes:
        strictness: 0: chance alone; 1: the label alone.
    """

    summary: ClassVar[str] = "for labels that are quantities: between at random (0) and sorted by them (1)"
    strictness: float

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count = need_devices(devices, "continuous")
        if not 0 <= self.strictness <= 1:
            raise InvalidSettingError(f"The partition continuous expects 0 to 1, got {self.strictness:g}.")
        rows.classes("continuous")
        assert rows.labels is not None
        values = rows.labels.astype(np.float64)
        spread = float(values.std()) or 1.0
        chance = shuffled(np.arange(rows.count), random) / max(1, rows.count - 1)  # from 0 to 1, evenly
        noise = (chance - chance.mean()) / (chance.std() or 1.0)
        mixed = self.strictness * (values - values.mean()) / spread + (1 - self.strictness) * noise
        return cut_at(np.argsort(mixed, kind="stable"), even_sizes(rows.count, count))


def _dealt(groups: list[Indices], sizes: NDArray[np.int64], random: np.random.Generator) -> Parts:
    """Deals the rows of each class: ``sizes[class, device]`` of them to each device."""
    pieces = [cut_at(shuffled(own, random), size.tolist()) for own, size in zip(groups, sizes)]
    return [np.sort(np.concatenate(own)) for own in zip(*pieces, strict=True)]
