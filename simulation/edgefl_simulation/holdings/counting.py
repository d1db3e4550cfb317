"""Counts who holds what, and measures how unlike each other devices are: in their classes, and in their rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Holdings", "count", "gini", "jensen_shannon", "total_variation"]

_BINS = 10
"""Parts into which a target is cut that is a quantity."""
_MOST_CLASSES = 200
"""Different values from which on whole numbers are taken for quantities."""


@dataclass(frozen=True, eq=False)
class Holdings:
    """The rows of each device by class.

    Attributes:
        names: the devices' ids.
        classes: what the classes are called; empty where rows have none.
        counts: int64 ``[devices, classes]``; with one column where rows have no classes.
        binned: the target is a quantity: a class is a tenth of all rows, from the smallest values to the largest.
    """

    names: Sequence[str]
    classes: Sequence[str]
    counts: NDArray[np.int64]
    binned: bool = False

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each device, ``[devices]``."""
        sizes: NDArray[np.int64] = self.counts.sum(axis=1)
        return sizes

    @property
    def shares(self) -> NDArray[np.float64]:
        """The distribution of each device's rows over the classes, ``[devices, classes]``."""
        return self.counts / self.sizes[:, np.newaxis]

    @property
    def whole(self) -> NDArray[np.float64]:
        """The distribution of all devices' rows over the classes, ``[classes]``."""
        found: NDArray[np.float64] = self.counts.sum(axis=0) / self.counts.sum()
        return found

    def distances(self) -> NDArray[np.float64]:
        """The total variation distance of each device's classes to those of all, ``[devices]``."""
        return total_variation(self.shares, self.whole)

    def figures(self) -> dict[str, Any]:
        """The heterogeneity of the partition.

        Returns:
            ``devices``, ``rows``, ``rows_smallest``, ``rows_median``, ``rows_largest``; ``size_variation`` (the
            coefficient of variation, standard deviation over mean) and ``size_gini`` (see `gini`). Where rows have
            classes: ``classes``; ``classes_per_device`` (mean and smallest number of classes that a device has any
            rows of); ``effective_classes`` (mean of the exponential of the entropy of a device's classes: Hill 1973,
            order 1); ``total_variation`` and ``jensen_shannon`` (mean and largest distance of a device's classes to
            those of all devices, see the functions).
        """
        sizes = self.sizes.astype(np.float64)
        found: dict[str, Any] = {
            "devices": len(self.names),
            "rows": int(sizes.sum()),
            "rows_smallest": int(sizes.min()),
            "rows_median": float(np.median(sizes)),
            "rows_largest": int(sizes.max()),
            "size_variation": float(sizes.std() / sizes.mean()),
            "size_gini": gini(sizes),
        }
        if not self.classes:
            return found
        shares, kinds = self.shares, (self.counts > 0).sum(axis=1)
        distances, divergences = self.distances(), jensen_shannon(shares, self.whole)
        return {
            **found,
            "classes": len(self.classes),
            "classes_per_device": {"mean": float(kinds.mean()), "smallest": int(kinds.min())},
            "effective_classes": float(np.exp(_entropy(shares)).mean()),
            "total_variation": {"mean": float(distances.mean()), "largest": float(distances.max())},
            "jensen_shannon": {"mean": float(divergences.mean()), "largest": float(divergences.max())},
        }


def count(names: Sequence[str], parts: Sequence[NDArray[np.intp]], labels: NDArray[Any] | None) -> Holdings:
    """Counts the rows of each class on each device.

    Args:
        names: the devices' ids.
        parts: their rows.
        labels: the class of each row of the data, ``[rows]``, or a quantity; None: rows have none.
    """
    sizes = np.array([len(part) for part in parts], np.int64)
    if labels is None:
        return Holdings(names, (), sizes[:, np.newaxis])
    chosen = labels[np.concatenate(parts)]
    values, places = np.unique(chosen, return_inverse=True)
    binned = len(values) > _MOST_CLASSES or (
        len(values) > _BINS and values.dtype.kind == "f" and bool((values != np.rint(values)).any())
    )
    if binned:
        edges = np.unique(np.quantile(chosen, np.linspace(0, 1, _BINS + 1)))
        places = np.searchsorted(edges[1:-1], chosen, side="right")
        classes = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    else:
        classes = [f"{value:g}" if values.dtype.kind == "f" else str(value) for value in values.tolist()]
    owner = np.repeat(np.arange(len(parts)), sizes)
    counts = np.bincount(owner * len(classes) + places, minlength=len(parts) * len(classes))
    return Holdings(names, classes, counts.reshape(len(parts), len(classes)).astype(np.int64), binned)


def total_variation(shares: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The total variation distance of distributions to another: half the sum of the absolute differences.

    Levin and Peres, "Markov Chains and Mixing Times", proposition 4.2. It is the share of rows that would have to be of
    another class. Zhao et al. 2018, "Federated Learning with Non-IID Data", section 3.2, take twice that.

    Args:
        shares: ``[devices, classes]``, each row adds up to 1.
        whole: ``[classes]``.

    Returns:
        ``[devices]``, from 0 to 1.
    """
    distances: NDArray[np.float64] = np.abs(shares - whole).sum(axis=1) / 2
    return distances


def jensen_shannon(shares: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Jensen–Shannon distance of distributions to another: the root of the divergence, in bits.

    Lin 1991, "Divergence Measures Based on the Shannon Entropy"; that the root is a distance: Endres and Schindelin
    2003, "A New Metric for Probability Distributions".

    Args:
        shares: ``[devices, classes]``, each row adds up to 1.
        whole: ``[classes]``.

    Returns:
        ``[devices]``, from 0 to 1.
    """
    divergence = _entropy((shares + whole) / 2) - (_entropy(shares) + _entropy(whole[np.newaxis])) / 2
    distances: NDArray[np.float64] = np.sqrt(np.maximum(divergence, 0) / np.log(2))
    return distances


def gini(sizes: NDArray[np.float64]) -> float:
    """The Gini coefficient: half the mean difference of two sizes, over the mean (Gini 1912).

    Args:
        sizes: ``[devices]``, not all of them 0.

    Returns:
        0 where all are equal; up to 1 − 1/devices, where one has all.
    """
    ordered = np.sort(sizes)
    ranks = np.arange(1, len(ordered) + 1)
    return float(((2 * ranks - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """In nats, ``[rows]``."""
    safe = np.where(shares > 0, shares, 1.0)
    entropy: NDArray[np.float64] = -(shares * np.log(safe)).sum(axis=1)
    return entropy
