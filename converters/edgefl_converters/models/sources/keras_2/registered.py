"""Names what Keras finds in files of models that came from Keras 2 and does not have itself."""

from __future__ import annotations

from typing import Any

import keras

from edgefl_converters.models.sources.keras_2.activations import hard_sigmoid
from edgefl_converters.models.sources.keras_2.fixed_training import FixedTraining
from edgefl_converters.models.sources.keras_2.tensorflow_operation import TensorFlowOperation

__all__ = ["REGISTERED"]

REGISTERED: dict[str, Any] = {
    keras.saving.get_registered_name(each): each for each in (hard_sigmoid, FixedTraining, TensorFlowOperation)
}
"""Classes and functions by the names under which they are registered with Keras."""
