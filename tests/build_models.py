"""Converts the small models that tests need, and records what Keras computes with them.

Runs as a process of its own (`build_models.py FOLDER NAME...`), for TensorFlow and tflite-runtime cannot share one. For
each name it leaves ``NAME.tflite`` and, but for those in `OPTIONS`, ``NAME.npz``; if the conversion fails,
``NAME.error`` instead.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.federated_terms import ALGORITHMS

BATCH = 8
ROWS = 35  # four batches and three rows
Built = tuple[Any, Any, Any]


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labels(classes: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, classes, ROWS).astype(np.int32)


def classifier(*stack: Any, optimizer: Any, loss: str = "sparse_categorical_crossentropy") -> Any:
    model = keras.Sequential(list(stack))
    model.compile(optimizer, loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model


def mlp(optimizer: Any = None) -> Built:
    stack = [keras.Input((20,)), layers.Dense(16, "relu"), layers.Dense(5, "softmax")]
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    return classifier(*stack, optimizer=optimizer), numbers(ROWS, 20), labels(5)


def wide() -> Built:
    """Large enough that what an interpreter keeps is mostly tensors."""
    stack = [keras.Input((256,)), layers.Dense(512, "relu"), layers.Dense(5, "softmax")]
    return classifier(*stack, optimizer=keras.optimizers.SGD(0.1)), numbers(ROWS, 256), labels(5)


def mlp_adam() -> Built:
    return mlp(keras.optimizers.Adam(0.01))


def cnn() -> Built:
    stack = [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    model = classifier(*stack, layers.Dense(5, "softmax"), optimizer=keras.optimizers.SGD(0.1))
    return model, numbers(ROWS, 8, 8, 1), labels(5)


def conv1d() -> Built:
    stack = [keras.Input((50, 6)), layers.Conv1D(8, 5, activation="relu"), layers.MaxPooling1D(2)]
    stack += [layers.GlobalAveragePooling1D(), layers.Dense(5, "softmax")]
    return classifier(*stack, optimizer=keras.optimizers.Adam(0.01)), numbers(ROWS, 50, 6), labels(5)


def dropout() -> Built:
    stack = [keras.Input((20,)), layers.Dense(16, "relu"), layers.Dropout(0.5), layers.Dense(5, "softmax")]
    return classifier(*stack, optimizer=keras.optimizers.SGD(0.1)), numbers(ROWS, 20), labels(5)


def batch_norm() -> Built:
    stack = [keras.Input((20,)), layers.Dense(16), layers.BatchNormalization(), layers.Dense(5, "softmax")]
    return classifier(*stack, optimizer=keras.optimizers.SGD(0.1)), numbers(ROWS, 20), labels(5)


def batch_norm_first() -> Built:
    stack = [keras.Input((20,)), layers.BatchNormalization(name="norm"), layers.Dense(5, "softmax")]
    return classifier(*stack, optimizer=keras.optimizers.SGD(0.1)), numbers(ROWS, 20), labels(5)


def frozen() -> Built:
    stack = [keras.Input((20,)), layers.Dense(16, "relu", trainable=False), layers.Dense(5, "softmax")]
    model = classifier(*stack, optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy")
    return model, numbers(ROWS, 20), np.eye(5, dtype=np.float32)[labels(5)]


def two_inputs() -> Built:
    """An input of numbers and one of words; a class and a size to predict."""
    measured, words = keras.Input((4,), name="measured"), keras.Input((3,), dtype="int32", name="words")
    embedded = layers.Flatten()(layers.Embedding(10, 4)(words))
    hidden = layers.Dense(8, "tanh")(layers.Concatenate()([layers.Dense(8, "tanh")(measured), embedded]))
    kind, size = layers.Dense(3, "softmax", name="kind")(hidden), layers.Dense(1, name="size")(hidden)
    model = keras.Model([measured, words], [kind, size])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"], metrics=[["accuracy"], ["mae"]])
    words_data = np.random.default_rng(3).integers(0, 10, (ROWS, 3)).astype(np.int32)
    return model, [numbers(ROWS, 4), words_data], [labels(3), numbers(ROWS, 1, seed=4)]


def small(*between: Any) -> Any:
    """The model of tests/federated_numpy.py, with further layers before its head."""
    stack = [keras.Input((20,)), layers.Dense(16, "tanh", name="body"), *between]
    model = keras.Sequential([*stack, layers.Dense(5, "softmax", name="head")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def noisy() -> Any:
    """Rows that are mixed, and random numbers."""
    return small(layers.BatchNormalization(name="norm"), layers.Dropout(0.5))


OPTIONS: dict[str, tuple[Callable[[], Any], Options]] = {
    "plain_sgd": (small, Options()),
    "federated": (small, Options(algorithms=ALGORITHMS)),
    "personal": (small, Options(local="head/*", algorithms="scaffold")),
    "noisy": (noisy, Options(algorithms="fedsgd")),
    "normalised": (noisy, Options(local="norm/*")),
}
"""Files for federated algorithms; there is no recording of Keras beside them."""

MODELS: dict[str, Callable[[], Built]] = {
    each.__name__: each
    for each in (mlp, wide, mlp_adam, cnn, conv1d, dropout, batch_norm, batch_norm_first, frozen, two_inputs)
}


def flat(prefix: str, values: Any) -> dict[str, Any]:
    """A list of arrays as named ones: ``weights_0``, ``weights_1``, …; an array keeps its name."""
    if isinstance(values, (list, tuple)):
        return {f"{prefix}_{index}": value for index, value in enumerate(values)}
    return {prefix: values}


def rows_of(data: Any, rows: slice) -> Any:
    return [each[rows] for each in data] if isinstance(data, list) else data[rows]


class Recorder:
    """Trains a Keras model from its initial weights, several times over, and writes down what comes out."""

    def __init__(self, model: Any, x: Any, y: Any) -> None:
        self.model, self.x, self.y = model, x, y
        model.run_eagerly = True  # a few steps each: tracing them would take longer
        model.optimizer.build(model.trainable_variables)
        self.variables = [*model.variables, *model.optimizer.variables]
        self.initial = [np.array(variable) for variable in self.variables]
        self.found: dict[str, Any] = {**flat("x", x), **flat("y", y)}

    def start(self) -> None:
        for variable, value in zip(self.variables, self.initial, strict=True):
            variable.assign(value)

    def trainable_and_statistics(self) -> list[Any]:
        frozen_layers = {id(v) for layer in self.model.layers if not layer.trainable for v in layer.variables}
        seeds = [v for v in self.model.variables if "seed_generator" in v.path]
        skipped = frozen_layers | {id(v) for v in seeds}
        return [np.array(v) for v in self.model.variables if id(v) not in skipped]

    def fit(self, name: str, rows: slice = slice(None), weight: Any = None, epochs: int = 3) -> None:
        self.start()
        x, y = rows_of(self.x, rows), rows_of(self.y, rows)
        history = self.model.fit(
            x, y, sample_weight=weight, epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0
        ).history
        self.found.update({f"{name}/history/{metric}": np.array(values) for metric, values in history.items()})
        self.found.update(flat(f"{name}/weights", self.trainable_and_statistics()))

    def evaluate(self, name: str, rows: slice, weight: Any = None) -> None:
        self.start()
        values = self.model.evaluate(
            rows_of(self.x, rows), rows_of(self.y, rows), sample_weight=weight, verbose=0, return_dict=True
        )
        self.found.update({f"{name}/{metric}": np.array(value) for metric, value in values.items()})

    def record(self) -> dict[str, Any]:
        self.start()
        self.found.update(flat("initial", self.trainable_and_statistics()))
        self.found["paths"] = np.array([v.path for v in self.model.variables])
        predicted = self.model.predict(rows_of(self.x, slice(13)), verbose=0)
        self.found.update(flat("predicted", predicted))
        self.evaluate("evaluated", slice(13))
        self.fit("fit")
        self.fit("three_rows", slice(3), epochs=1)
        self.fit("full_batches", slice(32))
        if not isinstance(self.y, list):
            weight = np.random.default_rng(9).uniform(0, 3, ROWS).astype(np.float32)
            weight[::5] = 0
            self.found["sample_weight"] = weight
            self.fit("weighted", weight=weight)
            self.evaluate("weighted_evaluated", slice(13), weight[:13])
        return self.found


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        try:
            keras.backend.clear_session()
            keras.utils.set_random_seed(7)
            if name in OPTIONS:
                make, options = OPTIONS[name]
                built = build(make(), batch_size=BATCH, options=options)
                (folder / f"{name}.tflite").write_bytes(built.data)
                continue
            model, x, y = MODELS[name]()
            built = build(model, batch_size=BATCH)
            np.savez(folder / f"{name}.npz", **Recorder(model, x, y).record())
            (folder / f"{name}.tflite").write_bytes(built.data)
        except Exception:
            (folder / f"{name}.error").write_text(traceback.format_exc()[-2000:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
