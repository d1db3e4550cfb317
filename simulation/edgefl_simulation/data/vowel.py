"""Eleven vowels spoken by fifteen people, 990 examples of nine numbers (Robinson 1989; Deterding 1989).

Robinson 1989, "Dynamic Error Propagation Networks"; the recordings are Deterding's. Debian's package r-cran-mlbench
(GPL-2) brings the table as `Vowel.rda`, which the package rdata reads; no R is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import DataError
from edgefl_simulation.data.base import DataSet

__all__ = ["DEBIAN_FILE", "load"]

DEBIAN_FILE = Path("/usr/lib/R/site-library/mlbench/data/Vowel.rda")
"""Debian's package r-cran-mlbench puts the table there."""
VOWELS = ("hid", "hId", "hEd", "hAd", "hYd", "had", "hOd", "hod", "hUd", "hud", "hed")
"""The words in which the vowels were spoken; their places here are the classes."""
_ROWS, _SPEAKERS, _FEATURES = 990, 15, 9
_HINT = "Install Debian's package r-cran-mlbench and the package that reads it: pip install rdata"


def load(file: Path = DEBIAN_FILE) -> DataSet:
    """Reads the table: ``x`` float32 ``[990, 9]`` about 0, the vowel, ``y``, and the speaker: speaker-00 to -14.

    Raises:
        DataError: the file or the package rdata is not installed, or the file is another one.
    """
    try:
        import rdata
    except ModuleNotFoundError as error:
        raise DataError("The vowels are read by the package rdata, which is not installed.", hint=_HINT) from error
    try:
        # It says nothing of its encoding: it is ASCII.
        table: Any = rdata.read_rda(file, default_encoding="ascii")["Vowel"]
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file} with the vowels.", hint=_HINT) from error
    except Exception as error:  # whatever its parser finds in a damaged file
        raise DataError(f"Cannot read the vowels {file}: {error}.", hint=_HINT) from error
    try:
        features = np.stack([np.asarray(table[f"V{number}"], np.float32) for number in range(2, _FEATURES + 2)], axis=1)
        speakers = np.array([f"speaker-{int(each):02d}" for each in table["V1"]])
        vowels = np.array([VOWELS.index(str(each)) for each in table["Class"]], np.int32)
    except (KeyError, ValueError) as error:
        raise DataError(f"{file} is not the table of vowels: {error}.", hint=_HINT) from error
    if features.shape != (_ROWS, _FEATURES) or len(set(speakers)) != _SPEAKERS:
        raise DataError(f"Expected {_ROWS} rows of {_SPEAKERS} speakers in {file}, got {len(features)}.", hint=_HINT)
    return DataSet({"x": features, "y": vowels}, speakers)
