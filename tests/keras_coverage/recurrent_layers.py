"""Recurrent layers, their cells and wrappers; none of them asks for unrolling itself."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

SEQUENCE = (5, 3)
UNROLLED = "Unrolled over the known length"


def recurrent(*stack: Any, shape: tuple[int, ...] = SEQUENCE) -> keras.Model:
    """The layers behind one that needs its input gradient."""
    return regression(shape, *stack, first=layers.Dense(3, "tanh"))


def masked(*stack: Any) -> keras.Model:
    """Tokens of which some are padding before the layers."""
    return regression((5,), layers.Embedding(6, 4, mask_zero=True), *stack, dtype="int32")


def handing_over(kind: Any) -> keras.Model:
    """An encoder whose last states are the first ones of a decoder."""
    source, target = keras.Input((4, 3), name="source"), keras.Input((3, 3), name="target")
    _, *states = kind(4, return_state=True)(source)
    decoded = kind(4, return_sequences=True)(target, initial_state=states)
    model = keras.Model([source, target], layers.Dense(2)(decoded))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


class _Cell(layers.Layer):
    """A cell of one's own: a leaky sum."""

    def __init__(self, units: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.units = self.state_size = units

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.leak = self.add_weight(shape=(self.units,), initializer="ones", name="leak")

    def call(self, x: Any, states: Any) -> Any:
        output = keras.ops.tanh(keras.ops.matmul(x, self.kernel) + 0.5 * states[0] * self.leak)
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


for kind in (layers.LSTM, layers.GRU, layers.SimpleRNN):
    covers(
        kind,
        {
            "last output": lambda kind=kind: recurrent(kind(4)),
            "stacked": lambda kind=kind: recurrent(kind(4, return_sequences=True), kind(3)),
            "backwards": lambda kind=kind: recurrent(kind(4, go_backwards=True, return_sequences=True)),
            "masked": lambda kind=kind: masked(kind(4)),
            "masked sequence": lambda kind=kind: masked(kind(4, return_sequences=True), kind(2)),
            "dropout": lambda kind=kind: recurrent(kind(4, dropout=0.2, recurrent_dropout=0.3)),
            "states handed over": lambda kind=kind: handing_over(kind),
            "relu, without bias": lambda kind=kind: recurrent(kind(4, activation="relu", use_bias=False)),
            **({"reset before": lambda kind=kind: recurrent(kind(4, reset_after=False))} if kind is layers.GRU else {}),
        },
        note=UNROLLED,
    )
for cell in (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell):
    covers(cell, {"in RNN": lambda cell=cell: recurrent(layers.RNN(cell(4)))}, note=UNROLLED)
covers(
    layers.RNN,
    {
        "a cell of your own": lambda: recurrent(layers.RNN(_Cell(4), return_sequences=True)),
        "cells in a list": lambda: recurrent(layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])),
    },
    note=UNROLLED,
)
covers(
    layers.StackedRNNCells,
    {"two cells": lambda: recurrent(layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])))},
    note=UNROLLED,
)
covers(
    layers.Bidirectional,
    {
        "LSTM": lambda: recurrent(layers.Bidirectional(layers.LSTM(3, return_sequences=True))),
        "GRU, summed": lambda: recurrent(layers.Bidirectional(layers.GRU(3), merge_mode="sum")),
        "masked": lambda: masked(layers.Bidirectional(layers.LSTM(3))),
    },
    note=UNROLLED,
)
covers(
    layers.TimeDistributed,
    {
        "Dense": lambda: recurrent(layers.TimeDistributed(layers.Dense(2))),
        "Conv1D": lambda: recurrent(layers.TimeDistributed(layers.Conv1D(2, 2)), shape=(3, 4, 3)),
        "masked": lambda: masked(layers.TimeDistributed(layers.Dense(2)), layers.SimpleRNN(2)),
    },
)
covers(
    layers.Masking,
    {"before LSTM": lambda: regression(SEQUENCE, layers.Masking(), layers.LSTM(3))},
    note=UNROLLED,
)
for dimensions, shape in ((1, (3, 5, 2)), (2, (3, 4, 5, 2)), (3, (2, 3, 4, 3, 2))):
    layer = getattr(layers, f"ConvLSTM{dimensions}D")
    covers(
        layer,
        {
            "last output": lambda layer=layer, shape=shape: regression(shape, layer(2, 2)),
            "sequence, same": lambda layer=layer, shape=shape: regression(
                shape, layer(2, 2, padding="same", return_sequences=True, dropout=0.2)
            ),
        },
        note=UNROLLED,
    )
