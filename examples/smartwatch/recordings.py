"""The smartwatch recordings, and who holds which of them.

Ten people did seven shoulder exercises with the watch on the right arm, then on the left (Burns et al. 2018, "Shoulder
physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch"). The package seglearn
(BSD licence) ships the recordings.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError

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

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
CHANNELS = 6
RATE = 50
"""Samples per second."""
WINDOW = 2 * RATE
"""Samples of one example: two seconds, about one repetition of an exercise."""
STRIDE = WINDOW // 2
"""Samples from one window's start to the next one's."""

SENSOR_RANGE = np.array([8, 8, 8] + [np.deg2rad(2000)] * 3, np.float32)
"""The common measuring range of such sensors: 8 g and 2000 degrees a second. Knowing it takes a data sheet, no data."""
GAIN = 8
"""Everyday motion uses a small part of the range; this brings it to numbers of about 1."""

UNSEEN_PEOPLE = (9, 10)
"""They take no part at all."""

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Windows of shape ``[rows, WINDOW, CHANNELS]`` and their exercises, shape ``[rows]``."""


@dataclass(frozen=True)
class Recording:
    """One person doing one exercise with one shoulder.

    Attributes:
        person: 1 to 10.
        shoulder: ``left`` or ``right``.
        exercise: index into `EXERCISES`.
        samples: acceleration in g and angular velocity in rad/s, shape ``[time, CHANNELS]``.
    """

    person: int
    shoulder: str
    exercise: int
    samples: NDArray[np.float64]

    def windows(self) -> NDArray[np.float32]:
        """Cuts the recording into overlapping windows and scales them by the sensors' ranges."""
        starts = range(0, len(self.samples) - WINDOW + 1, STRIDE)
        cut = np.stack([self.samples[start : start + WINDOW] for start in starts])
        scaled: NDArray[np.float32] = (cut * (GAIN / SENSOR_RANGE)).astype(np.float32)
        return scaled


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


def recordings_file() -> Path:
    """Where the installed package seglearn keeps the recordings; the package itself is not imported.

    Raises:
        DataError: it is not installed.
    """
    package = importlib.util.find_spec("seglearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "The smartwatch recordings are part of the package seglearn, which is not installed.",
            hint="Install it without its dependencies: pip install --no-deps seglearn==1.2.5",
        )
    return Path(package.submodule_search_locations[0]) / "data" / "watch_dataset.npy"


def load_recordings(path: Path) -> list[Recording]:
    """Reads the 140 recordings.

    Raises:
        DataError: the file is missing or is not the one that is expected.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read the recordings {path}: {error.strerror or error}.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DataError(
            f"{path} is not the expected file: its SHA-256 is {digest}, expected {SHA256}.",
            hint="Install seglearn 1.2.5 again.",
        )
    # The file is a pickle, and unpickling runs what it says. These very bytes are known: hence the hash above.
    document: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return [
        Recording(int(person), "right" if side == 1 else "left", int(exercise), np.asarray(samples))
        for person, side, exercise, samples in zip(
            document["subject"], document["side"], document["y"], document["X"], strict=True
        )
    ]


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
