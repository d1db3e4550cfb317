"""Converts a small model, verifies it, and does so again without the toy pass: TensorFlow stays in this process.

python converting_in_a_child.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
from keras import layers

import edgefl


def model() -> keras.Model:
    keras.utils.set_random_seed(9)
    built = keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(2)])
    built.compile(keras.optimizers.SGD(0.1), "mse")
    return built


def main() -> None:
    folder = Path(sys.argv[1])
    edgefl.convert(model(), folder / "with.tflite", batch_size=4)
    edgefl.convert(model(), folder / "without.tflite", batch_size=4, without_passes="swap_addends")


if __name__ == "__main__":
    main()
