"""Activations, between two layers that learn."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.public import public
from keras_coverage.rows import covers


def activated(function: object) -> keras.Model:
    """The function between two layers that learn."""
    return regression((5,), layers.Activation(function), first=layers.Dense(6))


for _function in public("activations"):
    covers(_function, {"values and gradient": lambda function=_function: activated(function)})
