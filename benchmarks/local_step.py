"""Time of one local training step: edgefl on both runtimes against Keras and the best raw tf.function.

Ratios are to `tf.function`; see interleaving.py for how it is timed.

    python benchmarks/local_step.py --json bench/local_step.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaving import measure, serve

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "2nn": ((784,), 10),
    "fedavg_cnn": ((28, 28, 1), 10),
    "smartwatch_1d_cnn": ((100, 6), 7),
}
CONTENDERS = ("edgefl ai-edge-litert", "edgefl tflite-runtime", "keras", "tf.function")
REFERENCE = "tf.function"


def build(name: str) -> Any:
    """The models: 2NN and CNN of McMahan et al. 2017, section 3, and one like the demo's."""
    import keras
    from keras import layers

    shape, classes = SHAPES[name]
    hidden = {
        "2nn": [layers.Dense(200, "relu"), layers.Dense(200, "relu")],
        "fedavg_cnn": [
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(512, "relu"),
        ],
        "smartwatch_1d_cnn": [
            layers.Conv1D(32, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
        ],
    }[name]
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *hidden, layers.Dense(classes, "softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


def batch(name: str, size: int) -> tuple[Any, Any]:
    """One batch of random data; the speed of a step does not depend on its content."""
    shape, classes = SHAPES[name]
    random = np.random.default_rng(0)
    return random.normal(size=(size, *shape)).astype(np.float32), random.integers(0, classes, size).astype(np.int32)


def make_step(contender: str, name: str, size: int, threads: int, file: str) -> Callable[[], Any]:
    """The step of one contender, ready to be called."""
    x, y = batch(name, size)
    if contender.startswith("edgefl"):
        import edgefl

        trainer = edgefl.TrainableModel(file, num_threads=threads, runtime=contender.split()[1])
        return lambda: trainer.train_on_batch(x, y)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = build(name)
    if contender == "keras":
        return lambda: model.train_on_batch(x, y)
    loss_function = tf.keras.losses.SparseCategoricalCrossentropy()
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=False)
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.01 * gradient)
        return loss

    inputs = tf.constant(x), tf.constant(y)
    return lambda: float(step(*inputs))


def convert(name: str, size: int, file: Path) -> None:
    """Converts in a process of its own, as TensorFlow must not be where a runtime is measured."""
    arguments = f"build({name!r}), {str(file)!r}, batch_size={size}"
    program = f"from local_step import build; import edgefl; edgefl.convert({arguments})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent)


def rows_of(name: str, size: int, arguments: argparse.Namespace, file: Path) -> list[dict[str, Any]]:
    """All contenders on one model."""
    threads = arguments.threads
    given = ["--model", name, "--batch", str(size), "--threads", str(threads), "--file", str(file)]
    timings = measure(
        {each: [sys.executable, __file__, "--contender", each, *given] for each in CONTENDERS},
        threads=threads,
        slices=arguments.slices,
        seconds=arguments.seconds,
    )
    return [
        {
            "model": name,
            "batch": size,
            "threads": threads,
            "contender": contender,
            "step_ms": round(timing.step_ms, 4),
            "ratio": round(timing.step_ms / timings[REFERENCE].step_ms, 3),
            "peak_rss_mb": round(timing.peak_rss_mb, 1),
        }
        for contender, timing in timings.items()
    ]


def main() -> None:
    """Runs the whole table, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the table")
    parser.add_argument("--slices", type=int, default=5, help="turns that each contender gets")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    for name in ("--contender", "--model", "--file"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.contender:
        serve(
            lambda: make_step(arguments.contender, arguments.model, arguments.batch, arguments.threads, arguments.file)
        )
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in SHAPES:
            for size in (10, 32):
                file = Path(folder) / f"{name}-{size}.tflite"
                convert(name, size, file)
                for row in rows_of(name, size, arguments, file):
                    rows.append(row)
                    print(
                        f"{row['model']:18} batch {row['batch']:2}  {row['contender']:22} {row['step_ms']:9.3f} ms "
                        f"{row['ratio']:6.2f}× {REFERENCE}  {row['peak_rss_mb']:6.0f} MB"
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
