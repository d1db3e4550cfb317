"""Makes the model files of the golden set with TensorFlow; see docs/protocol.md, "The golden set".

Run as `python tests/golden/make_models.py`, and then `make_outcomes.py`: TensorFlow and tflite-runtime cannot share a
process. New files are only needed when the format of model files changes; other tests see to it that conversion gives
the same bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import layers

HERE = Path(__file__).parent
BATCH = "8"


def main() -> None:
    """Writes them."""
    for name, between, algorithms in (
        ("dropout", [layers.Dropout(0.25)], ("fedprox", "scaffold", "feddyn", "fedsgd")),
        ("normalised", [layers.BatchNormalization()], ()),
    ):
        keras.utils.set_random_seed(7)
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, "tanh"), *between, layers.Dense(3, "softmax")], name=name
        )
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"{name}.keras"
            model.save(source)
            wanted = [word for algorithm in algorithms for word in ("--algorithm", algorithm)]
            command = [sys.executable, "-m", "edgefl", "convert", source, "--out", HERE / f"{name}.tflite"]
            subprocess.run([*command, "--batch-size", BATCH, *wanted], check=True)
        (HERE / f"{name}.tflite.report.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
