"""Recordings of ten people who did seven shoulder exercises with a smartwatch on the right arm, then on the left.

Burns et al. 2018, "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a
smartwatch". The package seglearn (BSD licence) ships the recordings; not a line of it is run.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.package_files import package_folder

__all__ = ["CHANNELS", "WINDOW", "Recording", "load", "load_recordings", "recordings_file"]

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
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


@dataclass(frozen=True)
class Recording:
    """One person doing one exercise with one shoulder.

    Attributes:
        person: 1 to 10.
        shoulder: ``left`` or ``right``.
        exercise: 0 to 6.
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


def load() -> DataSet:
    """Reads all windows of 100 × 6, ``x``, their exercises, ``y``, and whose each is: ``person-01`` to ``person-10``.

    Raises:
        DataError: seglearn is not installed, or has another file.
    """
    cut = [(each, each.windows()) for each in load_recordings(recordings_file())]
    return DataSet(
        {
            "x": np.concatenate([windows for _, windows in cut]),
            "y": np.concatenate([np.full(len(windows), each.exercise, np.int32) for each, windows in cut]),
        },
        np.concatenate([np.full(len(windows), f"person-{each.person:02d}") for each, windows in cut]),
    )


def recordings_file() -> Path:
    """Finds where the installed package seglearn keeps the recordings; the package itself is not imported.

    Raises:
        DataError: it is not installed.
    """
    folder = package_folder(
        "seglearn",
        "The smartwatch recordings are part of the package seglearn, which is not installed.",
        "Install it without its dependencies: pip install --no-deps seglearn==1.2.5",
    )
    return folder / "data" / "watch_dataset.npy"


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
