"""How long conversions take, beside the limit for MobileNetV2, and how large files are beside their weights."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
from keras import layers

from edgefl_converters.building.building import build

LIMIT = 45.0
"""Seconds for MobileNetV2 in full on two cores."""


def mobile_net() -> keras.Model:
    return keras.applications.MobileNetV2(input_shape=(96, 96, 3), weights=None, classes=10)


def lstm() -> keras.Model:
    return keras.Sequential([keras.Input((50, 6)), layers.LSTM(64), layers.Dense(10, "softmax")])


def mlp() -> keras.Model:
    stack = [keras.Input((784,)), layers.Dense(200, "relu"), layers.Dense(200, "relu"), layers.Dense(10, "softmax")]
    return keras.Sequential(stack)


MODELS = {"MobileNetV2 1.0, 96 x 96": mobile_net, "LSTM(64), 50 steps": lstm, "2NN": mlp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for name, make in MODELS.items():
        model = make()
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        seconds, size = [], 0
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            size = len(build(model, batch_size=8).data)
            seconds.append(time.perf_counter() - start)
        median, weights = statistics.median(seconds), 4 * model.count_params()
        rows.append(
            {"model": name, "seconds": median, "of_the_limit": median / LIMIT, "file_to_weights": size / weights}
        )
        print(
            f"{name:26} {median:6.1f} s, {median / LIMIT:5.2f} of 45 s; file {size / weights:5.2f} x weights",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
