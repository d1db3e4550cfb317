"""The models in Keras; as a program it leaves what the contenders of this environment read.

    python -m local_steps.keras_models MODEL BATCH FOLDER

writes FOLDER/x.npy, y.npy, weights.npz (Keras's own order), memory.json and model.tflite, which is edgefl's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from local_steps.cases import CASES, Case, save_batch

__all__ = ["build", "load"]


def two_nn(case: Case) -> list[Any]:
    """McMahan et al. 2017, section 3."""
    return [layers.Dense(200, "relu"), layers.Dense(200, "relu"), layers.Dense(case.classes, "softmax")]


def fedavg_cnn(case: Case) -> list[Any]:
    """McMahan et al. 2017, section 3."""
    stack: list[Any] = []
    for filters in (32, 64):
        stack += [layers.Conv2D(filters, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
    return [*stack, layers.Flatten(), layers.Dense(512, "relu"), layers.Dense(case.classes, "softmax")]


def smartwatch_1d_cnn(case: Case) -> list[Any]:
    """Like the demo's."""
    stack = [layers.Conv1D(32, 5, activation="relu"), layers.MaxPooling1D(2), layers.Conv1D(64, 5, activation="relu")]
    return [*stack, layers.GlobalAveragePooling1D(), layers.Dense(case.classes, "softmax")]


def lstm(case: Case, unroll: bool) -> list[Any]:
    return [layers.LSTM(64, unroll=unroll), layers.Dense(case.classes, "softmax")]


def transformer(case: Case) -> keras.Model:
    """Two blocks of Vaswani et al. 2017, normalised first; the causal mask alone tells the order."""
    words = keras.Input(case.shape, dtype="int32")
    x = layers.Embedding(case.tokens, 64)(words)
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16)(normal, normal, use_causal_mask=True)
        x = x + layers.Dense(64)(layers.Dense(128, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(words, layers.Dense(case.classes, "softmax")(layers.LayerNormalization()(x)))


def build(name: str, *, unroll: bool = False) -> keras.Model:
    """One of the models, compiled with plain SGD.

    Args:
        name: key of `CASES`.
        unroll: writes the steps of recurrent layers out.
    """
    case = CASES[name]
    if name.startswith("mobilenet_v2"):
        model = keras.applications.MobileNetV2(input_shape=case.shape, alpha=0.35, weights=None, classes=case.classes)
    elif name == "transformer":
        model = transformer(case)
    else:
        stacks = {"2nn": two_nn, "fedavg_cnn": fedavg_cnn, "smartwatch_1d_cnn": smartwatch_1d_cnn}
        stack = lstm(case, unroll) if name == "lstm" else stacks[name](case)
        model = keras.Sequential([keras.Input(case.shape), *stack])
    model.compile(keras.optimizers.SGD(case.learning_rate), "sparse_categorical_crossentropy")
    return model


def load(name: str, folder: Path, *, unroll: bool = False) -> keras.Model:
    """The model with the weights that all contenders begin with."""
    model = build(name, unroll=unroll)
    with np.load(folder / "weights.npz") as arrays:
        model.set_weights([arrays[key] for key in arrays.files])
    return model


def fit_averages(model: keras.Model, case: Case) -> None:
    """Gives moving averages that belong to the random weights: without, the features of a frozen base vanish."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(np.random.default_rng(1).normal(size=(32, *case.shape)).astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def main() -> None:
    """Writes the files of one model and batch size."""
    name, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    import edgefl

    case = CASES[name]
    save_batch(case, size, folder)
    keras.utils.set_random_seed(1)
    model = build(name)
    if name.startswith("mobilenet_v2"):
        fit_averages(model, case)
    np.savez(folder / "weights.npz", *model.get_weights())
    (folder / "memory.json").write_text(json.dumps({"weights_mb": 4 * model.count_params() / 2**20}))
    tuning = edgefl.FineTuning(last_layers=1) if case.head_only else edgefl.FineTuning()
    # Not verified here: losses of all contenders are compared in the run.
    edgefl.convert(model, folder / "model.tflite", batch_size=size, fine_tuning=tuning, verify=False)


if __name__ == "__main__":
    main()
