"""Attackers: what they send instead of what they have learnt, or learn instead of what their rows say.

They know nothing of the other devices and do not confer; stronger attacks, which do, need more than a device has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.wire.messages import Outcome, Section, Task
from edgefl_server.aggregation.hyperparameters import check_ranges, setting
from edgefl_simulation.draws import stream

__all__ = [
    "ATTACKS",
    "Attack",
    "FreeRider",
    "LabelFlip",
    "Noise",
    "Scaling",
    "Seen",
    "SignFlip",
    "poisoned",
    "relabelled",
]

Vector = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
_ALTERED = ("delta", "gradient")
"""The sections that become new weights; what else an outcome holds stays as it is."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Everything that an attacker may go by.

    Attributes:
        task: its own.
        weights: float32, those that it received, of the section that it alters.
        initial: float32 likewise: those in the model file.
    """

    task: Task
    weights: Vector
    initial: Vector


class Attack(Protocol):
    """An attack; a dataclass whose fields are what it can be set to."""

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """Says what is sent instead of an honest update, float32 ``[elements]``."""
        ...

    def labels(self, labels: NDArray[Any], classes: int, seed: int) -> NDArray[Any]:
        """Says what is trained towards instead of honest labels, integers from 0 up to `classes`, ``[rows]``."""
        ...


@dataclass(frozen=True)
class _Honest:
    """The part of an attack that it leaves alone."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """See `Attack`."""
        return honest

    def labels(self, labels: NDArray[Any], classes: int, seed: int) -> NDArray[Any]:
        """See `Attack`."""
        return labels


@dataclass(frozen=True)
class SignFlip(_Honest):
    """Sends the opposite of its update, ``−γΔ`` (Li et al. 2019, RSA, arXiv 1811.03761).

    Attributes:
        factor: γ.
    """

    kind: ClassVar[str] = "sign-flip"
    factor: float = setting(1.0, help="γ.", lowest=0, highest=1e9)

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """See `Attack`."""
        return np.float32(-self.factor) * honest


@dataclass(frozen=True)
class Scaling(_Honest):
    """Sends more of its update, ``γΔ``, to outweigh the others (Bagdasaryan et al. 2020, arXiv 1807.00459).

    Attributes:
        factor: γ.
    """

    kind: ClassVar[str] = "scaling"
    factor: float = setting(10.0, help="γ.", lowest=0, highest=1e9)

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """See `Attack`."""
        return np.float32(self.factor) * honest


@dataclass(frozen=True)
class Noise(_Honest):
    """Adds normal noise with γ times the root mean square of its update (after Blanchard et al. 2017).

    Attributes:
        factor: γ.
    """

    kind: ClassVar[str] = "noise"
    factor: float = setting(10.0, help="γ.", lowest=0, highest=1e9)

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """See `Attack`."""
        size = float(np.sqrt(np.mean(np.square(honest, dtype=np.float64)))) if honest.size else 0.0
        drawn = _normal(honest.size, seen.task.seed, "noise", seen.task.task_id)
        return (honest + self.factor * size * drawn).astype(np.float32)


@dataclass(frozen=True)
class FreeRider(_Honest):
    """Sends what looks like an update and has learnt nothing (Lin et al. 2019, arXiv 1911.12560).

    Attributes:
        replay: sends the mean change of the weights over all versions so far, which anybody can compute who keeps the
            model file; otherwise nothing but zeros.
    """

    kind: ClassVar[str] = "free-rider"
    replay: bool = setting(False, help="The mean change so far, instead of zeros.")

    def update(self, honest: Vector, seen: Seen) -> Vector:
        """See `Attack`."""
        if not self.replay or not seen.task.version:
            return np.zeros_like(honest)
        change = seen.weights - seen.initial
        return change / np.float32(seen.task.version)


@dataclass(frozen=True)
class LabelFlip(_Honest):
    """Trains towards other labels: y becomes classes − 1 − y (Fang et al. 2020, arXiv 1911.11815).

    Attributes:
        drawn: every label is drawn anew instead, from the device's seed.
    """

    kind: ClassVar[str] = "label-flip"
    drawn: bool = setting(False, help="Labels are drawn, instead of mirrored.")

    def labels(self, labels: NDArray[Any], classes: int, seed: int) -> NDArray[Any]:
        """See `Attack`."""
        if not self.drawn:
            return (classes - 1 - labels).astype(labels.dtype)
        random = stream(seed, "labels").random_raw(labels.size).reshape(labels.shape)
        return (random % np.uint64(classes)).astype(labels.dtype)


ATTACKS: Mapping[str, type[Any]] = {each.kind: each for each in (SignFlip, Scaling, Noise, FreeRider, LabelFlip)}
"""All attacks by name."""


def poisoned(attack: Attack, task: Task, outcome: Outcome, received: Vector, initial: Vector) -> Outcome:
    """Makes what an attacker sends of an honest outcome, in the same codec.

    Args:
        attack: what it does.
        task: its own.
        outcome: as an honest device would send it; one without sections stays as it is.
        received: float32 ``[layout.size]``: the weights that it started from.
        initial: float32 ``[layout.size]``: those of the model file.

    Raises:
        CodecError: the codec fails.
    """

    def altered(section: Section) -> Section:
        if section.name not in _ALTERED:
            return section
        size = section.length
        sent = attack.update(section.vector(), Seen(task, received[:size], initial[:size]))
        return task.section(section.name, sent)

    return replace(outcome, sections=tuple(map(altered, outcome.sections)))


def relabelled(attack: Attack, task: Task, arrays: Mapping[str, NDArray[Any]], manifest: ModelManifest) -> Arrays:
    """Makes what an attacker trains on of a device's rows; what has no classes stays as it is.

    Args:
        attack: what it does.
        task: its own.
        arrays: the rows under the model's own names, which stay as they are.
        manifest: says how many classes a target has.
    """
    found = dict(arrays)
    for target in manifest.targets:
        labels = found.get(target.name)
        if labels is None:
            continue
        if target.classes is not None:
            false = attack.labels(labels, target.classes, task.seed)
            found[target.name] = false if target.ignored is None else np.where(labels == target.ignored, labels, false)
        elif labels.ndim == 2 and labels.shape[1] > 1 and _is_one_hot(labels):
            chosen = attack.labels(labels.argmax(axis=1), labels.shape[1], task.seed)
            found[target.name] = np.eye(labels.shape[1], dtype=labels.dtype)[chosen]
        elif np.isin(labels, (0, 1)).all():
            found[target.name] = attack.labels(labels.astype(np.int64), 2, task.seed).astype(labels.dtype)
    return found


def _is_one_hot(labels: NDArray[Any]) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _normal(count: int, seed: int, *about: object) -> NDArray[np.float64]:
    """Normally distributed numbers ``[count]`` by the method of Box and Muller, from raw output only."""
    raw = stream(seed, *about).random_raw(2 * count)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    length, angle = uniform[:count], uniform[count:]
    drawn: NDArray[np.float64] = np.sqrt(-2.0 * np.log(length)) * np.cos(2.0 * np.pi * angle)
    return drawn
