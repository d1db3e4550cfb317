"""Layers that a model calls with ``training=False``, or True, whatever it does itself.

Keras 2 does what such a call says. Keras 3 replaces it by what the model is called with (``operation_fn`` in its
``models/functional.py``), so that a thawed base would train its statistics, and a frozen one drop units.
"""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["FixedTraining", "depends_on_training"]


@keras.saving.register_keras_serializable("edgefl")
class FixedTraining(keras.layers.Wrapper):  # type: ignore[misc]
    """A layer that is always called in the same way.

    Args:
        layer: to call.
        fixed: whether it is called as in training.
    """

    def __init__(self, layer: Any, fixed: bool, **settings: Any) -> None:
        super().__init__(layer, **settings)
        self.fixed = fixed
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Calls the layer."""
        return self.layer(inputs, training=self.fixed)

    def compute_output_spec(self, inputs: Any) -> Any:
        """See Keras."""
        return self.layer.compute_output_spec(inputs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """See Keras."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """See Keras."""
        return {**super().get_config(), "fixed": self.fixed}


def depends_on_training(layer: Any) -> bool:
    """Tells whether a layer computes something else in training, as it is now: frozen statistics are always used."""
    return any(map(_differs, layer._flatten_layers()))


def _differs(layer: Any) -> bool:
    if layer._layers or "training" not in getattr(layer, "_call_context_args", ()):
        return False  # the layers in it decide
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any(rates) if rates else True
