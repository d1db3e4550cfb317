"""`class_weight` of `fit`: what an example of each class counts for, as a weight of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest

__all__ = ["check_class_weight", "row_weights"]


def check_class_weight(manifest: ModelManifest, class_weight: Any) -> dict[int, float] | None:
    """Returns the weight of each class, or None where none is given.

    Raises:
        InvalidSettingError: it is not a dict of numbers of at least 0 by class, or the model has several outputs.
    """
    if class_weight is None:
        return None
    if len(manifest.targets) > 1:
        raise InvalidSettingError(
            f"class_weight is for one output, as in Keras; this model is trained towards {len(manifest.targets)}.",
            hint="Give each row a weight with `sample_weight`.",
        )
    try:
        weights = {int(label): float(weight) for label, weight in class_weight.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidSettingError(
            f"class_weight expects a dict from class numbers to weights, got {class_weight!r:.80}.",
            hint="For example {0: 1.0, 1: 5.0}.",
        ) from error
    wrong = {label: weight for label, weight in weights.items() if not 0 <= weight < np.inf}
    if wrong:
        raise InvalidSettingError(f"class_weight must hold finite numbers of at least 0, got {wrong}.")
    return weights


def row_weights(y: Any, weights: Mapping[int, float], sample_weight: Any = None) -> NDArray[np.float32]:
    """The weight of each row, as Keras derives it: classes without a weight count once.

    Args:
        y: class numbers ``[rows]`` or ``[rows, 1]``, or rows of one number a class, of which the largest is the class.
        weights: of the classes.
        sample_weight: what the caller gave besides.

    Raises:
        InvalidSettingError: there are weights of rows too.
        DataError: there are no targets, or no numbers.
    """
    if sample_weight is not None:
        raise InvalidSettingError(
            "class_weight and sample_weight cannot both be given, as in Keras.",
            hint="Multiply each row's sample_weight by the weight of its class.",
        )
    if isinstance(y, Mapping) and len(y) == 1:
        y = next(iter(y.values()))
    if isinstance(y, (list, tuple)) and len(y) == 1 and np.ndim(y[0]) > 0:
        y = y[0]
    labels = np.asarray(y)
    if labels.ndim == 0 or labels.dtype.kind not in "biuf":
        raise DataError("class_weight needs targets that are numbers of classes.", hint="Give y.")
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(-1)
    if labels.ndim > 1:
        raise DataError(
            f"class_weight needs one class for each row, got targets of shape {np.shape(y)}.",
            hint="Give each row a weight with `sample_weight`.",
        )
    labels = np.rint(labels).astype(np.int64)
    found = np.ones(len(labels), np.float32)
    for label, weight in weights.items():
        found[labels == label] = weight
    return found
