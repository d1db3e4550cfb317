"""The smartwatch recordings, and who holds which of them.

Ten people did seven shoulder exercises with the watch on the right arm, then on the left (Burns et al. 2018, "Shoulder
physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch"). The package seglearn
(BSD licence) ships the recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_simulation.data.smartwatch import CHANNELS, WINDOW, Recording, load_recordings, recordings_file

__all__ = [
    "CHANNELS",
    "EXERCISES",
    "WINDOW",
    "Examples",
    "Person",
    "Recording",
    "Split",
    "load_recordings",
    "recordings_file",
    "split",
]

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
UNSEEN_PEOPLE = (9, 10)
"""They take no part at all."""

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Windows of shape ``[rows, WINDOW, CHANNELS]`` and their exercises, shape ``[rows]``."""


@dataclass(frozen=True)
class Person:
    """Someone who takes part.

    Attributes:
        number: 1 to 8.
        own_shoulder: the one whose recordings lie on this person's device.
        train: what the device holds.
        test: the person's other shoulder, which no device holds.
    """

    number: int
    own_shoulder: str
    train: Examples
    test: Examples


@dataclass(frozen=True)
class Split:
    """All examples by whose they are.

    Attributes:
        people: those who take part.
        unseen: both shoulders of those who do not, one entry each.
    """

    people: tuple[Person, ...]
    unseen: tuple[Examples, ...]


def split(recordings: Sequence[Recording]) -> Split:
    """Gives each device one shoulder of one person, and keeps that person's other shoulder for the test.

    Of the people who take part, one after the other holds the right shoulder or the left one: together the devices
    have seen both, no single one has.
    """
    taking_part = sorted({recording.person for recording in recordings} - set(UNSEEN_PEOPLE))
    people = []
    for index, number in enumerate(taking_part):
        own, other = ("right", "left") if index % 2 == 0 else ("left", "right")
        people.append(Person(number, own, _examples(recordings, number, own), _examples(recordings, number, other)))
    unseen = [
        _join(_examples(recordings, number, shoulder) for shoulder in ("right", "left")) for number in UNSEEN_PEOPLE
    ]
    return Split(tuple(people), tuple(unseen))


def pooled(people: Sequence[Person]) -> Examples:
    """All devices' examples in one place: what federated learning does without. For the ceiling only."""
    return _join(person.train for person in people)


def _examples(recordings: Sequence[Recording], person: int, shoulder: str) -> Examples:
    own = [each for each in recordings if (each.person, each.shoulder) == (person, shoulder)]
    return _join(
        (windows, np.full(len(windows), each.exercise, np.int32)) for each in own for windows in [each.windows()]
    )


def _join(parts: Iterator[Examples] | Sequence[Examples]) -> Examples:
    windows, exercises = zip(*parts, strict=True)
    return np.concatenate(windows), np.concatenate(exercises)
