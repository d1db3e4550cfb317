"""Partitions in which devices see classes unlike each other: label skew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
    dealt,
    even_sizes,
    need_devices,
    proportional_sizes,
    shuffled,
)

__all__ = ["Continuous", "Dirichlet", "Distribution", "InnerDirichlet", "Pathological", "Shard"]

_LARGEST_ALPHA = 1e9
"""All shares are alike far below; what is drawn of an alpha that sums to infinity is no share."""
_ATTEMPTS = 100
"""Draws of a Dirichlet partition until every device has enough."""
_MOST_TRIED = 1000
"""Devices up to which it is tried out how many rows each could have, where they cannot have what they should."""


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
        if not 0 < self.alpha <= _LARGEST_ALPHA:
            raise InvalidSettingError(
                f"The partition dirichlet expects an alpha above 0 and up to {_LARGEST_ALPHA:g}, got {self.alpha:g}."
            )
        most, impossible = 0, self.least * count > rows.count
        for _ in range(_ATTEMPTS if count <= min(rows.count, _MOST_TRIED) or not impossible else 0):
            shares = random.dirichlet(np.full(count, self.alpha), len(classes))
            sizes = np.array([proportional_sizes(len(own), share) for own, share in zip(classes, shares)])
            fewest = int(sizes.sum(axis=0).min())
            if fewest >= self.least:
                return dealt(classes, sizes, random)
            most = max(most, fewest)
        # With the most that a draw gave everybody, the same draw is taken.
        hint = "Take fewer devices or a larger alpha" + (f", or dirichlet:{self.alpha:g},{most}." if most else ".")
        if impossible:
            raise InvalidSettingError(
                f"The partition dirichlet gives every device {self.least} rows at least, and {count} devices have "
                f"{rows.count} together.",
                hint=hint,
            )
        raise InvalidSettingError(
            f"Of {_ATTEMPTS} draws of dirichlet:{self.alpha:g}, none gave each of {count} devices {self.least} rows.",
            hint=hint,
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
        if not 0 < self.alpha <= _LARGEST_ALPHA:
            raise InvalidSettingError(
                f"The partition inner-dirichlet expects an alpha above 0 and up to {_LARGEST_ALPHA:g}, "
                f"got {self.alpha:g}."
            )
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
        return dealt(groups, sizes, random)


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


@PARTITIONERS.register("distribution")
@dataclass(frozen=True)
class Distribution(Partitioner):
    """Device k has the classes k, k + 1, … (counted round), and of each a share of its own.

    The scheme of Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (MNIST and its power law), in the
    form that flwr-datasets gives it: each device first gets `least` rows of each of its classes, and what is left of a
    class is divided in proportion to the shares, which are drawn from a log-normal distribution or given.

    Attributes:
        classes: of each device.
        sigma: of the log-normal distribution (its mu is 0), where no shares are given.
        least: rows of each of its classes that every device has.
        shares: in Python only, ``[classes of the data, devices that have a class]``: a row for each class, in their
            order, with a share for each device that has it, in theirs. None: they are drawn.
    """

    summary: ClassVar[str] = "device k with classes k, k + 1, …, in amounts of a power law (Li et al. 2020)"
    classes: int
    sigma: float = 2.0
    least: int = 5
    shares: Any = None

    def __post_init__(self) -> None:
        if self.shares is not None:  # plain numbers, so that a run folder's settings hold all of them
            shares = tuple(tuple(map(float, row)) for row in np.atleast_2d(np.asarray(self.shares, np.float64)))
            object.__setattr__(self, "shares", shares)

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count, groups = need_devices(devices, "distribution"), rows.classes("distribution")
        if not 1 <= self.classes <= len(groups):
            raise InvalidSettingError(
                f"The partition distribution expects 1 to {len(groups)} classes for each device, got {self.classes}."
            )
        if self.least < 0 or not 0 <= self.sigma < np.inf:
            raise InvalidSettingError(
                f"The partition distribution expects a sigma and a least number of at least 0, got {self.sigma:g} and "
                f"{self.least}."
            )
        sizes = np.zeros((len(groups), count), np.int64)
        numbers = np.arange(count)
        for kind, own in enumerate(groups):
            having = np.flatnonzero((kind - numbers) % len(groups) < self.classes)
            shares = self._shares(kind, len(groups), having.size, random)
            if not having.size:
                continue
            left = len(own) - self.least * having.size
            if left < 0:
                fewer = f"distribution:{self.classes},{self.sigma:g},{len(own) // having.size}"
                raise InvalidSettingError(
                    f"The partition distribution gives each device {self.least} rows of its classes at least, and "
                    f"class number {kind} has {len(own)} rows for {having.size} devices.",
                    hint=f"Take fewer devices, or {fewer}.",
                )
            sizes[kind, having] = self.least + np.array(proportional_sizes(left, shares), np.int64)
        return dealt(groups, sizes, random)

    def _shares(self, kind: int, kinds: int, having: int, random: np.random.Generator) -> NDArray[np.float64]:
        """The shares of one class, ``[devices that have it]``."""
        if self.shares is None:
            drawn: NDArray[np.float64] = np.exp(self.sigma * random.standard_normal(having))
            return drawn
        if len(self.shares) != kinds or len(self.shares[kind]) != having:
            raise InvalidSettingError(
                f"The partition distribution expects shares for {kinds} classes, of class number {kind} for {having} "
                f"devices, got {len(self.shares)} rows and {len(self.shares[min(kind, len(self.shares) - 1)])} shares."
            )
        shares = np.array(self.shares[kind])
        if not np.isfinite(shares).all() or shares.min() < 0 or not shares.any():
            raise InvalidSettingError(
                f"The partition distribution expects finite shares of at least 0, not all of them 0, got "
                f"{self.shares[kind]!r:.80} for class number {kind}."
            )
        return shares


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
