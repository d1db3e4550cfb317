"""Seconds of processors and memory of conversions, stage by stage, beside TensorFlow's own conversion for inference.

Each model is converted and verified in a process of its own, then converted for inference by TensorFlow's own
``tf.lite.TFLiteConverter`` in another: that is the limit, as a model file holds more than the graph of its inference.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
from keras import layers

ROWS = 8


def mlp() -> keras.Model:
    stack = [keras.Input((784,)), layers.Dense(200, "relu"), layers.Dense(200, "relu"), layers.Dense(10, "softmax")]
    return keras.Sequential(stack)


def cnn() -> keras.Model:
    stack = [keras.Input((28, 28, 1))]
    for filters in (8, 16):
        stack += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(10, "softmax")])


def deep() -> keras.Model:
    return keras.Sequential(
        [keras.Input((20,)), *(layers.Dense(16, "relu") for _ in range(40)), layers.Dense(10, "softmax")]
    )


def lstm() -> keras.Model:
    return keras.Sequential([keras.Input((50, 6)), layers.LSTM(64), layers.Dense(10, "softmax")])


def both_ways() -> keras.Model:
    stack = [keras.Input((100, 6)), layers.Bidirectional(layers.LSTM(16)), layers.Dense(10, "softmax")]
    return keras.Sequential(stack)


def masked_grus() -> keras.Model:
    stack = [keras.Input((30,)), layers.Embedding(50, 8, mask_zero=True), layers.GRU(16, return_sequences=True)]
    return keras.Sequential([*stack, layers.GRU(16), layers.Dense(10, "softmax")])


def stacked_cells() -> keras.Model:
    cells = layers.RNN([layers.LSTMCell(8) for _ in range(3)])
    return keras.Sequential([keras.Input((3, 4)), cells, layers.Dense(10, "softmax")])


def attention() -> keras.Model:
    given = keras.Input((16, 8))
    hidden = layers.LayerNormalization()(given + layers.MultiHeadAttention(2, 4)(given, given))
    return keras.Model(given, layers.Dense(10, "softmax")(layers.Flatten()(hidden)))


def windows() -> keras.Model:
    stack = [keras.Input((512, 8))]
    for _ in range(6):
        stack += [layers.Conv1D(16, 5, strides=2, padding="same", activation="relu"), layers.BatchNormalization()]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(10, "softmax")])


def mobile_net() -> keras.Model:
    return keras.applications.MobileNetV2(input_shape=(96, 96, 3), weights=None, classes=10)


MODELS: dict[str, tuple[str, Callable[[], keras.Model]]] = {
    "mlp": ("2NN", mlp),
    "cnn": ("CNN, two convolutions", cnn),
    "deep": ("40 dense layers", deep),
    "lstm": ("LSTM(64), 50 steps", lstm),
    "both_ways": ("Bidirectional LSTM(16), 100 steps", both_ways),
    "masked_grus": ("masked: two GRU(16), 30 steps", masked_grus),
    "stacked_cells": ("three stacked LSTM cells, 3 steps", stacked_cells),
    "attention": ("MultiHeadAttention, 16 tokens", attention),
    "windows": ("6 x Conv1D and BatchNormalization, 512 steps", windows),
    "mobile_net": ("MobileNetV2 1.0, 96 x 96", mobile_net),
}


def used() -> float:
    """Seconds of processors that this process and the children that have ended have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def ours(model: Any) -> dict[str, Any]:
    """Converts and verifies; seconds of processors by stage."""
    import edgefl_converters
    from edgefl_converters import stages

    with tempfile.TemporaryDirectory() as folder, stages.measured_stages(used) as measured:
        path = Path(folder, "model.tflite")
        edgefl_converters.convert(model, path, batch_size=ROWS, on_progress=lambda line: None)
        return {"stages": dict(measured.seconds), "bytes": path.stat().st_size}


def limit(model: Any) -> dict[str, Any]:
    """Converts for inference, by TensorFlow alone."""
    import tensorflow as tf

    signature = [tf.TensorSpec((ROWS, *each.shape[1:]), each.dtype) for each in model.inputs]
    function = tf.function(lambda *given: model(list(given) if len(given) > 1 else given[0], training=False))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*signature)], model)
    # What it has for loops over time are ops that not every runtime has.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return {"bytes": len(converter.convert())}


def measured(name: str, way: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Runs one way for one model in this process."""
    keras.utils.set_random_seed(1)
    model = MODELS[name][1]()
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    before, start = used(), time.perf_counter()
    found = way(model)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {**found, "processors": used() - before, "seconds": time.perf_counter() - start, "peak_mb": peak}


def in_a_process(name: str, way: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--one", name, way], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--models", default=",".join(MODELS), help="some of the names, with commas between them")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, way = arguments.one
        print(json.dumps(measured(name, ours if way == "ours" else limit)))
        return
    rows = []
    for name in arguments.models.split(","):
        one, other = in_a_process(name, "ours"), in_a_process(name, "limit")
        rows.append({"model": MODELS[name][0], "edgefl": one, "inference": other})
        print(
            f"{MODELS[name][0]:46} {one['processors']:6.1f} s of processors, {one['peak_mb']:5.0f} MB, "
            f"{one['bytes']:9,} bytes; inference {other['processors']:5.1f} s, {other['peak_mb']:5.0f} MB: "
            f"{one['processors'] / other['processors']:5.1f} x",
            flush=True,
        )
        longest = sorted(one["stages"].items(), key=lambda each: -each[1])
        print("    " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in longest if seconds >= 0.05), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
