"""What a large frozen base costs a training process: memory of a step, beside the size of its weights, and its time.

A Llama-like decoder with LoRA of rank 8 on its seven projections (64 tokens a row, SGD, random weights), and a new head
on ResNet50 and VGG16 (64 x 64, 8 rows); each as a file whose kernels are read in place, and one in which they are not.
Memory is that of a process that takes four steps, and of the same once it has evaluated and predicted; a step's time is
that of the processor, the best of some, as such machines are shared. PyTorch trains the decoders too where `make
bench-peers` has installed it.

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
from local_steps.contending import PEERS_PYTHON

TORCH = Path(__file__).with_name("local_steps") / "torch_decoder.py"
TOKENS, SIDE, CLASSES, IMAGES = 64, 64, 10, 8
PACKED = ["one_copy", "packed_convolutions"]
PROJECTIONS = [f"*_{name}" for name in ("query", "key", "value", "output", "gate", "up", "down")]
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


def decoder(words: int, width: int, blocks: int, heads: int, wide: int) -> Any:
    """Attention with rotated queries and keys, and gated dense layers, as in Llama (Touvron et al. 2023)."""
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(1)
    size = width // heads
    angles = np.outer(np.arange(TOKENS), 1e4 ** -(np.arange(0, size, 2) / size)).astype(np.float32)
    cosines, sines = (np.tile(each(angles), 2)[:, np.newaxis] for each in (np.cos, np.sin))
    hidden = np.triu(np.full((TOKENS, TOKENS), -1e9, np.float32), 1)

    def of_heads(x: Any, rotated: bool) -> Any:
        x = ops.reshape(x, (-1, TOKENS, heads, size))
        if rotated:
            turned = ops.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1)
            x = x * cosines + turned * sines
        return ops.transpose(x, (0, 2, 1, 3))

    def project(x: Any, outputs: int, name: str) -> Any:
        return layers.Dense(outputs, use_bias=False, name=name)(x)

    tokens = keras.Input((TOKENS,), dtype="int32", name="tokens")
    x = layers.Embedding(words, width, name="embedding")(tokens)
    for block in range(blocks):
        name = f"block{block}"
        normed = layers.RMSNormalization(name=f"{name}_before")(x)
        query, key, value = (
            of_heads(project(normed, width, f"{name}_{part}"), part != "value") for part in ("query", "key", "value")
        )
        seen = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / size**0.5 + hidden)
        attended = ops.reshape(ops.transpose(ops.matmul(seen, value), (0, 2, 1, 3)), (-1, TOKENS, width))
        x = x + project(attended, width, f"{name}_output")
        normed = layers.RMSNormalization(name=f"{name}_between")(x)
        gated = ops.silu(project(normed, wide, f"{name}_gate")) * project(normed, wide, f"{name}_up")
        x = x + project(gated, width, f"{name}_down")
    x = layers.RMSNormalization(name="behind")(x)
    model = keras.Model(tokens, project(x, words, "head"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
    return model


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


LORA = {"lora_rank": 8, "lora_targets": PROJECTIONS}
SMALL, LARGE = (8000, 256, 8, 4, 688), (26000, 768, 12, 12, 2048)
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], int]] = {
    "decoder_10m": (lambda: decoder(*SMALL), LORA, SMALL[0]),
    "decoder_125m": (lambda: decoder(*LARGE), LORA, LARGE[0]),
    "resnet50_head": (lambda: classifier("ResNet50"), {"trainable": "head"}, 0),
    "vgg16_head": (lambda: classifier("VGG16"), {"trainable": "head"}, 0),
}
"""The model, what of it is trained, and how many words it knows."""


def save_batch(words: int, rows: int, folder: Path) -> None:
    """Writes made-up data."""
    drawn = np.random.default_rng(0)
    if words:
        x, y = (drawn.integers(0, words, (rows, TOKENS)).astype(np.int32) for _ in "xy")
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
        make, tuning, words = CASES[name]
        rows = given.batch or (1 if words else IMAGES)
        with tempfile.TemporaryDirectory() as folder:
            save_batch(words, rows, Path(folder))
            for how, without in (("read in place", []), ("packed", PACKED)):
                file = Path(folder, f"{len(without)}.tflite")
                settings = {"batch_size": rows, "micro_batch": given.micro_batch, "without_passes": without}
                edgefl.convert(make(), file, verify=False, fine_tuning=edgefl.FineTuning(**tuning), **settings)
                for runtime in installed_runtimes():
                    size = file.stat().st_size / 1e6
                    found = measured([sys.executable, "-c", STEPS, str(file), runtime, folder, str(given.steps)])
                    table.append({"case": name, "kernels": how, "runtime": runtime, "file_mb": size, **found})
                    print(f"{name}, kernels {how}, {runtime}: file {size:.1f} MB, {told(found)}", flush=True)
        if words and PEERS_PYTHON.exists():
            sizes = (*(SMALL if words == SMALL[0] else LARGE), rows, given.steps)
            found = measured([str(PEERS_PYTHON), str(TORCH), *map(str, sizes)])
            table.append({"case": name, "kernels": "", "runtime": "PyTorch", **found})
            print(f"{name}, PyTorch: {told(found)}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
