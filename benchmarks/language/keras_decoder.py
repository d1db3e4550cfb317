"""The decoder in Keras, its conversion, and Keras's own step.

    python -m language.keras_decoder SIZE FOLDER

writes FOLDER/model.tflite, converted and verified, with its weights and adapters for the peers, and prints the cost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from keras import layers, ops

from language.sizes import PROJECTIONS, RANK, RATE, SIZES, Size, batch_of, causal_mask, read, rotations, write
from serving import peak_rss_mb

__all__ = ["build", "make_step"]


def build(size: Size) -> keras.Model:
    """The decoder with random weights, compiled with plain SGD."""
    keras.utils.set_random_seed(1)
    cosines, sines = rotations(size)
    mask = causal_mask(size)

    def rotated(x: Any) -> Any:
        one, other = ops.split(x, 2, axis=-1)
        return x * cosines + ops.concatenate([-other, one], axis=-1) * sines

    def heads(x: Any, name: str, count: int) -> Any:
        return layers.Reshape((size.length, count, size.head_width))(
            layers.Dense(count * size.head_width, use_bias=False, name=name)(x)
        )

    tokens = keras.Input((size.length,), dtype="int32", name="tokens")
    x = layers.Embedding(size.vocabulary, size.width, name="tokens_table")(tokens)
    for number in range(size.blocks):
        name = f"block_{number}"
        normed = layers.RMSNormalization(name=f"{name}_before_attention")(x)
        query = rotated(heads(normed, f"{name}_query", size.heads))
        key = rotated(heads(normed, f"{name}_key", size.groups))
        value = heads(normed, f"{name}_value", size.groups)
        if size.groups < size.heads:
            key, value = (ops.repeat(each, size.heads // size.groups, axis=2) for each in (key, value))
        query, key, value = (ops.transpose(each, (0, 2, 1, 3)) for each in (query, key, value))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / size.head_width**0.5 + mask
        seen = ops.transpose(ops.matmul(ops.softmax(scores), value), (0, 2, 1, 3))
        seen = layers.Reshape((size.length, size.width))(seen)
        x = x + layers.Dense(size.width, use_bias=False, name=f"{name}_output")(seen)
        normed = layers.RMSNormalization(name=f"{name}_before_gate")(x)
        gate = ops.silu(layers.Dense(size.hidden, use_bias=False, name=f"{name}_gate")(normed))
        up = layers.Dense(size.hidden, use_bias=False, name=f"{name}_up")(normed)
        x = x + layers.Dense(size.width, use_bias=False, name=f"{name}_down")(gate * up)
    x = layers.RMSNormalization(name="before_head")(x)
    model = keras.Model(tokens, layers.Dense(size.vocabulary, use_bias=False, name="head")(x), name="decoder")
    model.compile(
        keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    return model


def adapted_layers(size: Size) -> list[str]:
    """Names of the layers that have adapters."""
    return [f"block_{number}_{projection}" for number in range(size.blocks) for projection in PROJECTIONS]


def convert(name: str, folder: Path) -> None:
    """Converts and verifies; leaves what the peers need, and prints the figures."""
    import edgefl

    size = SIZES[name]
    model = build(size)
    write(folder / "base", {each.path: np.asarray(each) for each in model.weights})
    before, start = peak_rss_mb(), time.monotonic()
    result = edgefl.convert(
        model,
        folder / "model.tflite",
        batch_size=size.rows,
        fine_tuning=edgefl.FineTuning(lora_rank=RANK, lora_targets=adapted_layers(size)),
        on_progress=lambda line: print(line, file=sys.stderr),
    )
    seconds, layout = time.monotonic() - start, result.manifest.layout
    write(folder / "adapters", layout.views(edgefl.TrainableModel(folder / "model.tflite").weights))
    figures = {
        "parameters": model.count_params(),
        "travels": layout.size,
        "file_mb": result.report["bytes"] / 1e6,
        "seconds": seconds,
        "before_mb": before,
        "peak_mb": peak_rss_mb(),
    }
    print(json.dumps(figures))


def make_step(name: str, folder: Path, threads: int) -> Callable[[], float]:
    """Keras's own step: its own adapters on the same layers, with the same numbers."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    size = SIZES[name]
    model = build(size)
    base, adapters = read(folder / "base"), read(folder / "adapters")
    for each in model.weights:
        each.assign(base[each.path])
    wanted = set(adapted_layers(size))
    for layer in model.layers:
        layer.trainable = layer.name in wanted
        if layer.name in wanted:
            layer.enable_lora(RANK)
            layer.lora_kernel_a.assign(adapters[f"{layer.name}/lora_kernel_a"])
            layer.lora_kernel_b.assign(adapters[f"{layer.name}/lora_kernel_b"])
    model.compile(model.optimizer.__class__(RATE), model.loss, jit_compile=False)
    x, y = batch_of(size)
    return lambda: float(model.train_on_batch(x, y))


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
