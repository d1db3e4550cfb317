"""Checks what a caller passes to `TrainableModel`, one argument each."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from edgefl.algorithms import conversion_hint
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest

__all__ = [
    "check_batch_size",
    "check_count",
    "check_first_epoch",
    "check_frequency",
    "check_learning_rate",
    "check_mu",
    "check_seconds",
    "check_split",
]


def check_count(name: str, value: Any) -> int:
    """Returns a whole number of at least 1.

    Raises:
        InvalidSettingError: it is something else.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidSettingError(f"{name} must be a whole number of at least 1, got {value!r:.80}.")
    return int(value)


def check_learning_rate(manifest: ModelManifest, value: float | None) -> float:
    """Returns the learning rate to use: the caller's, else the compiled one.

    Raises:
        InvalidSettingError: it is negative or not finite.
    """
    if value is None:
        return manifest.learning_rate
    if isinstance(value, (bool, str)) or not 0 <= value < math.inf:  # also whole numbers that no float holds
        raise InvalidSettingError(
            f"The learning rate must be a finite number of at least 0, got {value!r}.",
            hint=f"Leave it out for the compiled one, {manifest.learning_rate:g}.",
        )
    return float(value)


def check_mu(manifest: ModelManifest, value: float | None, has_reference: bool) -> float:
    """Returns the proximal term's factor: the caller's, else 0.

    Raises:
        InvalidSettingError: it is negative or not finite, or above 0 and the file has no such term or no reference was
            set.
    """
    if value is None:
        return 0.0
    if isinstance(value, (bool, str)) or not 0 <= value < math.inf:  # also whole numbers that no float holds
        raise InvalidSettingError(f"mu must be a finite number of at least 0, got {value!r}.")
    if value > 0 and not manifest.has_proximal_term:
        raise InvalidSettingError(
            f"The model file has no proximal term, got mu {value:g}.", hint=conversion_hint("fedprox")
        )
    if value > 0 and not has_reference:
        raise InvalidSettingError(
            f"There is no reference yet to which mu {value:g} could pull.",
            hint="Call set_reference() once the weights are those to stay near.",
        )
    return float(value)


def check_batch_size(manifest: ModelManifest, value: int | None) -> int:
    """Returns the real rows of a full batch: the caller's number, else the file's largest.

    Raises:
        InvalidSettingError: it is more than the file's, or less where rows are mixed.
    """
    if value is None:
        return manifest.batch_size
    size = check_count("batch_size", value)
    sizes = (*manifest.further_batch_sizes, manifest.batch_size)
    if size > manifest.batch_size or (size not in sizes and manifest.mixes_rows):
        limit = f"exactly {' or '.join(map(str, sizes))}" if manifest.mixes_rows else f"at most {manifest.batch_size}"
        raise InvalidSettingError(
            f"batch_size must be {limit} with this model file, got {size}.",
            hint=f"Leave it out, or convert the model with `batch_size={size}`.",
        )
    return size


def check_first_epoch(value: Any) -> int:
    """Returns the number of the first epoch.

    Raises:
        InvalidSettingError: it is not a whole number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise InvalidSettingError(f"initial_epoch must be a whole number of at least 0, got {value!r}.")
    return int(value)


def check_seconds(value: Any) -> float | None:
    """Returns a number of seconds above 0, or None for no limit.

    Raises:
        InvalidSettingError: it is something else.
    """
    if value is not None and not value > 0:
        raise InvalidSettingError(f"max_seconds must be a number above 0, got {value!r}.")
    return None if value is None else float(value)


def check_split(value: Any) -> float:
    """Returns which share of the rows is put aside, 0 for none.

    Raises:
        InvalidSettingError: it is not a number from 0 to below 1.
    """
    if isinstance(value, (bool, str)) or not 0 <= (value or 0) < 1:
        raise InvalidSettingError(f"validation_split must be a number from 0 to below 1, got {value!r}.")
    return float(value or 0)


def check_frequency(value: Any) -> int | Collection[int]:
    """Returns after how many epochs is validated each time, or after which, counted from 1.

    Raises:
        InvalidSettingError: it is neither.
    """
    if isinstance(value, (list, tuple, set, range)):
        return {check_count("Each epoch of validation_freq", each) for each in value}
    return check_count("validation_freq", value)
