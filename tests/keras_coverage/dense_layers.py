"""Dense layers and their like."""

from __future__ import annotations

from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

covers(
    layers.Dense,
    {
        "relu": lambda: regression((5,), layers.Dense(4, "relu"), first=layers.Dense(6)),
        "without bias": lambda: regression((5,), layers.Dense(4, "relu", use_bias=False), first=layers.Dense(6)),
        "on a sequence": lambda: regression((3, 5), layers.Dense(4, "tanh"), first=layers.Dense(6)),
    },
)
covers(
    layers.EinsumDense,
    {
        "heads": lambda: regression((3, 4), layers.EinsumDense("abc,cde->abde", (3, 2, 5), bias_axes="de")),
        "no bias": lambda: regression((3, 4), layers.EinsumDense("abc,cd->abd", (3, 5)), first=layers.Dense(4)),
    },
)
