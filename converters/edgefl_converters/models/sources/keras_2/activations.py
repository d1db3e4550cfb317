"""Functions that kept their name from Keras 2 to Keras 3 and compute something else."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["hard_sigmoid"]


@keras.saving.register_keras_serializable("edgefl", name="hard_sigmoid_of_keras_2")  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """x/5 + 1/2 between 0 and 1, the gates of recurrent layers before TensorFlow 2; that of Keras 3 is x/6 + 1/2."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
