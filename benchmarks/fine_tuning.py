"""What choosing what is trained buys: MobileNetV2 (96 x 96, 10 classes, alpha 0.35, batch 8) on each runtime.

Every variant is converted with the whole verification beside Keras, then all are timed side by side (interleaving.py);
ratios are to training the whole network on the same runtime.

    python benchmarks/fine_tuning.py --json bench/fine_tuning.json
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

from edgefl_device_runtime.training import installed_runtimes
from interleaving import Timing, measure
from serving import serve

SIDE, CLASSES, BATCH = 96, 10, 8
RUNTIMES = installed_runtimes()
WHOLE = "whole network"
VARIANTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "last block": {"trainable": ["block_16*", "Conv_1*", "predictions"]},
    "head only": {"last_layers": 1},
    "LoRA (rank 4) on the head": {"lora_rank": 4, "lora_targets": ["predictions"]},
    "biases only": {"biases_only": True},
    "head only, base in int8": {"last_layers": 1, "quantize_frozen": "int8"},
}
"""Arguments of `edgefl.FineTuning`, and how frozen weights are stored."""


def network() -> Any:
    """MobileNetV2 with random weights, and averages that belong to them: without, its features vanish."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(input_shape=(SIDE, SIDE, 3), alpha=0.35, weights=None, classes=CLASSES)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(np.random.default_rng(0).normal(size=(32, SIDE, SIDE, 3)).astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


def convert(variant: str, file: str) -> None:
    """Converts and verifies one variant; prints what is known about it then."""
    import edgefl

    settings = dict(VARIANTS[variant])
    storage = settings.pop("quantize_frozen", None)
    result = edgefl.convert(
        network(), file, batch_size=BATCH, fine_tuning=edgefl.FineTuning(**settings), quantize_frozen=storage
    )
    known = {
        "bytes": result.report["bytes"],
        "travel": result.manifest.layout.size,
        "parity": {
            each["name"]: {kind: worst["error"] for kind, worst in each["worst"].items()}
            for each in result.report["verification"]["runtimes"]
        },
        "storage": result.report.get("quantize_frozen"),
    }
    Path(file).with_suffix(".json").write_text(json.dumps(known))


def make_step(runtime: str, file: str, threads: int) -> Callable[[], Any]:
    """A training step, ready to be called."""
    import edgefl

    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    y = random.integers(0, CLASSES, BATCH).astype(np.int32)
    trainer = edgefl.TrainableModel(file, num_threads=threads, runtime=runtime)
    return lambda: trainer.train_on_batch(x, y)


def row(variant: str, known: dict[str, Any], timings: dict[str, Timing]) -> dict[str, Any]:
    """One line of the table."""
    found: dict[str, Any] = {"variant": variant, **known}
    for runtime in RUNTIMES:
        own, whole = timings[f"{variant}/{runtime}"], timings[f"{WHOLE}/{runtime}"]
        found[runtime] = {
            "step_ms": round(own.step_ms, 3),
            "times_faster_than_whole": round(whole.step_ms / own.step_ms, 1),
            "peak_rss_mb": round(own.peak_rss_mb, 1),
        }
    return found


def main() -> None:
    """Runs the whole table, or one part of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the table")
    parser.add_argument("--slices", type=int, default=5, help="turns that each contender gets")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--threads", type=int, default=1)
    for name in ("--convert", "--runtime", "--file"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        convert(arguments.convert, arguments.file)
        return
    if arguments.runtime:
        serve(lambda: make_step(arguments.runtime, arguments.file, arguments.threads))
        return
    known, commands = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for index, variant in enumerate(VARIANTS):
            file = Path(folder, f"{index}.tflite")
            # TensorFlow must not be in a process in which a runtime is measured.
            subprocess.run([sys.executable, __file__, "--convert", variant, "--file", str(file)], check=True)
            known[variant] = json.loads(file.with_suffix(".json").read_text())
            for runtime in RUNTIMES:
                given = ["--runtime", runtime, "--file", str(file), "--threads", str(arguments.threads)]
                commands[f"{variant}/{runtime}"] = [sys.executable, __file__, *given]
        timings = measure(commands, threads=arguments.threads, slices=arguments.slices, seconds=arguments.seconds)
    rows = [row(variant, known[variant], timings) for variant in VARIANTS]
    for each in rows:
        print(f"{each['variant']}: file {each['bytes'] / 1e6:.2f} MB, {each['travel']:,} numbers travel")
        for runtime in RUNTIMES:
            figures = each[runtime]
            print(
                f"    {runtime:15} {figures['step_ms']:8.2f} ms, {figures['times_faster_than_whole']:5.1f} x faster "
                f"than the {WHOLE}, {figures['peak_rss_mb']:4.0f} MB, "
                f"gradient off by {each['parity'][runtime]['gradient']:.0e}"
            )
        for cost in (each["storage"] or {}).get("runtimes", []):
            print(f"    {cost['runtime']}: outputs change by {100 * cost['output_error']:.2g} %")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
