"""What a large frozen base costs a training process: memory of a step, beside the size of its weights, and its time.

The decoders of language_models.py with LoRA, and a new head on ResNet50 and VGG16 (64 x 64, 8 rows); each as a file
whose kernels are read in place, and one in which they are not. Memory is that of a process that takes four steps, and
of the same once it has evaluated and predicted; a step's time is that of the processor, the best of some, as such
machines are shared. language_models.py compares with Keras and PyTorch.

    python benchmarks/frozen_bases.py --cases decoder_10m,resnet50_head
    python benchmarks/frozen_bases.py --cases decoder_10m --batch 4 --micro-batch 1
    python benchmarks/frozen_bases.py --cases decoder_125m        # converts for 10 minutes or more, each file
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from edgefl_device_runtime.training import installed_runtimes
from language.sizes import PROJECTIONS, RANK, SIZES

SIDE, CLASSES, IMAGES = 64, 10, 8
PACKED = ["one_copy", "packed_convolutions"]
STEPS = """
import sys, time
import numpy as np
from edgefl_device_runtime.training import TrainableModel

def memory(name):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(name))

model = TrainableModel(sys.argv[1], runtime=sys.argv[2])
x, y = (np.load(f"{sys.argv[3]}/{name}.npy") for name in "xy")
times = []
for step in range(4 + int(sys.argv[4])):
    begin = time.thread_time()
    model.train_on_batch(x, y)
    times.append(time.thread_time() - begin)
    if step == 3:
        print(memory("VmHWM"), memory("RssAnon"))
model.evaluate(x, y)
model.predict(x)
print(memory("VmHWM"), memory("RssAnon"), 1000 * min(times[4:]))
"""


def decoder(name: str) -> Any:
    """The language model of a size."""
    from language.keras_decoder import build

    return build(SIZES[name])


def classifier(application: str) -> Any:
    """One of Keras's networks with random weights, averages that belong to them, and a head of its own."""
    import keras

    keras.utils.set_random_seed(1)
    make = getattr(keras.applications, application)
    base = make(input_shape=(SIDE, SIDE, 3), weights=None, include_top=False, pooling="avg")
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    base(np.random.default_rng(0).normal(size=(16, SIDE, SIDE, 3)).astype(np.float32), training=True)
    model = keras.Sequential([base, keras.layers.Dense(CLASSES, activation="softmax", name="head")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", jit_compile=False)
    return model


LORA = {"lora_rank": RANK, "lora_targets": [f"*_{name}" for name in PROJECTIONS]}
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "decoder_10m": (lambda: decoder("10M"), LORA, "10M"),
    "decoder_125m": (lambda: decoder("125M"), LORA, "125M"),
    "resnet50_head": (lambda: classifier("ResNet50"), {"trainable": "head"}, ""),
    "vgg16_head": (lambda: classifier("VGG16"), {"trainable": "head"}, ""),
}
"""The model, what of it is trained, and which size of language model it is."""


def save_batch(language: str, rows: int, folder: Path) -> None:
    """Writes made-up data."""
    drawn = np.random.default_rng(0)
    if language:
        size = SIZES[language]
        x, y = (drawn.integers(0, size.vocabulary, (rows, size.length)).astype(np.int32) for _ in "xy")
    else:
        x = drawn.normal(size=(rows, SIDE, SIDE, 3)).astype(np.float32)
        y = drawn.integers(0, CLASSES, rows).astype(np.int32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)


def measured(command: list[str]) -> dict[str, float]:
    """What a process takes that trains."""
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    names = ("peak_mb", "anonymous_mb", "peak_evaluated_mb", "anonymous_evaluated_mb", "step_ms")
    return dict(zip(names, map(float, said[-len(names) :]), strict=True))


def told(found: Mapping[str, float]) -> str:
    """The figures as a line."""
    return (
        f"peak {found['peak_mb']:.0f} MB, anonymous {found['anonymous_mb']:.0f}; evaluated "
        f"{found['peak_evaluated_mb']:.0f}, {found['anonymous_evaluated_mb']:.0f}; step {found['step_ms']:.1f} ms"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="decoder_10m,resnet50_head,vgg16_head", help=f"of {', '.join(CASES)}")
    parser.add_argument("--batch", type=int, help="rows of a batch; one of tokens, 8 images, unless given")
    parser.add_argument("--micro-batch", type=int, help="rows that are computed at once")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    names = given.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    table: list[dict[str, Any]] = []
    for name in names:
        make, tuning, language = CASES[name]
        rows = given.batch or (1 if language else IMAGES)
        with tempfile.TemporaryDirectory() as folder:
            save_batch(language, rows, Path(folder))
            for how, without in (("read in place", []), ("packed", PACKED)):
                file = Path(folder, f"{len(without)}.tflite")
                settings = {"batch_size": rows, "micro_batch": given.micro_batch, "without_passes": without}
                edgefl.convert(make(), file, verify=False, fine_tuning=edgefl.FineTuning(**tuning), **settings)
                for runtime in installed_runtimes():
                    size = file.stat().st_size / 1e6
                    found = measured([sys.executable, "-c", STEPS, str(file), runtime, folder, str(given.steps)])
                    table.append({"case": name, "kernels": how, "runtime": runtime, "file_mb": size, **found})
                    print(f"{name}, kernels {how}, {runtime}: file {size:.1f} MB, {told(found)}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
